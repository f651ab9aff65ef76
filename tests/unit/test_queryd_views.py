"""The SQL that makes files a table, run on real files; and how fast its rows are made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from services.queryd.core.jsontext import SqlType
from services.queryd.core.pace import choose_ahead_bytes, choose_batch_rows, guess_row_bytes
from services.queryd.core.views import (
    Table,
    common_folder,
    is_bare_cast,
    is_plain_type,
    local_path,
    make_view,
    probe_type,
    quote_name,
    quote_text,
)
from shared.errors import Unprocessable


def write(path: Path, sql: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    duckdb.execute(f"COPY ({sql}) TO {quote_text(str(path))} (FORMAT parquet)")
    return str(path)


def read(
    monkeypatch: pytest.MonkeyPatch, table: Table, sql: str, *, tolerant: bool = False
) -> list[Any]:
    folder = common_folder([table]) or "/"
    monkeypatch.chdir(folder)
    with duckdb.connect() as connection:
        connection.execute(make_view(table, folder, tolerant=tolerant))
        return connection.execute(sql).fetchall()


def test_columns_are_cast_to_the_catalogues_types(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.parquet", "SELECT 1::INTEGER AS a, '2026-01-31' AS d")
    table = Table("t", (("a", "BIGINT"), ("d", "DATE")), (path,))
    rows = read(monkeypatch, table, "SELECT typeof(a), typeof(d), d::VARCHAR FROM t")
    assert rows == [("BIGINT", "DATE", "2026-01-31")]


def test_files_of_an_evolved_dataset_are_matched_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = write(tmp_path / "x" / "old.parquet", "SELECT 1::INTEGER AS a, 'o' AS b, 9 AS gone")
    new = write(tmp_path / "y" / "new.parquet", "SELECT 'n' AS b, 2.5::DOUBLE AS c, 2::BIGINT AS a")
    table = Table("t", (("a", "BIGINT"), ("b", "VARCHAR"), ("c", "DOUBLE")), (old, new))
    assert read(monkeypatch, table, "FROM t ORDER BY a") == [(1, "o", None), (2, "n", 2.5)]


def test_a_struct_that_grew_reads_null_where_it_was_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = write(tmp_path / "old.parquet", "SELECT {'a': 1} AS s")
    new = write(tmp_path / "new.parquet", "SELECT {'b': 'x', 'a': 2} AS s")
    table = Table("t", (("s", "STRUCT(a INTEGER, b VARCHAR)"),), (old, new))
    rows = read(monkeypatch, table, "SELECT s.a, s.b FROM t ORDER BY 1")
    assert rows == [(1, None), (2, "x")]


def test_a_column_that_no_file_has_is_null_when_asked_to_bear_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.parquet", "SELECT 1::INTEGER AS a")
    table = Table("t", (("a", "BIGINT"), ("late", "DATE")), (path,))
    with pytest.raises(duckdb.BinderException):
        read(monkeypatch, table, "FROM t")
    rows = read(monkeypatch, table, "SELECT a, late, typeof(late) FROM t", tolerant=True)
    assert rows == [(1, None, "DATE")]


def test_a_dataset_without_files_is_an_empty_table(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table("t", (("a b", "BIGINT"), ('q"q', "VARCHAR")), ())
    assert common_folder([table]) is None
    assert read(monkeypatch, table, "FROM t") == []
    described = read(monkeypatch, table, "SELECT column_name, column_type FROM (DESCRIBE t)")
    assert described == [("a b", "BIGINT"), ('q"q', "VARCHAR")]


def test_odd_names_stay_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    column = 'a"); DROP TABLE x; --'
    path = write(tmp_path / "it's [a] *" / "it's.parquet", f"SELECT 7 AS {quote_name(column)}")
    table = Table("t", ((column, "INTEGER"),), (path,))
    assert read(monkeypatch, table, "FROM t") == [(7,)]
    assert quote_text("it's") == "'it''s'"


def test_files_are_named_from_the_folder_they_share(tmp_path: Path) -> None:
    table = Table(
        "t", (("a", "INTEGER"),), (f"{tmp_path}/d/u/1.parquet", f"{tmp_path}/d/v/2.parquet")
    )
    assert common_folder([table]) == f"{tmp_path}/d"
    view = make_view(table, f"{tmp_path}/d")
    assert str(tmp_path) not in view
    assert "['u/1.parquet', 'v/2.parquet']" in view


def test_a_dataset_without_columns_cannot_be_read() -> None:
    with pytest.raises(Unprocessable, match="no columns"):
        make_view(Table("t", (), ()), "/")


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///data/x.parquet", "/data/x.parquet"),
        ("file:///data/a b%20c.parquet", "/data/a b%20c.parquet"),
        ("/data/x.parquet", "/data/x.parquet"),
    ],
)
def test_a_local_address_is_a_path(uri: str, path: str) -> None:
    assert local_path("t", uri) == path


@pytest.mark.parametrize("uri", ["s3://b/x", "http://h/x", "file://host/x", "x.parquet"])
def test_an_address_elsewhere_is_told(uri: str) -> None:
    with pytest.raises(Unprocessable, match="does not read there"):
        local_path("t", uri)


@pytest.mark.parametrize(
    "kind",
    [
        "BIGINT",
        "DECIMAL(38,10)",
        "DECIMAL(9, 2)[]",
        "TIMESTAMP WITH TIME ZONE",
        "INTEGER[3][]",
        "TIMESTAMP_NS",
    ],
)
def test_plain_types_need_no_second_look(kind: str) -> None:
    assert is_plain_type(kind)
    duckdb.execute(f"SELECT CAST(NULL AS {kind})")


def serialize(sql: str) -> dict[str, Any]:
    row = duckdb.execute("SELECT json_serialize_sql($1::VARCHAR)", [sql]).fetchone()
    assert row is not None
    return json.loads(row[0])


@pytest.mark.parametrize(
    "kind", ['STRUCT(a INTEGER, "b c" VARCHAR)', "MAP(VARCHAR, STRUCT(x DATE[]))", "BIGINT"]
)
def test_nested_types_pass_the_second_look(kind: str) -> None:
    assert is_bare_cast(serialize(probe_type(kind)))


@pytest.mark.parametrize(
    "kind",
    [
        "BIGINT) AS a, (SELECT 1",
        "BIGINT); DROP TABLE x; SELECT (1",
        "BIGINT), read_text('/etc/passwd'",
        "BIGINT) FROM read_text('/etc/passwd') --",
        "BIGINT) WHERE (true",
        "BIGINT) ORDER BY (1",
        "BIGINT) AS (a",
        "BIGINT) UNION SELECT (1",
        'STRUCT(a" INTEGER)',
    ],
)
def test_a_type_that_is_more_than_a_type_does_not(kind: str) -> None:
    assert not is_plain_type(kind)
    assert not is_bare_cast(serialize(probe_type(kind)))


INTS = [("a", SqlType("bigint", "BIGINT"))]
TEXTS = [("a", SqlType("bigint", "BIGINT")), ("t", SqlType("varchar", "VARCHAR"))]


def test_batches_are_about_a_megabyte() -> None:
    assert choose_batch_rows(INTS, 0) == 65_536
    assert choose_batch_rows(INTS * 16, 0) == 8192
    assert choose_batch_rows(INTS * 10_000, 0) == 64
    assert choose_batch_rows([], 0) == 65_536


def test_rows_of_long_texts_are_made_in_smaller_numbers() -> None:
    assert choose_batch_rows(TEXTS, 80) == 8192
    assert choose_batch_rows(TEXTS, 2000) == 524
    assert choose_batch_rows(TEXTS, 20_000_000) == 64
    # Numbers alone stay as wide as they are, whatever else the tables hold.
    assert choose_batch_rows(INTS, 20_000) == 65_536
    assert choose_ahead_bytes(0) == choose_ahead_bytes(80) == 256_000
    assert choose_ahead_bytes(2048) == 128_000
    assert choose_ahead_bytes(10_000_000) == 64_000


def test_the_guess_of_a_row_adds_the_tables_up() -> None:
    tables = [Table(name, (), (), 1000.0) for name in ("a", "b")]
    assert guess_row_bytes(tables) == 8000
    assert guess_row_bytes([]) == 0
