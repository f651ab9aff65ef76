"""SQL values as CSV text, written by the engine and read back by other readers."""

from __future__ import annotations

import csv
import io
from typing import Any

import duckdb
import pytest

from services.queryd.core.csvtext import write_header, write_row_csv
from services.queryd.worker.engine import read_type


def write(*values: str) -> str:
    """One CSV line of SQL values, without its end."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        columns = ", ".join(f"{value} AS c{i}" for i, value in enumerate(values))
        described = connection.execute(f"SELECT {columns}").description
        assert described is not None
        row = write_row_csv([read_type(d[1]) for d in described])
        found = connection.execute(f"SELECT {row} FROM (SELECT {columns})").fetchone()
    assert found is not None
    text: str = found[0]
    assert text.endswith("\n")
    return text[:-1]


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("true", "true"),
        ("9223372036854775807", "9223372036854775807"),
        ("1.10::DECIMAL(5, 2)", "1.10"),
        ("0.1::DOUBLE", "0.1"),
        ("'nan'::DOUBLE", "NaN"),
        ("'inf'::FLOAT", "Infinity"),
        ("'-inf'::DOUBLE", "-Infinity"),
        ("DATE '2026-01-31'", "2026-01-31"),
        ("TIMESTAMP '2026-01-31 12:00:00.5'", "2026-01-31T12:00:00.5"),
        ("TIMESTAMP 'infinity'", "infinity"),
        ("TIMESTAMPTZ '2026-01-31 12:00:00+02'", "2026-01-31T10:00:00Z"),
        ("TIMESTAMP_NS '2026-01-31 12:00:00.123456789'", "2026-01-31T12:00:00.123456789"),
        ("'\\xFF'::BLOB", "/w=="),
        ("'plain text'", "plain text"),
        ("'a,b'", '"a,b"'),
        ("'say \"x\"'", '"say ""x"""'),
        ("E'two\\nlines'", '"two\nlines"'),
        ("E'carriage\\rreturn'", '"carriage\rreturn"'),
        ("''", '""'),
        ("'é😀'", "é😀"),
        ("[1, 2]", '"[1,2]"'),
        ("{'a': 'x, y', 'b': NULL}", '"{""a"":""x, y"",""b"":null}"'),
        ("'{\"k\": 1}'::JSON", '"{""k"": 1}"'),
        ("'on'::ENUM('on', 'off')", "on"),
        ("INTERVAL 1 DAY", "1 day"),
    ],
)
def test_a_value_has_its_text(sql: str, text: str) -> None:
    assert write(sql, "7") == f"{text},7"


@pytest.mark.parametrize(
    "kind", ["INTEGER", "DOUBLE", "VARCHAR", "TIMESTAMP", "BLOB", "INTEGER[]", "STRUCT(a INTEGER)"]
)
def test_null_is_nothing_between_commas(kind: str) -> None:
    assert write("1", f"NULL::{kind}", "2") == "1,,2"


def test_a_row_of_one_null_is_no_empty_line() -> None:
    assert write("NULL::VARCHAR") == '""'


def test_names_are_quoted_and_told_apart() -> None:
    head = write_header(["a", "a", 'say "x"', "b,c", ""]).decode()
    assert head == 'a,a_1,"say ""x""","b,c",""\n'


def test_other_readers_get_the_same_texts_back() -> None:
    texts = ["", " x ", '"', '""', ",", "\n", "\r\n", "a\tb", "=1+1", "'", "ü"]
    values: list[str] = ["'" + text.replace("'", "''") + "'" for text in texts]
    line = write(*values) + "\n"
    rows: list[Any] = list(csv.reader(io.StringIO(line, newline="")))
    assert rows == [texts]
