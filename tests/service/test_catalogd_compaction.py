"""Compaction: the same rows in fewer files, whatever happens beside it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from services.catalogd.store import compacting
from services.catalogd.store.catalogue import Catalogue
from services.catalogd.store.merging import MergeFailed
from tests.service.test_catalogd_writes import as_iceberg, iceberg_rows
from tests.support.catalogd import DATASETS, Pair, catalogd_pair

pytestmark = pytest.mark.anyio


async def compact(pair: Pair, name: str = "t", **body: Any) -> dict[str, Any]:
    answer = await pair.catalog.post(f"{DATASETS}/{name}/compact", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def append(pair: Pair, number: int, **columns: Any) -> str:
    key = f"datasets/x/k{number}.parquet"
    await pair.put(key, columns or {"x": [number]})
    await pair.register("t", key, ingest_id=f"i{number}", evolve=True)
    return key


async def values(pair: Pair, **params: str) -> list[int]:
    return sorted(row[0] for row in await pair.rows("t", **params))


async def test_many_files_become_one_with_the_same_rows(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        for number in range(7):
            await append(pair, number)
        before = await pair.get("/t")
        done = await compact(pair)
        assert done["status"] == "updated"
        assert (done["files_before"], done["files_after"], done["merged_files"]) == (7, 1, 7)
        assert (done["more"], done["skipped"]) == (False, [])
        assert await values(pair) == list(range(7))
        [file] = (await pair.get("/t/files"))["files"]
        assert file["key"].startswith(f"datasets/{before['uuid']}/")
        snapshots = (await pair.get("/t/snapshots"))["snapshots"]
        assert [s["operation"] for s in snapshots[-2:]] == ["append", "replace"]
        assert snapshots[-1]["snapshot_id"] == done["snapshot_id"]
        assert snapshots[-1]["rows"] == 7
        assert await values(pair, snapshot=before["snapshot_id"]) == list(range(7))
        # In the order of their commits.
        table = as_iceberg(pair, "t")
        assert table.scan().to_arrow()["x"].to_pylist() == list(range(7))
        # Again there is nothing to do, and nothing is done; writes go on.
        again = await compact(pair)
        assert (again["status"], again["snapshot_id"]) == ("unchanged", done["snapshot_id"])
        await append(pair, 7)
        assert await values(pair) == list(range(8))
        # Ingests are not superseded by it, and a rollback past it brings the old files back.
        assert (await pair.get("/t/ingests/i3"))["superseded"] is False
        await pair.catalog.post(
            f"{DATASETS}/t/rollback", json={"snapshot": snapshots[3]["snapshot_id"]}
        )
        assert await values(pair) == [0, 1, 2, 3]
        marks = [(await pair.get(f"/t/ingests/i{n}"))["superseded"] for n in range(8)]
        assert marks == [False] * 4 + [True] * 4
        await pair.catalog.post(f"{DATASETS}/t/rollback", json={"snapshot": done["snapshot_id"]})
        marks = [(await pair.get(f"/t/ingests/i{n}"))["superseded"] for n in range(8)]
        assert marks == [False] * 7 + [True]


async def test_columns_that_came_and_grew_are_kept(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        await append(pair, 1, x=pa.array([1], pa.int32()), s=pa.array([{"a": 1}]))
        await append(pair, 2, x=pa.array([2**40], pa.int64()), y=["new"], s=pa.array([{"b": "m"}]))
        await append(pair, 3, y=pa.array([None], pa.string()), x=pa.array([3], pa.int32()))
        before = await pair.rows("t")
        rows = iceberg_rows(as_iceberg(pair, "t"))
        shown = await pair.get("/t")
        assert (await compact(pair))["files_after"] == 1
        assert await pair.rows("t") == before
        assert iceberg_rows(as_iceberg(pair, "t")) == rows
        after = await pair.get("/t")
        assert after["schema"] == shown["schema"]
        assert after["fingerprint"] == shown["fingerprint"]


async def test_what_a_write_took_out_meanwhile_stays_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with catalogd_pair(tmp_path, compact_round_mb=1024) as pair:
        keys = [await append(pair, number) for number in range(4)]
        merge = compacting.merge_files

        async def slow(job: Any) -> Any:
            parts = await merge(job)
            new = await pair.put("new", {"x": [100]})
            await pair.register("t", new, mode="rewrite", removes=[keys[2]])
            return parts

        with monkeypatch.context() as patch:
            patch.setattr(compacting, "merge_files", slow)
            done = await compact(pair)
        assert done["status"] == "unchanged"
        assert "another write took it out" in done["skipped"][0]
        assert await values(pair) == [0, 1, 3, 100]

        # What is only added meanwhile stays beside it.
        async def adding(job: Any) -> Any:
            parts = await merge(job)
            await append(pair, 50)
            return parts

        with monkeypatch.context() as patch:
            patch.setattr(compacting, "merge_files", adding)
            done = await compact(pair)
        assert (done["status"], done["merged_files"]) == ("updated", 4)
        assert await values(pair) == [0, 1, 3, 50, 100]


async def test_a_file_that_is_damaged_is_left_and_told(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        for number in range(3):
            await append(pair, number)
        # Its pages, not its footer: only the merge finds out.
        found = {f["key"]: f["uri"] for f in (await pair.get("/t/files"))["files"]}
        path = Path(found["datasets/x/k1.parquet"].removeprefix("file://"))
        content = bytearray(path.read_bytes())
        content[4:40] = b"\xff" * 36
        path.write_bytes(content)
        for number in range(3, 8):
            await append(pair, number)
        done = await compact(pair)
        # It and one beside it stay; by halves all others are merged.
        assert (done["status"], done["merged_files"]) == ("updated", 6)
        assert len(done["skipped"]) == 1
        kept = [f["key"] for f in (await pair.get("/t/files"))["files"]]
        assert "datasets/x/k1.parquet" in kept
        assert (await pair.get("/t"))["rows"] == 8
        # One that another took the place of in storage does not even begin.
        path.write_bytes(bytes(content) + b"PAR1")
        done = await compact(pair)
        assert "was replaced meanwhile" in done["skipped"][0]
        assert "datasets/x/k1.parquet" in {f["key"] for f in (await pair.get("/t/files"))["files"]}


async def test_a_merge_that_takes_its_process_down_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with catalogd_pair(tmp_path) as pair:
        for number in range(3):
            await append(pair, number)

        async def dying(job: Any) -> Any:
            raise MergeFailed("the process that merged them ended with status -11")

        with monkeypatch.context() as patch:
            patch.setattr(compacting, "merge_files", dying)
            done = await compact(pair)
        assert done["status"] == "unchanged"
        assert "status -11" in done["skipped"][0]
        assert await values(pair) == [0, 1, 2]
        # Memory is bounded; running out of it is an answer.
        wide = pa.table({"x": pa.array(["y" * 1000] * 200_000)})
        for number in (10, 11):
            await pair.put(f"w{number}", wide, compression="zstd")
            await pair.register("w", f"w{number}", ingest_id=str(number))
        done = await compact(pair, "w")
        assert done["files_after"] == 1 or done["skipped"]
        work = pair.config.data_dir("catalogd") / "merging"
        assert not list(work.iterdir())


async def test_sizes_decide(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        big = pa.table({"x": pa.array(range(300_000), pa.int64())})
        await pair.put("big", big, compression="none", use_dictionary=False)
        await pair.register("t", "big")
        for number in range(3):
            await append(pair, number)
        done = await compact(pair, target_mb=1)
        # The large one is large enough as it is.
        assert (done["files_before"], done["files_after"], done["merged_files"]) == (4, 2, 3)
        assert (await pair.get("/t"))["rows"] == 300_003
        answer = await pair.catalog.post(f"{DATASETS}/t/compact", json={"target_mb": 129})
        assert answer.status_code == 400
        assert (await pair.catalog.post(f"{DATASETS}/nope/compact")).status_code == 404


async def test_it_runs_by_itself_and_then_rests(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path, upkeep_interval_s=0.05, compact_min_files=5) as pair:
        for number in range(12):
            await append(pair, number)
        async with asyncio.timeout(30):
            while (await pair.get("/t"))["files"] >= 5:
                await asyncio.sleep(0.05)
        assert await values(pair) == list(range(12))
        text = (await pair.catalog.get("/metrics")).text
        merged = next(
            line for line in text.splitlines() if line.startswith("lakehouse_catalogd_merged_files")
        )
        assert float(merged.split()[1]) >= 5


async def test_it_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(Catalogue, "compact", lambda self, name, **_: called.append(name))
    async with catalogd_pair(
        tmp_path, upkeep=False, upkeep_interval_s=0.01, compact_min_files=2
    ) as pair:
        for number in range(6):
            await append(pair, number)
        assert (await pair.get("/t"))["files"] == 6
    assert called == []
