"""Many writers at once: nothing lost, nothing twice, nobody waits for a stranger."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from services.catalogd.store.pointers import Pointers
from services.catalogd.store.registrar import Registrar
from shared.errors import Conflict, Unavailable
from tests.support.catalogd import DATASETS, Store, catalogd_pair

pytestmark = pytest.mark.anyio


async def test_different_ingests_at_once_are_all_there(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        keys = [await pair.put(f"o{n}", {"x": [n]}) for n in range(12)]
        answers = await asyncio.gather(*(pair.register("t", key, ingest_id=key) for key in keys))
        statuses = sorted(answer["status"] for answer in answers)
        assert statuses == ["created"] + ["updated"] * 11
        assert len({answer["snapshot_id"] for answer in answers}) == 12
        assert await pair.rows("t") == sorted([(n,) for n in range(12)], key=repr)
        found = (await pair.get("/t/snapshots"))["snapshots"]
        assert [s["parent_id"] for s in found[1:]] == [s["snapshot_id"] for s in found[:-1]]
        assert sorted(s["rows"] for s in found) == list(range(1, 13))


@pytest.mark.parametrize("existing", [False, True])
async def test_the_same_ingest_at_once_has_one_effect(tmp_path: Path, existing: bool) -> None:
    async with catalogd_pair(tmp_path) as pair:
        if existing:
            await pair.register("t", await pair.put("before", {"x": [0]}))
        key = await pair.put("o", {"x": [1]})
        answers = await asyncio.gather(
            *(pair.register("t", key, ingest_id="same") for _ in range(8))
        )
        statuses = sorted(answer["status"] for answer in answers)
        assert statuses.count("unchanged") == 7
        assert len({answer["snapshot_id"] for answer in answers}) == 1
        assert (await pair.get("/t"))["rows"] == 1 + existing


async def test_a_commit_under_way_delays_neither_reads_nor_other_datasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, may_end = threading.Event(), threading.Event()
    register = Registrar.register

    def wait_for_slow(self: Registrar, order: Any, *rest: Any) -> Any:
        if order.name == "slow":
            began.set()
            assert may_end.wait(30)
        return register(self, order, *rest)

    async with catalogd_pair(tmp_path, commit_threads=2, read_threads=1) as pair:
        one, two = await pair.put("one", {"x": [1]}), await pair.put("two", {"x": [2]})
        await pair.register("slow", one)
        await pair.register("other", one)
        monkeypatch.setattr(Registrar, "register", wait_for_slow)
        # More than there are threads: they wait in the lane, not in the pool.
        slow = [
            asyncio.create_task(pair.register("slow", two, ingest_id=f"i{n}")) for n in range(5)
        ]
        try:
            await asyncio.to_thread(began.wait, 30)
            async with asyncio.timeout(20):
                await pair.register("other", two)
                assert len((await pair.get(""))["datasets"]) == 2
                assert await pair.rows("slow") == [(1,)]
                assert await pair.rows("other") == [(1,), (2,)]
                assert (await pair.catalog.delete(f"{DATASETS}/other")).status_code == 200
        finally:
            may_end.set()
        await asyncio.gather(*slow)
        assert (await pair.get("/slow"))["rows"] == 6


async def test_a_caller_who_leaves_does_not_tear_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, may_end = threading.Event(), threading.Event()
    swap = Pointers.swap

    def slow_swap(self: Pointers, **fields: Any) -> None:
        began.set()
        assert may_end.wait(30)
        swap(self, **fields)

    async with catalogd_pair(tmp_path) as pair:
        await pair.register("t", await pair.put("one", {"x": [1]}))
        two = await pair.put("two", {"x": [2]})
        monkeypatch.setattr(Pointers, "swap", slow_swap)
        gone = asyncio.create_task(pair.register("t", two, ingest_id="i"))
        await asyncio.to_thread(began.wait, 30)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert await pair.rows("t") == [(1,)]
        may_end.set()
        again = await pair.register("t", two, ingest_id="i")
        assert again["status"] == "unchanged"
        assert await pair.rows("t") == [(1,), (2,)]


def interrupt_once(store: Store, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """Lets `act` happen right before the store's next commit moves the pointer."""
    swap, acted = store.pointers.swap, threading.Event()

    def interrupted(**fields: Any) -> None:
        if not acted.is_set():
            acted.set()
            act()
        swap(**fields)

    monkeypatch.setattr(store.pointers, "swap", interrupted)


