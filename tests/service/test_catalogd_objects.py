"""Which objects can be part of a dataset, and what the others are told."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from services.catalogd.core.sqltypes import KEYWORDS, SQL_NAMES, sql_name
from services.catalogd.core.types import Decimal as DecimalType
from services.catalogd.core.types import Field, List, Map, Scalar, Struct
from tests.support.catalogd import Pair, catalogd_pair, parquet_bytes

pytestmark = pytest.mark.anyio

# Every type that a dataset holds, as DuckDB writes it to Parquet.
ALL_TYPES = """
    select 1::tinyint as ti, 2::smallint as si, 3::integer as i, 4::bigint as bi,
      5::utinyint as ut, 6::usmallint as us, 1.5::float as f, 2.5::double as d,
      1.25::decimal(4,2) as d4, 1.25::decimal(9,2) as d9, 1.25::decimal(18,2) as d18,
      1.25::decimal(38,2) as d38, true as b, 'text' as s, 'bytes'::blob as bl,
      '5d1b5e9c-0000-4000-8000-000000000001'::uuid as u, date '2024-02-29' as dt,
      time '12:34:56.789' as t, timestamp '2024-02-29 12:34:56.789' as ts,
      timestamptz '2024-02-29 12:34:56.789+00' as tz, [1, 2] as l, [[1], []] as ll,
      {'a': 1, 'b': ['x']} as st, map {'k': {'v': 1}} as m, null::integer as n
