"""SQL values as JSON text, written by the engine."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import duckdb
import pytest

from services.queryd.core.jsontext import (
    SqlType,
    distinct_names,
    write_row_array,
    write_row_object,
    write_value,
)
from services.queryd.worker.engine import read_type


def column_type(sql: str) -> SqlType:
    described = duckdb.execute(f"SELECT {sql}").description
    assert described is not None
    return read_type(described[0][1])


def write(sql: str) -> str:
    """The JSON text of one SQL value."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        text = write_value(column_type(sql), "v")
        row = connection.execute(f"SELECT {text} FROM (SELECT {sql} AS v)").fetchone()
    assert row is not None
    assert isinstance(row[0], str)
    return row[0]


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("true", "true"),
        ("42::TINYINT", "42"),
        ("9223372036854775807", "9223372036854775807"),
        ("18446744073709551615::UBIGINT", "18446744073709551615"),
        ("170141183460469231731687303715884105727::HUGEINT", str(2**127 - 1)),
        ("340282366920938463463374607431768211455::UHUGEINT", str(2**128 - 1)),
        ("1.10::DECIMAL(5, 2)", "1.10"),
        ("1234567890123456.78::DECIMAL(18, 2)", "1234567890123456.78"),
        ("12345678901234567890.123456789::DECIMAL(38, 9)", "12345678901234567890.123456789"),
        ("-0.05::DECIMAL(3, 2)", "-0.05"),
        ("0.1::FLOAT", "0.1"),
        ("0.1::DOUBLE", "0.1"),
        ("1e300::DOUBLE", "1e+300"),
        ("5.0::DOUBLE", "5.0"),
        ("'nan'::DOUBLE", '"NaN"'),
        ("'inf'::FLOAT", '"Infinity"'),
        ("'-inf'::DOUBLE", '"-Infinity"'),
        ("DATE '2026-01-31'", '"2026-01-31"'),
        ("TIMESTAMP '2026-01-31 12:00:00'", '"2026-01-31T12:00:00"'),
        ("TIMESTAMP '2026-01-31 12:00:00.000001'", '"2026-01-31T12:00:00.000001"'),
        ("TIMESTAMPTZ '2026-01-31 14:00:00.5+02'", '"2026-01-31T12:00:00.5Z"'),
        ("TIMESTAMP_NS '2026-01-31 12:00:00.123456789'", '"2026-01-31T12:00:00.123456789"'),
        ("TIMESTAMP_S '2026-01-31 12:00:00'", '"2026-01-31T12:00:00"'),
        ("TIMESTAMP_MS '2026-01-31 12:00:00.25'", '"2026-01-31T12:00:00.25"'),
        ("'infinity'::TIMESTAMP", '"infinity"'),
        ("'-infinity'::DATE", '"-infinity"'),
        ("TIME '01:02:03.5'", '"01:02:03.5"'),
        ("'01:02:03+02:00'::TIMETZ", '"01:02:03+02"'),
        ("INTERVAL '1 year 2 days 3 seconds'", '"1 year 2 days 00:00:03"'),
        ("'\\x00\\xFF'::BLOB", '"AP8="'),
        ("'10101'::BIT", '"10101"'),
        ("'d04fdfaa-d737-4bb3-a52f-89dcc2a4311a'::UUID", '"d04fdfaa-d737-4bb3-a52f-89dcc2a4311a"'),
        ("'a\"b'::ENUM('a\"b', 'c')", '"a\\"b"'),
        ('\'{"a": 1.50, "b": [1, null]}\'::JSON', '{"a": 1.50, "b": [1, null]}'),
        ('\'{"a":\n "nan inf"}\'::JSON', '{"a":  "nan inf"}'),
        ("'[NaN, 1]'::JSON", '"[NaN, 1]"'),
        ("[1.50::DECIMAL(9, 2), NULL]", "[1.50,null]"),
        ("[]::INTEGER[]", "[]"),
        ("[[1], NULL, []]", "[[1],null,[]]"),
        ("[1.5, 2.5]::DOUBLE[2]", "[1.5,2.5]"),
        ("{'a': 1, 'b c': 'x', 'd': NULL::DATE}", '{"a":1,"b c":"x","d":null}'),
        ("{'t': TIMESTAMP '2026-01-31 12:00:00'}", '{"t":"2026-01-31T12:00:00"}'),
        ("row(1, 'x')", '[1,"x"]'),
        ("[{'a': [1.5::DECIMAL(3, 1)]}]", '[{"a":[1.5]}]'),
        ("MAP {'k\"': 1.50::DECIMAL(9, 2)}", '{"k\\"":1.50}'),
        ("MAP {1: [DATE '2026-01-31']}", '{"1":["2026-01-31"]}'),
        ("MAP {'a': MAP {'b': 'nan'::DOUBLE}}", '{"a":{"b":"NaN"}}'),
        ("union_value(num := 1.50::DECIMAL(9, 2))", '{"num":1.50}'),
        ("union_value(k := 2)::UNION(k INTEGER, s VARCHAR)", '{"k":2}'),
    ],
)
def test_a_value_is_written_so(sql: str, text: str) -> None:
    assert write(sql) == text
    json.loads(text)


