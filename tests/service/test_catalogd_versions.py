"""Rollback, tags and expiry: what they change, and that nothing is lost by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shared.clients.catalogd import CatalogdClient
from shared.errors import NotFound
from tests.service.test_catalogd_writes import as_iceberg, iceberg_rows
from tests.support.apps import make_config
from tests.support.catalogd import DATASETS, Pair, catalogd_pair
from tests.support.ingestd import run_trio

pytestmark = pytest.mark.anyio


async def post(pair: Pair, path: str, body: dict[str, Any], status: int = 200) -> dict[str, Any]:
    answer = await pair.catalog.post(f"{DATASETS}{path}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def values(pair: Pair, **params: str) -> list[int]:
    return sorted(row[0] for row in await pair.rows("t", **params))


async def append(pair: Pair, number: int, **fields: Any) -> dict[str, Any]:
    key = await pair.put(f"k{number}", {"x": [number]})
    return await pair.register("t", key, **{"ingest_id": f"i{number}", **fields})


async def test_a_rollback_is_a_new_snapshot_and_can_be_undone(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        made = [await append(pair, number) for number in range(4)]
        done = await post(pair, "/t/rollback", {"snapshot": made[1]["snapshot_id"]})
        assert done["status"] == "updated"
        assert (done["restored"], done["previous"]) == (
            made[1]["snapshot_id"],
            made[3]["snapshot_id"],
        )
        assert done["rows"] == 2
        assert await values(pair) == [0, 1]
        shown = await pair.get("/t")
        assert (shown["rows"], shown["files"]) == (2, 2)
        assert shown["snapshot_id"] == done["snapshot_id"]
        snapshots = (await pair.get("/t/snapshots"))["snapshots"]
        assert len(snapshots) == 5
        assert snapshots[-1]["parent_id"] == made[3]["snapshot_id"]
        # The same again changes nothing.
        again = await post(pair, "/t/rollback", {"snapshot": made[1]["snapshot_id"]})
        assert (again["status"], again["snapshot_id"]) == ("unchanged", done["snapshot_id"])
        # Time travel tells what was current when, on both sides of it.
        assert await values(pair, snapshot=snapshots[3]["time"]) == [0, 1, 2, 3]
        assert await values(pair, snapshot=snapshots[4]["time"]) == [0, 1]
        await append(pair, 9)
        assert await values(pair) == [0, 1, 9]
        table = as_iceberg(pair, "t")
        assert [row["x"] for row in iceberg_rows(table)] == [0, 1, 9]
        undone = await post(pair, "/t/rollback", {"snapshot": done["previous"]})
        assert await values(pair) == [0, 1, 2, 3]
        assert [row["x"] for row in iceberg_rows(as_iceberg(pair, "t"))] == [0, 1, 2, 3]
        assert (await pair.get("/t"))["snapshot_id"] == undone["snapshot_id"]


async def test_ingests_are_superseded_by_a_rollback_and_come_back_with_its_undoing(
    tmp_path: Path,
) -> None:
    async with catalogd_pair(tmp_path) as pair:

        async def superseded() -> list[int]:
            found = [await pair.get(f"/t/ingests/i{n}") for n in range(4)]
            return [number for number, one in enumerate(found) if one["superseded"]]

        made = [await append(pair, number) for number in range(4)]
        ids = [answer["snapshot_id"] for answer in made]
        first = await post(pair, "/t/rollback", {"snapshot": ids[1]})
        assert await superseded() == [2, 3]
        # Sent again under a new id, the rows come back; the old ids stay superseded.
        assert (await append(pair, 2))["superseded"] is True
        await append(pair, 2, ingest_id="again")
        assert await values(pair) == [0, 1, 2]
        assert await superseded() == [2, 3]
        await post(pair, "/t/rollback", {"snapshot": first["previous"]})
        assert await superseded() == []
        assert (await pair.get("/t/ingests/again"))["superseded"] is True
        # To a state that a rollback brought back.
        await post(pair, "/t/rollback", {"snapshot": first["snapshot_id"]})
        assert await superseded() == [2, 3]
        await post(pair, "/t/rollback", {"snapshot": ids[0]})
        assert await superseded() == [1, 2, 3]
        assert await values(pair) == [0]


async def test_a_replace_that_was_rolled_back_takes_nothing_away(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        await append(pair, 0)
        first = await append(pair, 1)
        await append(pair, 2, mode="replace")
        assert (await pair.get("/t/ingests/i0"))["superseded"] is True
        await post(pair, "/t/rollback", {"snapshot": first["snapshot_id"]})
        assert (await pair.get("/t/ingests/i0"))["superseded"] is False
        assert (await pair.get("/t/ingests/i2"))["superseded"] is True
        assert await values(pair) == [0, 1]


async def test_a_retry_after_a_rollback_is_told_that_its_rows_are_gone(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        first = await pair.register("t", await pair.put("one", {"x": [1]}))
        two = await pair.put("two", {"x": [2]})
        await pair.register("t", two)
        await post(pair, "/t/rollback", {"snapshot": first["snapshot_id"]})
        # It may be a retry of a write that the rollback was to undo: it stays undone.
        again = await pair.register("t", two)
        assert (again["status"], again["superseded"]) == ("unchanged", True)
        await pair.register("t", two, ingest_id="on purpose")
        assert await values(pair) == [1, 2]


async def test_a_rollback_brings_the_columns_back(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        old = await append(pair, 1)
        wide = await pair.put("wide", {"x": ["a"], "y": [2]})
        await pair.register("t", wide, mode="replace", evolve=True)
        done = await post(pair, "/t/rollback", {"snapshot": old["snapshot_id"]})
        assert done["schema"] == [{"name": "x", "type": "BIGINT"}]
        assert (await pair.get("/t"))["schema"] == done["schema"]
        assert iceberg_rows(as_iceberg(pair, "t")) == [{"x": 1}]
        # And writes go on with them.
        await append(pair, 5)
        assert iceberg_rows(as_iceberg(pair, "t")) == [{"x": 1}, {"x": 5}]


async def test_what_cannot_be_rolled_back_to_is_told(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path, keep_snapshots=2) as pair:
        made = [await append(pair, number) for number in range(4)]
        gone = await post(pair, "/t/rollback", {"snapshot": made[0]["snapshot_id"]}, 404)
        assert gone["error"]["details"]["oldest_snapshot_id"] == made[2]["snapshot_id"]
        missing = await post(pair, "/t/rollback", {"snapshot": "friday"}, 404)
        assert missing["error"]["details"]["tag"] == "friday"
        await post(pair, "/t/rollback", {"snapshot": "2026-01-31"}, 400)
        await post(pair, "/nope/rollback", {"snapshot": "1"}, 404)
        assert await values(pair) == [0, 1, 2, 3]


async def test_a_tag_names_a_snapshot_and_keeps_it(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path, keep_snapshots=3) as pair:
        made = [await append(pair, number) for number in range(2)]
        path = f"{DATASETS}/t/tags/v1.0-rc_1"
        answer = await pair.catalog.put(path, json={"snapshot": made[0]["snapshot_id"]})
        assert answer.status_code == 201
        assert answer.json() == {
            "dataset": "t",
            "tag": "v1.0-rc_1",
            "snapshot_id": made[0]["snapshot_id"],
            "status": "created",
        }
        again = await pair.catalog.put(path, json={"snapshot": made[0]["snapshot_id"]})
        assert (again.status_code, again.json()["status"]) == (200, "unchanged")
        for number in range(2, 8):
            await append(pair, number)
        snapshots = (await pair.get("/t/snapshots"))["snapshots"]
        assert [snapshot["tags"] for snapshot in snapshots] == [["v1.0-rc_1"], [], [], []]
        assert await values(pair, snapshot="v1.0-rc_1") == [0]
        table = as_iceberg(pair, "t")
        tagged = table.snapshot_by_name("v1.0-rc_1")
        assert tagged is not None
        assert str(tagged.snapshot_id) == made[0]["snapshot_id"]
        assert table.scan().use_ref("v1.0-rc_1").to_arrow()["x"].to_pylist() == [0]
        # Times before the gap are not guessed.
        gap = await pair.catalog.get(
            f"{DATASETS}/t/files", params={"snapshot": snapshots[0]["time"]}
        )
        assert gap.status_code == 404
        # Without a body it names the current one; it moves, and goes.
        moved = await pair.catalog.put(path)
        assert moved.json()["status"] == "moved"
        assert await values(pair, snapshot="v1.0-rc_1") == list(range(8))
        deleted = await pair.catalog.delete(path)
        assert deleted.json()["snapshot_id"] == snapshots[-1]["snapshot_id"]
        assert (await pair.catalog.delete(path)).status_code == 404
        assert (await pair.catalog.get(f"{DATASETS}/t/files?snapshot=v1.0-rc_1")).status_code == 404


async def test_a_rollback_to_a_tag(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path, keep_snapshots=2) as pair:
        await append(pair, 0)
        await pair.catalog.put(f"{DATASETS}/t/tags/good")
        for number in range(1, 6):
            await append(pair, number)
        # Also ingests whose snapshots have expired are known to be gone.
        await post(pair, "/t/rollback", {"snapshot": "good"})
        assert await values(pair) == [0]
        for number in range(6):
            found = await pair.get(f"/t/ingests/i{number}")
            assert found["superseded"] is (number > 0), number


async def test_tags_that_cannot_be(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        await append(pair, 0)
        for tag, status in (("1st", 400), ("a b", 400), ("x" * 64, 400), ("main", 409)):
            answer = await pair.catalog.put(f"{DATASETS}/t/tags/{tag}")
            assert answer.status_code == status, (tag, answer.text)
        assert (await pair.catalog.delete(f"{DATASETS}/t/tags/main")).status_code == 409
        assert (await pair.catalog.put(f"{DATASETS}/nope/tags/a")).status_code == 404
        answer = await pair.catalog.put(f"{DATASETS}/t/tags/a", json={"snapshot": "12"})
        assert answer.status_code == 404


async def test_expiry_on_request(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        made = [await append(pair, number) for number in range(6)]
        await pair.catalog.put(f"{DATASETS}/t/tags/kept", json={"snapshot": made[1]["snapshot_id"]})
        assert await post(pair, "/t/expire", {}) == {"dataset": "t", "expired": 0, "kept": 6}
        done = await post(pair, "/t/expire", {"keep": 2})
        assert done == {"dataset": "t", "expired": 3, "kept": 3}
        kept = [s["snapshot_id"] for s in (await pair.get("/t/snapshots"))["snapshots"]]
        assert kept == [made[n]["snapshot_id"] for n in (1, 4, 5)]
        assert await values(pair) == list(range(6))
        assert (
            await pair.catalog.post(f"{DATASETS}/t/expire", json={"keep": 0})
        ).status_code == 400


async def test_a_file_that_was_rolled_back_can_be_ingested_again(tmp_path: Path) -> None:
    async with run_trio(make_config(tmp_path)) as trio:

        async def ingest(body: bytes) -> dict[str, Any]:
            answer = await trio.post("dataset=t&mode=append", body)
            assert answer.status_code == 200, answer.text
            return answer.json()

        first = await ingest(b"id\n1\n")
        assert (await ingest(b"id\n2\n"))["duplicate"] is False
        path = f"{DATASETS}/t/rollback"
        back = await trio.catalogd.post(path, json={"snapshot": first["snapshot_id"]})
        assert back.status_code == 200
        assert await trio.read_rows("t") == [("1",)]
        # What stayed is there already; what went away comes back, once.
        assert (await ingest(b"id\n1\n"))["duplicate"] is True
        assert (await ingest(b"id\n2\n"))["duplicate"] is False
        assert (await ingest(b"id\n2\n"))["duplicate"] is True
        assert await trio.read_rows("t") == [("1",), ("2",)]


async def test_the_client_speaks_these_routes_too(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        client = CatalogdClient(pair.config, pair.transports)
        made = [await append(pair, number) for number in range(3)]
        tagged = await client.set_tag("t", "two", made[1]["snapshot_id"])
        assert (tagged.tag, tagged.status) == ("two", "created")
        assert (await client.set_tag("t", "last")).snapshot_id == made[2]["snapshot_id"]
        assert (await client.delete_tag("t", "last")).deleted is True
        with pytest.raises(NotFound, match="no tag"):
            await client.delete_tag("t", "last")
        merged = await client.compact("t", 1)
        assert (merged.files_before, merged.files_after) == (3, 1)
        back = await client.roll_back("t", "two")
        assert (back.restored, back.previous) == (made[1]["snapshot_id"], merged.snapshot_id)
        assert [column.name for column in back.columns] == ["x"]
        files = await client.list_files("t", "two")
        assert len(files.files) == 2
        assert (await client.expire("t", 1)).kept == 2
        collected = await client.collect(0)
        assert (collected.status, collected.removed_objects) == ("done", 1)
        assert (await client.collect()).removed_metadata == 0
        await client.aclose()