def unnamed_files(store: Store, name: str) -> set[str]:
    """Metadata files on disk that nothing in the dataset names."""
    metadata = store.reader.load(name)
    table = store.catalog.load_table(f"lakehouse.{name}")
    named = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    for snapshot in metadata.snapshots:
        named.add(snapshot.manifest_list)
        named.update(manifest.manifest_path for manifest in snapshot.manifests(table.io))
    folder = Path(metadata.location.removeprefix("file://")) / "metadata"
    return {f"file://{path}" for path in folder.iterdir()} - named


def test_a_commit_that_comes_second_is_planned_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, rival = Store(tmp_path), Store(tmp_path)
    store.register("t", store.write("a", {"x": [1]}), ingest_id="a")
    faster = rival.write("b", {"x": [2], "y": [1]})
    interrupt_once(
        store, monkeypatch, lambda: rival.register("t", faster, ingest_id="b", evolve=True)
    )
    # The rival's new column makes this one a conflict, which the first plan could not know.
    with pytest.raises(Conflict, match="y"):
        store.register("t", store.write("c", {"x": [3]}), ingest_id="c")
    assert store.keys("t") == ["a", "b"]
    store.register("t", store.write("c", {"x": [3]}), ingest_id="c", evolve=True)
    assert store.ingest_ids("t") == ["a", "b", "c"]
    assert store.figures.conflicts._value.get() == 1
    assert unnamed_files(store, "t") == set()


def test_two_who_make_the_same_dataset_at_once_both_get_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, rival = Store(tmp_path), Store(tmp_path)
    faster = rival.write("b", {"x": [2]})
    interrupt_once(store, monkeypatch, lambda: rival.register("t", faster, ingest_id="b"))
    answer = store.register("t", store.write("a", {"x": [1]}), ingest_id="a")
    assert answer.status == "updated"
    assert store.keys("t") == ["a", "b"]
    assert unnamed_files(store, "t") == set()


def test_the_same_ingest_in_two_processes_has_one_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, rival = Store(tmp_path), Store(tmp_path)
    info = store.write("a", {"x": [1]})
    interrupt_once(store, monkeypatch, lambda: rival.register("t", info, ingest_id="same"))
    assert store.register("t", info, ingest_id="same").status == "unchanged"
    assert store.keys("t") == ["a"]


def test_a_dataset_deleted_in_the_middle_of_a_commit_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    old = store.register("t", store.write("a", {"x": [1]}), ingest_id="a")
    interrupt_once(store, monkeypatch, lambda: store.pointers.drop("t", 0))
    new = store.register("t", store.write("b", {"x": [2]}), ingest_id="b")
    assert new.status == "created"
    assert new.uuid != old.uuid
    assert store.keys("t") == ["b"]
    interrupt_once(store, monkeypatch, lambda: store.pointers.drop("t", 0))
    with pytest.raises(Conflict, match="deleted"):
        store.register("t", store.write("c", {"x": [3]}), ingest_id="c", uuid=new.uuid)
    assert store.pointers.list_pointers() == []


def test_a_writer_who_always_comes_second_gives_up_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, rival = Store(tmp_path), Store(tmp_path)
    store.register("t", store.write("a", {"x": [1]}))
    swap = store.pointers.swap

    def interrupted(**fields: Any) -> None:
        number = len(rival.keys("t"))
        rival.register("t", rival.write(f"r{number}", {"x": [number]}))
        swap(**fields)

    monkeypatch.setattr(store.pointers, "swap", interrupted)
    with pytest.raises(Unavailable) as caught:
        store.register("t", store.write("b", {"x": [2]}), patience_s=0.2)
    assert caught.value.headers["Retry-After"]
    assert "b" not in store.keys("t")


def test_threads_over_two_stores_lose_nothing(tmp_path: Path) -> None:
    stores = [Store(tmp_path), Store(tmp_path)]

    def register(number: int) -> str:
        store = stores[number % 2]
        info = store.write(f"k{number:02}", {"x": [number]})
        return store.register("t", info, ingest_id=f"i{number}").snapshot_id

    with ThreadPoolExecutor(4) as pool:
        snapshots = list(pool.map(register, range(24)))
    assert len(set(snapshots)) == 24
    assert stores[0].keys("t") == [f"k{number:02}" for number in range(24)]
    assert stores[0].reader.describe("t").rows == 24
    assert unnamed_files(stores[0], "t") == set()
