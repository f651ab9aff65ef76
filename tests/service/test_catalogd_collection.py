"""Collection: what nobody names goes after its grace, and nothing else ever does."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from services.catalogd.store import collecting
from services.catalogd.store.collection import Collector
from services.catalogd.store.marks import COLLECTION
from services.catalogd.store.orphans import Orphans
from services.catalogd.store.pointers import Pointers
from services.catalogd.store.registrar import Registrar
from shared.errors import Unavailable
from tests.service.test_catalogd_writes import as_iceberg, iceberg_rows
from tests.support.catalogd import DATASETS, Pair, catalogd_pair

pytestmark = pytest.mark.anyio


async def collect(pair: Pair, grace_s: float | None = 0) -> dict[str, Any]:
    answer = await pair.catalog.post("/catalog/collect", json={"grace_s": grace_s})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def identity(pair: Pair, name: str = "t") -> str:
    answer = await pair.catalog.put(f"{DATASETS}/{name}/identity")
    return answer.json()["uuid"]


async def append(pair: Pair, number: int, name: str = "t", **fields: Any) -> str:
    key = f"datasets/{await identity(pair, name)}/{number:064x}-0.parquet"
    await pair.put(key, {"x": [number]})
    await pair.register(name, key, **{"ingest_id": f"i{number}", **fields})
    return key


async def objects(pair: Pair) -> set[str]:
    answer = await pair.storage.get("/storage/objects", params={"limit": 1000})
    return {one["key"] for one in answer.json()["objects"]}


def metadata_files(pair: Pair) -> list[Path]:
    warehouse = pair.config.data_dir("catalogd") / "warehouse"
    return sorted(path for path in warehouse.rglob("*") if path.is_file())


async def values(pair: Pair, **params: str) -> list[int]:
    return sorted(row[0] for row in await pair.rows("t", **params))


async def test_only_what_no_retained_snapshot_names_goes(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path, keep_snapshots=3) as pair:
        first = await append(pair, 0)
        await pair.catalog.put(f"{DATASETS}/t/tags/kept")
        replaced = await append(pair, 1)
        for number in range(2, 7):
            await append(pair, number, mode="replace")
        orphan = await pair.put(f"datasets/{await identity(pair)}/{'f' * 64}-0.parquet", {"x": [9]})
        elsewhere = [
            await pair.put("datasets/11111111-1111-1111-1111-111111111111/a.parquet", {"x": [1]}),
            await pair.put("datasets/loose.parquet", {"x": [1]}),
            await pair.put("raw/a.parquet", {"x": [1]}),
        ]
        before = await objects(pair)
        # Within its grace everything stays.
        assert (await collect(pair, None))["removed_objects"] == 0
        assert await objects(pair) == before
        done = await collect(pair)
        assert done["status"] == "done"
        gone = before - await objects(pair)
        # 0 has a tag; of the others three snapshots are kept.
        assert gone == {replaced, orphan, *expected(await identity(pair), 2, 3)}
        assert done["removed_objects"] == len(gone)
        assert done["removed_metadata"] > 0
        assert done["removed_bytes"] > 0
        assert done["orphans"] == 0
        assert first in await objects(pair)
        assert set(elsewhere) <= await objects(pair)
        for snapshot in (await pair.get("/t/snapshots"))["snapshots"]:
            assert len(await values(pair, snapshot=snapshot["snapshot_id"])) == 1
        assert await values(pair, snapshot="kept") == [0]
        assert iceberg_rows(as_iceberg(pair, "t")) == [{"x": 6}]
        again = await collect(pair)
        assert (again["removed_objects"], again["removed_metadata"]) == (0, 0)
        await append(pair, 100)
        assert await values(pair) == [6, 100]


def expected(uuid: str, *numbers: int) -> set[str]:
    return {f"datasets/{uuid}/{number:064x}-0.parquet" for number in numbers}


async def test_a_deleted_datasets_files_go_and_its_name_lives_on(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        old = await append(pair, 1)
        await append(pair, 1, name="other")
        shared_key = await append(pair, 2, name="gone")
        # Another dataset may name an object that lies under a deleted one.
        await pair.register("other", shared_key, ingest_id="shared")
        for name in ("t", "gone"):
            await pair.catalog.delete(f"{DATASETS}/{name}")
        new = await append(pair, 3)
        await collect(pair)
        left = await objects(pair)
        assert old not in left
        assert {new, shared_key} <= left
        assert await values(pair) == [3]
        assert sorted(await pair.rows("other")) == [(1,), (2,)]
        folders = {path.parent.parent.name for path in metadata_files(pair)}
        assert folders == {await identity(pair), await identity(pair, "other")}
        warehouse = pair.config.data_dir("catalogd") / "warehouse"
        assert {path.name for path in warehouse.iterdir()} == folders


async def test_rejects_stay_while_their_ingest_is_known(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        uuid = await identity(pair)
        known = await pair.put(f"datasets/{uuid}/rejects/{'a' * 64}.parquet", {"line": [1]})
        unknown = await pair.put(f"datasets/{uuid}/rejects/{'b' * 64}.parquet", {"line": [1]})
        record = {"rows_in": 2, "rows_out": 1, "rejects": {"count": 1, "object": known}}
        await append(pair, 1, record=record)
        await collect(pair)
        left = await objects(pair)
        assert known in left
        assert unknown not in left
        await pair.catalog.delete(f"{DATASETS}/t")
        await collect(pair)
        assert await objects(pair) == set()
        assert metadata_files(pair) == []


async def test_the_grace_counts_from_when_a_file_became_nobodys(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        key = await append(pair, 1)
        await append(pair, 2, mode="replace")
        async with asyncio.timeout(30):
            # Storage tells times to the second, so this file is old by any clock.
            while (await collect(pair, 1.0))["orphans"]:
                await asyncio.sleep(0.2)
        assert key in await objects(pair)
        await pair.catalog.post(f"{DATASETS}/t/expire", json={"keep": 1})
        # A query may still read it: it is nobody's only since now.
        found = await collect(pair, 1.0)
        assert found["orphans"] > 0
        assert key in await objects(pair)
        async with asyncio.timeout(30):
            while key in await objects(pair):
                await asyncio.sleep(0.1)
                await collect(pair, 1.0)


async def test_an_orphan_that_is_registered_after_all_is_none(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        key = await pair.put(f"datasets/{await identity(pair)}/{'c' * 64}-0.parquet", {"x": [5]})
        assert (await collect(pair, 3600))["orphans"] == 1
        await pair.register("t", key)
        assert (await collect(pair, 3600))["orphans"] == 0
        await collect(pair)
        assert await values(pair) == [5]


async def test_a_register_of_what_is_just_being_removed_fails_and_works_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both orders of the race, and a register that began before and ends after a removal."""
    async with catalogd_pair(tmp_path) as pair:
        await append(pair, 1)
        key = await pair.put(f"datasets/{await identity(pair)}/{'d' * 64}-0.parquet", {"x": [7]})
        begin = Orphans.begin_taking

        def after_the_mark(self: Orphans, places: Any, now_ms: int) -> None:
            begin(self, places, now_ms)
            marked.set()
            assert released.wait(30)

        marked, released = threading.Event(), threading.Event()
        with monkeypatch.context() as patch:
            patch.setattr(Orphans, "begin_taking", after_the_mark)
            round_one = asyncio.create_task(collect(pair))
            await asyncio.to_thread(marked.wait, 30)
            # The object is there and its footer is read, but it will not be there for long.
            answer = await pair.send("t", key, ingest_id="late")
            assert answer.status_code == 409
            assert answer.json()["error"]["details"]["collected"] == [key]
            assert "Store it again" in answer.json()["error"]["message"]
            released.set()
            assert (await round_one)["removed_objects"] == 1
        assert await values(pair) == [1]
        assert key not in await objects(pair)
        answer = await pair.send("t", key, ingest_id="late")
        assert answer.status_code == 422
        # Stored again and sent again, it is as any other: at once, whatever was removed before.
        await pair.put(key, {"x": [7]})
        await pair.register("t", key, ingest_id="late")
        await collect(pair)
        assert await values(pair) == [1, 7]