@pytest.mark.parametrize(
    "text", ["", "plain", 'q"uo\\te', "new\nline\ttab\r", "\x01\x1f", "é😀\u2028", "a" * 5000]
)
def test_text_is_escaped_as_json_wants_it(text: str) -> None:
    kind = column_type("'x'")
    row = duckdb.execute(
        f"SELECT {write_value(kind, 'v')} FROM (SELECT $1 AS v)", [text]
    ).fetchone()
    assert row is not None
    assert json.loads(row[0]) == text
    assert "\n" not in row[0]


def nothings() -> list[str]:
    kinds = duckdb.execute("SELECT column_type FROM (DESCRIBE FROM test_all_types())").fetchall()
    return sorted({kind[0] for kind in kinds if "large" not in kind[0]})


@pytest.mark.parametrize("kind", nothings())
def test_null_of_every_type_is_null(kind: str) -> None:
    assert write(f"NULL::{kind}") == "null"


def test_every_value_of_every_type_is_valid_json() -> None:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        query = connection.execute("FROM test_all_types()")
        described = query.description
        assert described is not None
        kinds = [read_type(d[1]) for d in described]
        names = [f"c{i}" for i in range(len(kinds))]
        text = write_row_array(kinds)
        rows = connection.execute(
            f"SELECT {text} FROM test_all_types() AS t({', '.join(names)})"
        ).fetchall()
    assert len(rows) == 3
    for row in rows:
        values = json.loads(row[0][1:], parse_float=Decimal)
        assert len(values) == len(kinds)


def test_rows_are_arrays_after_a_comma_or_objects_on_a_line() -> None:
    kinds = [column_type("1"), column_type("'x'")]
    source = "(SELECT 1 AS c0, 'é' AS c1)"
    row = duckdb.execute(f"SELECT {write_row_array(kinds)} FROM {source}").fetchone()
    assert row == (',[1,"é"]',)
    names = ["it's", 'q"']
    row = duckdb.execute(f"SELECT {write_row_object(names, kinds)} FROM {source}").fetchone()
    assert row == ('{"it\'s":1,"q\\"":"é"}\n',)


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "a", "a"], ["a", "a_1", "a_2"]),
        (["a", "a", "a_1"], ["a", "a_2", "a_1"]),
        (["a", "A"], ["a", "A"]),
        ([""], [""]),
    ],
)
def test_keys_of_an_object_are_distinct(names: list[str], keys: list[str]) -> None:
    assert distinct_names(names) == keys
    assert len(set(keys)) == len(keys)


def test_types_are_read_with_their_members() -> None:
    found = column_type("{'a': [1::DECIMAL(9, 2)], 'm': MAP {'k': 'x'::ENUM('x')}}")
    shape: Any = (found.id, [(n, m.id, [c.id for _, c in m.members]) for n, m in found.members])
    assert shape == ("struct", [("a", "list", ["decimal"]), ("m", "map", ["varchar", "enum"])])
    assert [name for name, _ in column_type("union_value(k := 1)").members] == ["k"]
    assert column_type("[1, 2]::INTEGER[2]").members[0][1].id == "integer"
