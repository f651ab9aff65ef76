"""What a write does to a dataset: conflict, evolution, replacement, exactly once."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from tests.support.catalogd import Pair, catalogd_pair

pytestmark = pytest.mark.anyio


def as_iceberg(pair: Pair, name: str) -> Table:
    """The dataset as pyiceberg's own client sees it, given only the database's address."""
    return SqlCatalog("lakehouse", uri=pair.database).load_table(f"lakehouse.{name}")


def iceberg_rows(table: Table, snapshot_id: str | None = None) -> list[dict[str, Any]]:
    chosen = None if snapshot_id is None else int(snapshot_id)
    return sorted(table.scan(snapshot_id=chosen).to_arrow().to_pylist(), key=repr)


async def test_different_columns_are_a_conflict_that_names_each(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        base = {"id": pa.array([1], pa.int64()), "city": ["Oslo"], "n": pa.array([1], pa.int32())}
        made = await pair.register("t", await pair.put("base", base))
        other = {"id": ["1"], "n": pa.array([1], pa.int32()), "age": pa.array([7], pa.int16())}
        answer = await pair.send("t", await pair.put("other", other))
        assert answer.status_code == 409
        error = answer.json()["error"]
        details = error["details"]
        assert details["added"] == [{"name": "age", "table_type": None, "object_type": "INTEGER"}]
        assert details["missing"] == [
            {"name": "city", "table_type": "VARCHAR", "object_type": None}
        ]
        assert details["changed"] == [
            {"name": "id", "table_type": "BIGINT", "object_type": "VARCHAR"}
        ]
        assert details["fingerprint"]["table"] == made["fingerprint"]
        for word in ("age", "city", "id", "evolve=true"):
            assert word in error["message"]
        assert (await pair.get("/t"))["snapshot_id"] == made["snapshot_id"]
        assert len((await pair.get("/t/snapshots"))["snapshots"]) == 1


async def test_the_order_of_columns_does_not_matter(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        await pair.register("t", await pair.put("ab", {"a": [1], "b": ["x"]}))
        await pair.register("t", await pair.put("ba", {"b": ["y"], "a": [2]}))
        assert await pair.rows("t") == [(1, "x"), (2, "y")]
        assert iceberg_rows(as_iceberg(pair, "t")) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


async def test_evolve_adds_and_widens_and_every_moment_reads_right(tmp_path: Path) -> None:
    narrow = {
        "id": pa.array([1], pa.int32()),
        "f": pa.array([0.5], pa.float32()),
        "d": pa.array([Decimal("1.25")], pa.decimal128(5, 2)),
        "e": pa.array([Decimal("-1.25")], pa.decimal128(9, 2)),
        "s": pa.array([{"a": 1}], pa.struct([("a", pa.int32())])),
        "l": pa.array([[1]], pa.list_(pa.int32())),
    }
    wide = {
        "id": pa.array([2**40], pa.int64()),
        "f": pa.array([0.1], pa.float64()),
        "d": pa.array([Decimal("123456789012345678901234.50")], pa.decimal128(38, 2)),
        "e": pa.array([Decimal("9999999999.99")], pa.decimal128(18, 2)),
        "s": pa.array([{"a": 2**40, "b": "y"}], pa.struct([("a", pa.int64()), ("b", pa.string())])),
        "l": pa.array([[2**40]], pa.list_(pa.int64())),
        "new": ["here"],
    }
    async with catalogd_pair(tmp_path) as pair:
        old = await pair.register("t", await pair.put("narrow", narrow))
        assert (await pair.send("t", await pair.put("wide", wide))).status_code == 409
        new = await pair.register("t", "wide", evolve=True)
        types = {column["name"]: column["type"] for column in new["schema"]}
        assert types == {
            "id": "BIGINT",
            "f": "DOUBLE",
            "d": "DECIMAL(38,2)",
            "e": "DECIMAL(18,2)",
            "s": "STRUCT(a BIGINT, b VARCHAR)",
            "l": "BIGINT[]",
            "new": "VARCHAR",
        }
        assert new["fingerprint"] != old["fingerprint"]
        # A narrow file into the wide table: the table stays as it is.
        assert (await pair.send("t", await pair.put("more", narrow))).status_code == 409
        third = await pair.register("t", "more", evolve=True)
        assert third["fingerprint"] == new["fingerprint"]

        small = {"id": 1, "f": 0.5, "d": Decimal("1.25"), "e": Decimal("-1.25"), "l": [1]}
        grown = {**small, "s": {"a": 1, "b": None}, "new": None}
        large = {
            "id": 2**40,
            "f": 0.1,
            "d": Decimal("123456789012345678901234.50"),
            "e": Decimal("9999999999.99"),
            "l": [2**40],
            "s": {"a": 2**40, "b": "y"},
            "new": "here",
        }
        table = as_iceberg(pair, "t")
        assert iceberg_rows(table) == sorted([grown, grown, large], key=repr)
        assert iceberg_rows(table, old["snapshot_id"]) == [{**small, "s": {"a": 1}}]
        # Pushed-down filters go by the bounds in the manifests, written for the wide types.
        for condition in (f"id = {2**40}", "d > 2", "e > 0", "f < 0.2"):
            assert table.scan(row_filter=condition).to_arrow().num_rows == 1, condition
        for condition in ("id = 1", "d = 1.25", "e < 0", "f = 0.5"):
            assert table.scan(row_filter=condition).to_arrow().num_rows == 2, condition

        rows = await pair.rows("t")
        assert len(rows) == 3
        at_first = await pair.get("/t/files", snapshot=old["snapshot_id"])
        assert at_first["schema"] == old["schema"]
        assert len(await pair.rows("t", snapshot=old["snapshot_id"])) == 1


async def test_evolve_refuses_what_loses(tmp_path: Path) -> None:
    cases: list[tuple[Any, Any]] = [
        (pa.array([1], pa.int64()), ["x"]),
        (pa.array([1], pa.int64()), pa.array([1.5], pa.float64())),
        (pa.array([1], pa.decimal128(9, 2)), pa.array([1], pa.decimal128(9, 3))),
        (pa.array([1], pa.date32()), pa.array([1], pa.timestamp("us"))),
        (pa.array([1], pa.timestamp("us")), pa.array([1], pa.timestamp("us", "UTC"))),
    ]
    async with catalogd_pair(tmp_path) as pair:
        for number, (before, after) in enumerate(cases):
            name = f"t{number}"
            await pair.register(name, await pair.put(f"b{number}", {"x": before}))
            answer = await pair.send(name, await pair.put(f"a{number}", {"x": after}), evolve=True)
            assert answer.status_code == 409
            assert answer.json()["error"]["details"]["blocking"] == ["x"]
            assert len((await pair.get(f"/{name}/files"))["files"]) == 1


async def test_replace_is_one_snapshot_with_only_the_new_rows(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        for number in (1, 2, 3):
            await pair.register("t", await pair.put(f"old{number}", {"x": [number]}))
        before = (await pair.get("/t/snapshots"))["snapshots"]
        new = await pair.put("new", {"x": [7, 8]})
        done = await pair.register("t", new, await pair.put("new2", {"x": [9]}), mode="replace")
        after = (await pair.get("/t/snapshots"))["snapshots"]
        assert len(after) == len(before) + 1
        assert after[-1]["operation"] == "overwrite"
        assert after[-1]["snapshot_id"] == done["snapshot_id"]
        assert after[-1]["summary"]["deleted-data-files"] == "3"
        shown = await pair.get("/t")
        assert (shown["rows"], shown["files"]) == (3, 2)
        assert await pair.rows("t") == [(7,), (8,), (9,)]
        assert await pair.rows("t", snapshot=before[-1]["snapshot_id"]) == [(1,), (2,), (3,)]
        table = as_iceberg(pair, "t")
        assert [row["x"] for row in iceberg_rows(table)] == [7, 8, 9]
        assert len(iceberg_rows(table, before[-1]["snapshot_id"])) == 3
        await pair.register("t", "old1")
        assert [row["x"] for row in iceberg_rows(as_iceberg(pair, "t"))] == [7, 8, 9]


async def test_replace_changes_columns_only_when_asked_and_old_moments_stay(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        first = await pair.register("t", await pair.put("one", {"id": [1], "x": [10], "y": ["a"]}))
        other = await pair.put("two", {"x": ["text"], "z": [True]})
        assert (await pair.send("t", other, mode="replace")).status_code == 409
        second = await pair.register("t", other, mode="replace", evolve=True)
        assert second["schema"] == [
            {"name": "x", "type": "VARCHAR"},
            {"name": "z", "type": "BOOLEAN"},
        ]
        third = await pair.register(
            "t", await pair.put("three", {"y": [2.5], "id": [3]}), mode="replace", evolve=True
        )
        back = await pair.register("t", "one", mode="replace", evolve=True)
        assert back["schema"] == first["schema"]
        expected = {
            first["snapshot_id"]: [{"id": 1, "x": 10, "y": "a"}],
            second["snapshot_id"]: [{"x": "text", "z": True}],
            third["snapshot_id"]: [{"y": 2.5, "id": 3}],
            back["snapshot_id"]: [{"id": 1, "x": 10, "y": "a"}],
        }
        table = as_iceberg(pair, "t")
        assert iceberg_rows(table) == [{"id": 1, "x": 10, "y": "a"}]
        for snapshot, rows in expected.items():
            assert iceberg_rows(table, snapshot) == rows
            assert await pair.rows("t", snapshot=snapshot) == [tuple(rows[0].values())]
        by_id = {schema.schema_id for schema in table.metadata.schemas}
        assert len(by_id) == 3


async def test_replace_by_nothing_empties_the_dataset_and_keeps_its_columns(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        made = await pair.register("t", await pair.put("one", {"x": [1]}))
        emptied = await pair.register("t", mode="replace")
        assert emptied["schema"] == made["schema"]
        assert (await pair.get("/t"))["rows"] == 0
        assert (await pair.get("/t/files"))["files"] == []
        assert iceberg_rows(as_iceberg(pair, "t")) == []
        await pair.register("t", await pair.put("two", {"x": [2]}))
        assert await pair.rows("t") == [(2,)]


async def test_nothing_to_make_a_dataset_of_is_told(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        answer = await pair.send("t")
        assert answer.status_code == 422
        assert "at least one object" in answer.json()["error"]["message"]
        assert await pair.get("") == {"datasets": []}


async def test_files_without_rows_bring_columns_and_nothing_else(tmp_path: Path) -> None:
    empty = pa.table({"x": pa.array([], pa.int64())})
    async with catalogd_pair(tmp_path) as pair:
        made = await pair.register("t", await pair.put("empty", empty), ingest_id="a")
        assert made["status"] == "created"
        assert made["snapshot_id"]
        assert (await pair.get("/t"))["rows"] == 0
        noted = await pair.register("t", await pair.put("empty2", empty), ingest_id="b")
        assert noted["status"] == "updated"
        assert noted["snapshot_id"] == made["snapshot_id"]
        assert (await pair.register("t", ingest_id="c"))["snapshot_id"] == made["snapshot_id"]
        for ingest_id in ("a", "b", "c"):
            found = await pair.get(f"/t/ingests/{ingest_id}")
            assert found["snapshot_id"] == made["snapshot_id"]
        wider = pa.table({"x": pa.array([], pa.int64()), "y": pa.array([], pa.string())})
        grown = await pair.register("t", await pair.put("wider", wider), evolve=True)
        assert [column["name"] for column in grown["schema"]] == ["x", "y"]
        assert (await pair.get("/t/files"))["files"] == []


async def test_the_same_ingest_id_changes_nothing_whatever_else_is_sent(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        first = await pair.register("t", await pair.put("one", {"x": [1]}), ingest_id="i")
        await pair.register("t", await pair.put("two", {"x": [2]}), ingest_id="j")
        for objects, fields in (
            (["two"], {}),
            (["missing"], {}),
            ([], {"mode": "replace"}),
            ([await pair.put("other", {"y": [1]})], {"evolve": True, "mode": "replace"}),
        ):
            again = await pair.register("t", *objects, ingest_id="i", **fields)
            assert again["status"] == "unchanged"
            assert again["snapshot_id"] == first["snapshot_id"]
        assert await pair.rows("t") == [(1,), (2,)]


async def test_without_an_id_the_same_objects_are_the_same_append(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        one, two = await pair.put("one", {"x": [1]}), await pair.put("two", {"x": [2]})
        await pair.register("t", one, two)
        assert (await pair.register("t", two, one))["status"] == "unchanged"
        assert (await pair.register("t", await pair.put("three", {"x": [3]})))[
            "status"
        ] == "updated"
        assert (await pair.register("t", one, two))["status"] == "unchanged"
        # The same key with other content is another object.
        await pair.put("three", {"x": [4, 5]})
        assert (await pair.register("t", "three"))["status"] == "updated"


async def test_without_an_id_a_replace_brings_an_earlier_state_back(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        one, two = await pair.put("one", {"x": [1]}), await pair.put("two", {"x": [2]})
        assert (await pair.register("t", one, mode="replace"))["status"] == "created"
        assert (await pair.register("t", one, mode="replace"))["status"] == "unchanged"
        assert (await pair.register("t", two, mode="replace"))["status"] == "updated"
        assert (await pair.register("t", two, mode="replace"))["status"] == "unchanged"
        assert (await pair.register("t", one, mode="replace"))["status"] == "updated"
        assert await pair.rows("t") == [(1,)]


async def test_an_ingest_that_a_replace_took_away_is_marked(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        one, two = await pair.put("one", {"x": [1]}), await pair.put("two", {"x": [2]})
        await pair.register("t", one, mode="replace", ingest_id="a")
        await pair.register("t", two, ingest_id="b")
        assert (await pair.get("/t/ingests/a"))["superseded"] is False
        await pair.register("t", two, mode="replace", ingest_id="c")
        assert (await pair.get("/t/ingests/a"))["superseded"] is True
        assert (await pair.get("/t/ingests/b"))["superseded"] is True
        assert (await pair.get("/t/ingests/c"))["superseded"] is False
        again = await pair.register("t", one, mode="replace", ingest_id="a")
        assert (again["status"], again["superseded"]) == ("unchanged", True)


async def test_old_snapshots_go_and_the_oldest_kept_is_named(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path, keep_snapshots=3) as pair:
        made = [
            await pair.register("t", await pair.put(f"o{n}", {"x": [n]}), ingest_id=f"i{n}")
            for n in range(6)
        ]
        kept = [s["snapshot_id"] for s in (await pair.get("/t/snapshots"))["snapshots"]]
        assert kept == [answer["snapshot_id"] for answer in made[3:]]
        assert len(await pair.rows("t")) == 6
        assert len(await pair.rows("t", snapshot=kept[0])) == 4
        answer = await pair.catalog.get(
            "/catalog/datasets/t/files", params={"snapshot": made[2]["snapshot_id"]}
        )
        assert answer.status_code == 404
        assert answer.json()["error"]["details"]["oldest_snapshot_id"] == kept[0]
        # Ingests are known for ever, also those whose snapshot is gone.
        assert (await pair.register("t", "o0", ingest_id="i0"))["status"] == "unchanged"
