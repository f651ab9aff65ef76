"""kill -9 at any instant of commits, compaction, expiry, rollback and collection.

KILL_ROUNDS says how often (500 in all were run for the record in docs/catalogd.md), KILL_SEED
where the instants begin. After every kill nothing is lost, doubled, torn or leaked.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog

from tests.support.catalogd import DATASETS, Pair, catalogd_pair
from tests.support.catalogd_chaos import NAME, SETTINGS, read_values, run_chaos

ROUNDS = int(os.environ.get("KILL_ROUNDS", "6"))
SEED = int(os.environ.get("KILL_SEED", "20261123"))
# Where to write what every kill fell into, for the record.
LOG = os.environ.get("KILL_LOG", "")
# Commits take milliseconds; a compaction's process has to start, merge and end in the other.
LONGEST_S = (0.5, 1.5)


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Starts processes that have the libraries loaded already: a kill may come at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tests.support.catalogd_chaos", "services.catalogd.store.compacting"]
    )
    return context


def start(
    context: ForkServerContext, directory: Path, seed: int, first: int
) -> tuple[BaseProcess, Connection]:
    ours, theirs = context.Pipe()
    process = context.Process(target=run_chaos, args=(directory, seed, first, theirs))
    process.start()
    theirs.close()
    assert ours.poll(60), "the process did not start"
    assert ours.recv() == "ready"
    return process, ours


def drain(report: Connection) -> list[tuple[str, str, Any]]:
    """All that a killed process told."""
    told: list[tuple[str, str, Any]] = []
    try:
        while report.poll(60):
            told.append(report.recv())
    except (EOFError, ConnectionResetError):
        return told
    raise AssertionError("the process neither ended nor went on")


def apply(rows: list[int], what: str, value: Any) -> list[int]:
    """The rows after a step."""
    return sorted([*rows, value]) if what == "add" else list(value)


def expect(rows: list[int], told: list[tuple[str, str, Any]]) -> list[list[int]]:
    """What may be there: all that was acknowledged, and perhaps the step under way."""
    possible = [rows]
    for word, what, value in told:
        if word == "begin":
            possible = [rows, apply(rows, what, value)]
        elif word in ("done", "not"):
            rows = possible[-1] if word == "done" else rows
            possible = [rows]
    return possible


def find_unfinished(told: list[tuple[str, str, Any]]) -> list[str]:
    """What was under way when it was killed."""
    under_way: Counter[str] = Counter()
    for word, what, _ in told:
        under_way[what] += 1 if word in ("begin", "start") else -1
    return sorted(what for what, count in under_way.items() if count)


async def check(pair: Pair, possible: list[list[int]]) -> list[int]:
    """Holds what is there to what may be; gives the rows."""
    answer = await pair.catalog.get(f"{DATASETS}/{NAME}")
    if answer.status_code == 404:
        assert [] in possible
        return []
    rows = read_values(await pair.get(f"/{NAME}/files"))
    assert rows in possible, (rows, possible)
    assert answer.json()["rows"] == len(rows)
    doubled = [number for number, count in Counter(rows).items() if count > 1]
    assert doubled == []
    await check_snapshots(pair)
    # Without grace nothing is left that nothing names, and all that is named is left.
    collected = (await pair.catalog.post("/catalog/collect", json={"grace_s": 0})).json()
    assert (collected["status"], collected["orphans"]) == ("done", 0)
    await check_snapshots(pair)
    await check_nothing_leaked(pair)
    return rows


async def check_snapshots(pair: Pair) -> None:
    for snapshot in (await pair.get(f"/{NAME}/snapshots"))["snapshots"]:
        found = await pair.get(f"/{NAME}/files", snapshot=snapshot["snapshot_id"])
        assert len(read_values(found)) == snapshot["rows"]


async def check_nothing_leaked(pair: Pair) -> None:
    directory = pair.config.data_dir("catalogd")
    table = SqlCatalog("lakehouse", uri=f"sqlite:///{directory / 'catalogue.db'}").load_table(
        f"lakehouse.{NAME}"
    )
    named = {table.metadata_location, *(e.metadata_file for e in table.metadata.metadata_log)}
    data: set[str] = set()
    for snapshot in table.snapshots():
        named.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            named.add(manifest.manifest_path)
            entries = manifest.fetch_manifest_entry(table.io)
            data |= {entry.data_file.file_path for entry in entries}
    warehouse = directory / "warehouse"
    assert {f"file://{path}" for path in warehouse.rglob("*") if path.is_file()} == named
    listed = await pair.storage.get("/storage/objects", params={"limit": 1000})
    assert {one["uri"] for one in listed.json()["objects"]} == data
    assert not (directory / "merging").exists()


@pytest.mark.timeout(60 + 20 * ROUNDS)
def test_killed_at_any_instant_nothing_is_lost_doubled_torn_or_leaked(
    tmp_path: Path, processes: ForkServerContext
) -> None:
    chance = random.Random(SEED)
    rows: list[int] = []
    steps: Counter[str] = Counter()
    for number in range(ROUNDS):
        process, report = start(processes, tmp_path, SEED + number, number * 100_000)
        report.send("go")
        deadline = time.monotonic() + chance.uniform(0, LONGEST_S[number % 2])
        while time.monotonic() < deadline:
            time.sleep(0.0005)
        assert process.pid is not None
        assert process.is_alive(), "it failed before it was killed"
        os.kill(process.pid, signal.SIGKILL)
        told = drain(report)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        steps.update(f"{word} {what}" for word, what, _ in told)
        if LOG:
            with open(LOG, "a", encoding="utf-8") as log:
                log.write(f"{json.dumps(find_unfinished(told))}\n")

        async def verify(possible: list[list[int]]) -> list[int]:
            async with catalogd_pair(tmp_path, **SETTINGS) as pair:
                return await check(pair, possible)

        rows = asyncio.run(verify(expect(rows, told)))
    assert steps["done add"], steps