async def test_a_register_that_began_before_a_removal_and_ends_after_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with catalogd_pair(tmp_path) as pair:
        await append(pair, 1)
        key = await pair.put(f"datasets/{await identity(pair)}/{'e' * 64}-0.parquet", {"x": [7]})
        register = Registrar.register
        loop = asyncio.get_running_loop()

        def slow(self: Registrar, *args: Any) -> Any:
            # Its footer is read and it is in its turn: only now comes a whole collection.
            asyncio.run_coroutine_threadsafe(collect(pair), loop).result(30)
            return register(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(Registrar, "register", slow)
            answer = await pair.send("t", key, ingest_id="slow")
        assert answer.status_code == 409
        assert answer.json()["error"]["details"]["collected"] == [key]
        assert await values(pair) == [1]


async def test_a_commit_between_the_scan_and_the_mark_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with catalogd_pair(tmp_path) as pair:
        await append(pair, 1)
        key = await pair.put(f"datasets/{await identity(pair)}/{'a' * 64}-0.parquet", {"x": [7]})
        loop = asyncio.get_running_loop()
        begin = Orphans.begin_taking

        def late(self: Orphans, places: Any, now_ms: int) -> None:
            asyncio.run_coroutine_threadsafe(pair.register("t", key), loop).result(30)
            begin(self, places, now_ms)

        with monkeypatch.context() as patch:
            patch.setattr(Orphans, "begin_taking", late)
            done = await collect(pair)
        assert done["removed_objects"] == 0
        assert await values(pair) == [1, 7]
        # The mark is gone with it: nothing is refused later.
        await pair.register("u", key)


async def test_metadata_of_a_commit_under_way_is_not_taken_from_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with catalogd_pair(tmp_path) as pair:
        await append(pair, 1)
        loop = asyncio.get_running_loop()
        swap = Pointers.swap
        rounds: list[dict[str, Any]] = []

        def slow(self: Pointers, **fields: Any) -> None:
            if not rounds:
                # All its files are written, and nothing names them yet.
                found = asyncio.run_coroutine_threadsafe(collect(pair), loop).result(30)
                rounds.append(found)
            swap(self, **fields)

        monkeypatch.setattr(Pointers, "swap", slow)
        # Data that lies elsewhere, so that this is about metadata alone.
        await pair.register("t", await pair.put("raw/2", {"x": [2]}))
        assert rounds[0]["removed_metadata"] >= 3
        assert await values(pair) == [1, 2]
        assert len(iceberg_rows(as_iceberg(pair, "t"))) == 2


async def test_one_of_several_collects_and_a_dead_ones_work_is_ended(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        await append(pair, 1)
        key = await pair.put(f"datasets/{await identity(pair)}/{'a' * 64}-0.parquet", {"x": [7]})
        pointers = Pointers(pair.database)
        other = Orphans(pointers)
        now = time.time_ns() // 1_000_000
        assert other.take_lease(COLLECTION, "another", now, now + 60_000)
        assert (await collect(pair))["status"] == "busy"
        # It marks and dies.
        other.note_seen([f"object:{key}"], now)
        other.begin_taking([f"object:{key}"], now)
        assert (await pair.send("t", key)).status_code == 409
        other.drop_leases("another")
        pointers.close()
        assert (await collect(pair, 3600))["status"] == "done"
        await pair.register("t", key)
        assert await values(pair) == [1, 7]


async def test_what_cannot_be_read_ends_a_round_before_anything_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with catalogd_pair(tmp_path) as pair:
        await append(pair, 1)
        await append(pair, 2, mode="replace")
        await pair.catalog.post(f"{DATASETS}/t/expire", json={"keep": 1})
        before = await objects(pair), metadata_files(pair)

        def broken(*_: Any) -> Any:
            raise Unavailable("the bucket is away")

        with monkeypatch.context() as patch:
            patch.setattr(Collector, "scan", broken)
            answer = await pair.catalog.post("/catalog/collect", json={"grace_s": 0})
        assert answer.status_code == 503
        assert (await objects(pair), metadata_files(pair)) == before


async def test_a_round_is_bounded_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "MOST_TAKEN", 3)
    async with catalogd_pair(tmp_path) as pair:
        uuid = await identity(pair)
        for number in range(7):
            await pair.put(f"datasets/{uuid}/{number:064x}-0.parquet", {"x": [number]})
        removed = [await collect(pair) for _ in range(3)]
        assert [one["removed_objects"] for one in removed] == [3, 3, 1]
        assert [one["orphans"] for one in removed] == [4, 1, 0]


async def test_it_runs_by_itself(tmp_path: Path) -> None:
    async with catalogd_pair(
        tmp_path, upkeep_interval_s=0.05, collect_interval_s=0.05, collect_grace_s=0
    ) as pair:
        # Without grace an object may be gone before it is registered, hence elsewhere.
        await pair.register("t", await pair.put("raw/1", {"x": [1]}))
        await pair.catalog.delete(f"{DATASETS}/t")
        counted = 'lakehouse_catalogd_collected_files_total{kind="metadata"} 3.0'
        async with asyncio.timeout(30):
            while counted not in (await pair.catalog.get("/metrics")).text:
                await asyncio.sleep(0.05)
        assert metadata_files(pair) == []