"""


async def refuse(pair: Pair, content: bytes) -> dict[str, Any]:
    """The error that registering this object gets; nothing may have come of it."""
    await pair.put_bytes("bad", content)
    answer = await pair.send("t", "bad")
    assert answer.status_code == 422, answer.text
    assert await pair.get("") == {"datasets": []}
    assert "/storaged/" not in answer.text
    return dict(answer.json()["error"])


async def test_missing_objects_are_named(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        await pair.put("there", {"x": [1]})
        answer = await pair.send("t", "there", "gone/b", "gone/a")
        assert answer.status_code == 422
        error = answer.json()["error"]
        assert error["details"]["missing"] == ["gone/a", "gone/b"]
        assert "gone/a" in error["message"]
        assert await pair.get("") == {"datasets": []}


async def test_an_object_named_twice_is_refused(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        await pair.put("x", {"x": [1]})
        answer = await pair.send("t", "x", "x")
        assert answer.status_code == 422
        assert answer.json()["error"]["details"]["objects"] == ["x"]


async def test_an_address_is_no_key(tmp_path: Path) -> None:
    keys = ["file:///etc/passwd", "../secret", "s3://bucket/x", "/etc/passwd", "a//b", "x" * 2000]
    async with catalogd_pair(tmp_path) as pair:
        for key in keys:
            answer = await pair.send("t", key)
            assert answer.status_code in (400, 422), key
            assert answer.json()["error"]["code"] in ("invalid", "unprocessable")


async def test_what_is_no_parquet_is_told(tmp_path: Path) -> None:
    whole = parquet_bytes({"x": list(range(100))})
    contents = [
        b"",
        b"PAR1",
        b"id,city\n1,Oslo\n",
        b"PAR1" + b"\0" * 100 + b"PAR1",
        b"PAR1" + b"\xff" * 100 + b"\x64\0\0\0PAR1",
        whole[:-20],
        whole[20:],
        # The footer is whole, the columns it points to are cut.
        whole[:4] + whole[len(whole) // 4 :],
    ]
    async with catalogd_pair(tmp_path) as pair:
        for content in contents:
            error = await refuse(pair, content)
            assert error["details"]["object"] == "bad"
            assert "not a readable Parquet file" in error["message"]


async def test_a_type_that_iceberg_lacks_is_told_with_advice(tmp_path: Path) -> None:
    cases = [
        (pa.array([1], pa.uint32()), "BIGINT"),
        (pa.array([1], pa.uint64()), "DECIMAL(20,0)"),
        (pa.array([1.5], pa.float16()), "FLOAT"),
        (pa.nulls(1), "VARCHAR"),
        (pa.array([1], pa.timestamp("ns")), "microseconds"),
        (pa.array([1], pa.time64("ns")), "microseconds"),
        (pa.array([1], pa.time32("ms")), "microseconds"),
        (pa.array([Decimal(1)], pa.decimal256(60, 2)), "DECIMAL(38,s)"),
        (pa.array([[1]], pa.list_(pa.uint32())), "BIGINT"),
        (pa.array([{"a": 1}], pa.struct([("a", pa.uint64())])), "DECIMAL(20,0)"),
    ]
    async with catalogd_pair(tmp_path) as pair:
        for values, advice in cases:
            content = parquet_bytes({"fine": [1], "odd": values, "too": [2]})
            columns = (await refuse(pair, content))["details"]["columns"]
            assert [column["name"] for column in columns] == ["odd"]
            assert advice in columns[0]["problem"]


async def test_an_interval_of_duckdb_is_refused(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        error = await refuse(pair, duckdb_parquet(tmp_path, "select interval 1 day as i, 1 as x"))
        assert [column["name"] for column in error["details"]["columns"]] == ["i"]


async def test_what_arrow_adds_to_a_file_does_not_change_its_type(tmp_path: Path) -> None:
    noon = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)
    columns = {
        "zone": pa.array([noon], pa.timestamp("us", "Europe/Oslo")),
        "length": pa.array([7], pa.duration("us")),
        "word": pa.array(["a"]).dictionary_encode(),
        "view": pa.array(["b"], pa.string_view()),
        "large": pa.array([["c"]], pa.large_list(pa.large_string())),
    }
    async with catalogd_pair(tmp_path) as pair:
        made = await pair.register("t", await pair.put("arrow", columns))
        assert [column["type"] for column in made["schema"]] == [
            "TIMESTAMP WITH TIME ZONE",
            "BIGINT",
            "VARCHAR",
            "VARCHAR",
            "VARCHAR[]",
        ]
        [row] = await pair.rows("t")
        assert row == (noon, 7, "a", "b", ["c"])


async def test_old_ways_to_write_a_timestamp_are_told(tmp_path: Path) -> None:
    moments = {"x": pa.array([dt.datetime(2024, 2, 29)], pa.timestamp("us"))}
    content = parquet_bytes(moments, use_deprecated_int96_timestamps=True)
    async with catalogd_pair(tmp_path) as pair:
        error = await refuse(pair, content)
        assert "INT96" in error["details"]["columns"][0]["problem"]


async def test_field_ids_of_another_table_are_refused(tmp_path: Path) -> None:
    inner = pa.field("x", pa.int64(), metadata={"PARQUET:field_id": "7"})
    async with catalogd_pair(tmp_path) as pair:
        for schema, values in (
            (pa.schema([inner]), [[1]]),
            (pa.schema([pa.field("s", pa.struct([inner]))]), [[{"x": 1}]]),
        ):
            error = await refuse(pair, parquet_bytes(pa.table(values, schema=schema)))
            assert "field id" in error["message"]


async def test_columns_that_sql_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    cases = [
        (["a", "a"], "2 times"),
        (["Name", "name"], "differ only in case"),
        (["", "a"], "empty name"),
    ]
    async with catalogd_pair(tmp_path) as pair:
        for names, problem in cases:
            table = pa.table([pa.array([1]), pa.array([2])], names=names)
            assert problem in (await refuse(pair, parquet_bytes(table)))["message"]


async def test_objects_of_one_request_must_be_alike(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        one, two = await pair.put("one", {"x": [1]}), await pair.put("two", {"x": ["a"], "y": [1]})
        answer = await pair.send("t", one, two, evolve=True)
        assert answer.status_code == 422
        details = answer.json()["error"]["details"]
        assert details["object"] == "two"
        assert [entry["name"] for entry in details["added"]] == ["y"]
        assert [entry["name"] for entry in details["changed"]] == ["x"]


def duckdb_parquet(tmp_path: Path, query: str) -> bytes:
    path = tmp_path / "made.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"copy ({query}) to '{path}' (format parquet)")
    return path.read_bytes()


async def test_every_type_that_is_accepted_reads_back_in_pyiceberg_and_duckdb(
    tmp_path: Path,
) -> None:
    async with catalogd_pair(tmp_path) as pair:
        await pair.put_bytes("all", duckdb_parquet(tmp_path, ALL_TYPES))
        made = await pair.register("t", "all")
        database = pair.config.data_dir("catalogd") / "catalogue.db"
        catalog = SqlCatalog("lakehouse", uri=f"sqlite:///{database}")
        [row] = catalog.load_table("lakehouse.t").scan().to_arrow().to_pylist()
        assert row == {
            "ti": 1,
            "si": 2,
            "i": 3,
            "bi": 4,
            "ut": 5,
            "us": 6,
            "f": 1.5,
            "d": 2.5,
            **{name: Decimal("1.25") for name in ("d4", "d9", "d18", "d38")},
            "b": True,
            "s": "text",
            "bl": b"bytes",
            "u": UUID("5d1b5e9c-0000-4000-8000-000000000001"),
            "dt": dt.date(2024, 2, 29),
            "t": dt.time(12, 34, 56, 789_000),
            "ts": dt.datetime(2024, 2, 29, 12, 34, 56, 789_000),
            "tz": dt.datetime(2024, 2, 29, 12, 34, 56, 789_000, dt.UTC),
            "l": [1, 2],
            "ll": [[1], []],
            "st": {"a": 1, "b": ["x"]},
            "m": [("k", {"v": 1})],
            "n": None,
        }
        # The types we name are those DuckDB names, but for the small integers Iceberg lacks.
        [file] = (await pair.get("/t/files"))["files"]
        with duckdb.connect() as connection:
            query = f"describe from read_parquet('{file['uri']}')"
            described = connection.execute(query).fetchall()
        small = {"TINYINT", "SMALLINT", "UTINYINT", "USMALLINT"}
        assert [(column["name"], column["type"]) for column in made["schema"]] == [
            (name, "INTEGER" if kind in small else kind) for name, kind, *_ in described
        ]
        [duck] = await pair.rows("t")
        assert duck[:4] == (1, 2, 3, 4)


async def test_sql_names_are_those_of_duckdb() -> None:
    with duckdb.connect() as connection:
        found = connection.execute("select keyword_name from duckdb_keywords()").fetchall()
        assert {word for (word,) in found} == set(KEYWORDS)
        members = ["plain", "Abc", "_a1", "a b", "1a", 'q"q', "é", "select", "year", "Order"]
        kinds = [
            *(Scalar(kind) for kind in sorted(SQL_NAMES)),
            DecimalType(12, 3),
            List(List(Scalar("int"))),
            Map(Scalar("string"), List(Scalar("long"))),
            Struct(tuple(Field(name, Scalar("int")) for name in members)),
        ]
        for kind in kinds:
            name = sql_name(kind)
            [shown] = connection.execute(f"select typeof(null::{name})").fetchall()
            assert shown == (name,)


async def test_odd_column_names_read_back(tmp_path: Path) -> None:
    names = ["a.b", "a b", 'q"q', "é", "select", "%41", "a/b"]
    async with catalogd_pair(tmp_path) as pair:
        database = pair.config.data_dir("catalogd") / "catalogue.db"
        catalog = SqlCatalog("lakehouse", uri=f"sqlite:///{database}")
        for number, name in enumerate(names):
            key = await pair.put(f"odd{number}", {name: [1], "plain": ["x"]})
            made = await pair.register(f"t{number}", key)
            assert made["schema"][0] == {"name": name, "type": "BIGINT"}
            table = catalog.load_table(f"lakehouse.t{number}")
            assert table.scan().to_arrow().to_pylist() == [{name: 1, "plain": "x"}]


async def test_a_wide_table_keeps_bounds_of_its_first_hundred_columns(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        wide = {f"c{number}": [number] for number in range(150)}
        await pair.register("t", await pair.put("wide", wide))
        database = pair.config.data_dir("catalogd") / "catalogue.db"
        table = SqlCatalog("lakehouse", uri=f"sqlite:///{database}").load_table("lakehouse.t")
        [task] = list(table.scan().plan_files())
        assert len(task.file.lower_bounds) == 100
        assert table.scan(row_filter="c149 = 149 and c3 = 3").to_arrow().num_rows == 1
        assert table.scan(row_filter="c3 = 4").to_arrow().num_rows == 0
