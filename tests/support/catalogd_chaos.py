"""A catalogd over a storaged in one process, doing everything at once until it is killed.

It tells of each step before it takes it and after it is acknowledged, so that whoever killed it
knows what must be there, what may be, and what must not.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pyarrow as pa

from tests.support.catalogd import DATASETS, Pair, catalogd_pair, read_rows

# Few snapshots and small merges, so that each round does all of it.
SETTINGS: dict[str, Any] = {"keep_snapshots": 8, "upkeep": False}
NAME = "t"

# At its first conversion pyarrow looks for pandas, which may take it a second: before the fork.
pa.table({"x": [0]})


async def put(pair: Pair, number: int, rows: list[int]) -> str:
    """An object with these rows, under the dataset's identity."""
    answer = await pair.catalog.put(f"{DATASETS}/{NAME}/identity")
    key = f"datasets/{answer.json()['uuid']}/{number:064x}-0.parquet"
    return await pair.put(key, {"x": rows})


def run_chaos(directory: Path, seed: int, first: int, report: Connection) -> None:
    """Works until the end of the world.

    Args:
        directory: where it all lies.
        seed: of the order of its steps.
        first: numbers of rows begin here.
        report: gets ("begin", what, value) and then ("done" or "not", what, value): "add" one
            row, or "set" all rows to what a snapshot held. Upkeep tells "start" and "end".
    """
    asyncio.run(_work(directory, random.Random(seed), first, report))


async def _work(directory: Path, chance: random.Random, first: int, report: Connection) -> None:
    async with catalogd_pair(directory, **SETTINGS) as pair:
        report.send("ready")
        await asyncio.to_thread(report.recv)
        writer = asyncio.create_task(_write(pair, chance, first, report))
        keeper = asyncio.create_task(_keep(pair, random.Random(chance.random()), report))
        await asyncio.gather(writer, keeper)


async def _write(pair: Pair, chance: random.Random, first: int, report: Connection) -> None:
    """Appends, rewrites and rollbacks, one after another, each told of."""
    number = first
    while True:
        number += 1
        step = chance.choices([_append, _rewrite, _roll_back], [6, 2, 1])[0]
        await step(pair, chance, number, report)


async def _append(pair: Pair, chance: random.Random, number: int, report: Connection) -> None:
    key = await put(pair, number, [number])
    report.send(("begin", "add", number))
    answer = await pair.send(NAME, key, ingest_id=f"i{number}")
    report.send((outcome(answer), "add", number))


async def _rewrite(pair: Pair, chance: random.Random, number: int, report: Connection) -> None:
    """The rows of one file, or of several that were merged, with one more beside them."""
    answer = await pair.catalog.get(f"{DATASETS}/{NAME}/files")
    found = answer.json()
    if answer.status_code == 404 or not found["files"]:
        return
    old = chance.choice(found["files"])
    try:
        rows = read_values({**found, "files": [old]})
    except duckdb.IOException:
        return  # merged, expired and collected meanwhile: this test's queries have no grace
    key = await put(pair, number, [*rows, number])
    report.send(("begin", "add", number))
    answer = await pair.send(
        NAME, key, mode="rewrite", removes=[old["uri"]], ingest_id=f"i{number}"
    )
    report.send((outcome(answer), "add", number))


async def _roll_back(pair: Pair, chance: random.Random, number: int, report: Connection) -> None:
    answer = await pair.catalog.get(f"{DATASETS}/{NAME}/snapshots")
    if answer.status_code == 404:
        return
    target = chance.choice(answer.json()["snapshots"])["snapshot_id"]
    path = f"{DATASETS}/{NAME}"
    found = await pair.catalog.get(f"{path}/files", params={"snapshot": target})
    if found.status_code == 404:
        return
    try:
        rows = read_values(found.json())
    except duckdb.IOException:
        return
    report.send(("begin", "set", rows))
    answer = await pair.catalog.post(f"{path}/rollback", json={"snapshot": target})
    report.send((outcome(answer), "set", rows))


def outcome(answer: httpx.Response) -> str:
    """Whether a write was done; refused for a good reason it was not."""
    if answer.status_code in (200, 201):
        return "done"
    # A compaction or the collector was faster, or the snapshot has expired.
    assert answer.status_code in (404, 409, 422), answer.text
    return "not"


async def _keep(pair: Pair, chance: random.Random, report: Connection) -> None:
    """Compaction, tags, expiry and collection, beside the writes."""
    while (await pair.catalog.get(f"{DATASETS}/{NAME}")).status_code == 404:
        await asyncio.sleep(0.005)
    path = f"{DATASETS}/{NAME}"
    post = pair.catalog.post
    steps: list[tuple[str, Callable[[], Awaitable[httpx.Response]]]] = [
        ("compact", lambda: post(f"{path}/compact")),
        ("tag", lambda: pair.catalog.put(f"{path}/tags/tag{chance.randrange(3)}")),
        ("untag", lambda: pair.catalog.delete(f"{path}/tags/tag{chance.randrange(3)}")),
        ("expire", lambda: post(f"{path}/expire", json={"keep": chance.randrange(1, 8)})),
        ("collect", lambda: post("/catalog/collect", json={"grace_s": 0.5})),
        # Writes that are under way may lose their objects to this one, and must say so.
        ("collect", lambda: post("/catalog/collect", json={"grace_s": 0})),
    ]
    while True:
        name, step = chance.choices(steps, [3, 2, 1, 2, 1, 2])[0]
        report.send(("start", name, None))
        answer = await step()
        assert answer.status_code < 500, answer.text
        report.send(("end", name, None))


def read_values(found: Mapping[str, Any]) -> list[int]:
    """The numbers in a `files` answer, sorted."""
    return sorted(row[0] for row in read_rows(found))
