"""Copy-on-write: files of the current snapshot are taken out and others put in, in one commit."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.service.test_catalogd_writes import as_iceberg, iceberg_rows
from tests.support.catalogd import DATASETS, Pair, catalogd_pair

pytestmark = pytest.mark.anyio


async def fill(pair: Pair, count: int, name: str = "t") -> list[str]:
    """A dataset of as many files with one row each; gives their keys."""
    keys = [await pair.put(f"datasets/u/{n}.parquet", {"x": [n]}) for n in range(count)]
    for key in keys:
        await pair.register(name, key)
    return keys


async def test_some_files_make_way_for_others_in_one_snapshot(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        keys = await fill(pair, 14)
        before = await pair.get("/t/files")
        by_key = {file["key"]: file["uri"] for file in before["files"]}
        assert set(by_key) == set(keys)
        new = await pair.put("new", {"x": [100, 101]})
        # By address or by key, as the caller has it.
        done = await pair.register(
            "t",
            new,
            mode="rewrite",
            removes=[by_key[keys[3]], keys[9]],
            base_snapshot=before["snapshot_id"],
            ingest_id="u1",
        )
        assert done["status"] == "updated"
        expected = sorted([*(n for n in range(14) if n not in (3, 9)), 100, 101])
        assert sorted(x for (x,) in await pair.rows("t")) == expected
        snapshots = (await pair.get("/t/snapshots"))["snapshots"]
        assert len(snapshots) == 15
        assert snapshots[-1]["snapshot_id"] == done["snapshot_id"]
        assert (snapshots[-1]["operation"], snapshots[-1]["rows"]) == ("overwrite", 14)
        assert (await pair.get("/t"))["files"] == 13
        # Time travel and other clients see the same.
        old = await pair.rows("t", snapshot=before["snapshot_id"])
        assert sorted(x for (x,) in old) == list(range(14))
        table = as_iceberg(pair, "t")
        assert sorted(row["x"] for row in iceberg_rows(table)) == expected
        assert len(iceberg_rows(table, before["snapshot_id"])) == 14
        # Appends after it find a table like any other.
        for n in range(200, 212):
            await pair.register("t", await pair.put(f"k{n}", {"x": [n]}))
        after = sorted([*expected, *range(200, 212)])
        assert sorted(x for (x,) in await pair.rows("t")) == after
        assert sorted(row["x"] for row in iceberg_rows(as_iceberg(pair, "t"))) == after


async def test_the_same_ingest_again_changes_nothing(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        keys = await fill(pair, 2)
        new = await pair.put("new", {"x": [7]})
        fields = {"mode": "rewrite", "removes": [keys[0]]}
        first = await pair.register("t", new, ingest_id="u", **fields)
        again = await pair.register("t", new, ingest_id="u", **fields)
        assert (again["status"], again["snapshot_id"]) == ("unchanged", first["snapshot_id"])
        # Also where the id is derived from what it does.
        other = await pair.put("other", {"x": [8]})
        fields = {"mode": "rewrite", "removes": [keys[1]]}
        assert (await pair.register("t", other, **fields))["status"] == "updated"
        assert (await pair.register("t", other, **fields))["status"] == "unchanged"
        assert await pair.rows("t") == [(7,), (8,)]


async def test_a_file_that_somebody_replaced_is_a_conflict(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        keys = await fill(pair, 3)
        gone = {file["key"]: file["uri"] for file in (await pair.get("/t/files"))["files"]}[keys[0]]
        one = await pair.put("one", {"x": [10]})
        await pair.register("t", one, mode="rewrite", removes=[gone])
        now = await pair.get("/t")
        two = await pair.put("two", {"x": [11]})
        for missing in (gone, keys[0], "file:///etc/passwd", "no/such/key"):
            answer = await pair.send("t", two, mode="rewrite", removes=[missing, keys[1]])
            assert answer.status_code == 409, answer.text
            details = answer.json()["error"]["details"]
            assert details["missing_count"] == 1
            assert len(details["missing"]) == 1
        assert await pair.get("/t") == now
        # A dataset that is not there holds no file.
        answer = await pair.send("nope", two, mode="rewrite", removes=[gone])
        assert answer.status_code == 409
        listed = (await pair.catalog.get(DATASETS)).json()["datasets"]
        assert [dataset["name"] for dataset in listed] == ["t"]


async def test_a_write_planned_on_another_snapshot_is_a_conflict(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        new = await pair.put("new", {"x": [1]})
        refused = await pair.send("t", new, mode="rewrite", base_snapshot="12")
        assert refused.status_code == 409
        made = await pair.register("t", new, mode="rewrite", base_snapshot="")
        assert made["status"] == "created"
        more = await pair.put("more", {"x": [2]})
        for base in ("", "12"):
            refused = await pair.send("t", more, mode="rewrite", base_snapshot=base)
            assert refused.status_code == 409
            assert refused.json()["error"]["details"] == {
                "dataset": "t",
                "base_snapshot": base,
                "snapshot_id": made["snapshot_id"],
            }
        # Of several at once on one base, one wins; a retry of the winner is no conflict.
        keys = [await pair.put(f"at-once-{n}", {"x": [10 + n]}) for n in range(5)]
        answers = await asyncio.gather(
            *(
                pair.send(
                    "t",
                    key,
                    mode="rewrite",
                    removes=["new"],
                    base_snapshot=made["snapshot_id"],
                    ingest_id=key,
                )
                for key in keys
            )
        )
        won = [key for key, answer in zip(keys, answers, strict=True) if answer.status_code == 200]
        assert len(won) == 1
        again = await pair.register(
            "t",
            won[0],
            mode="rewrite",
            removes=["new"],
            base_snapshot=made["snapshot_id"],
            ingest_id=won[0],
        )
        assert again["status"] == "unchanged"
        assert len(await pair.rows("t")) == 1


async def test_columns_evolve_as_for_an_append(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        keys = await fill(pair, 2)
        wide = await pair.put("wide", {"x": [5], "city": ["Oslo"]})
        refused = await pair.send("t", wide, mode="rewrite", removes=[keys[0]])
        assert refused.status_code == 409
        assert refused.json()["error"]["details"]["added"][0]["name"] == "city"
        await pair.register("t", wide, mode="rewrite", removes=[keys[0]], evolve=True)
        assert await pair.rows("t") == [(1, None), (5, "Oslo")]


async def test_files_can_only_be_taken_out(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        keys = await fill(pair, 3)
        await pair.register("t", mode="rewrite", removes=keys[:2], ingest_id="less")
        assert await pair.rows("t") == [(2,)]
        await pair.register("t", mode="rewrite", removes=keys[2:], ingest_id="none")
        assert await pair.rows("t") == []
        assert (await pair.get("/t"))["rows"] == 0
        # Nothing to do is noted and makes no snapshot.
        before = len((await pair.get("/t/snapshots"))["snapshots"])
        await pair.register("t", mode="rewrite", ingest_id="nothing")
        assert len((await pair.get("/t/snapshots"))["snapshots"]) == before
        assert (await pair.get("/t/ingests/nothing"))["superseded"] is False
        answer = await pair.send("t", keys[0], mode="append", removes=[keys[1]])
        assert answer.status_code == 400
        assert "removes" in answer.text


async def test_a_later_rewrite_or_replace_supersedes_a_rewrite(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        one, two = await pair.put("one", {"x": [1]}), await pair.put("two", {"x": [2]})
        await pair.register("t", one, mode="append", ingest_id="a")
        await pair.register("t", two, mode="rewrite", removes=[one], ingest_id="b")
        three = await pair.put("three", {"x": [3]})
        await pair.register("t", three, mode="rewrite", removes=[two], ingest_id="c")
        marks = {one: (await pair.get(f"/t/ingests/{one}"))["superseded"] for one in "abc"}
        # An append sent again would come twice, so only a rewrite counts as overtaken here.
        assert marks == {"a": False, "b": True, "c": False}
        await pair.register("t", one, mode="replace", ingest_id="d")
        marks = {one: (await pair.get(f"/t/ingests/{one}"))["superseded"] for one in "abcd"}
        assert marks == {"a": True, "b": True, "c": True, "d": False}


async def test_an_object_that_two_ingests_named_goes_whole(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        one = await pair.put("one", {"x": [1]})
        await pair.register("t", one, ingest_id="a")
        await pair.register("t", one, ingest_id="b")
        two = await pair.put("two", {"x": [2]})
        await pair.register("t", two, mode="rewrite", removes=[one])
        assert await pair.rows("t") == [(2,)]
        shown = await pair.get("/t")
        assert (shown["rows"], shown["files"]) == (1, 1)
