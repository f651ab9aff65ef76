"""Real processes on one catalogue: nothing lost, nothing twice, and dying at any instant."""

from __future__ import annotations

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

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from tests.support.catalogd import Store

PROCESSES = 4
COMMITS = 25
KILLS = 25


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Starts processes that have the libraries loaded already: a kill may come at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.catalogd"])
    return context


def register_many(directory: Path, name: str, numbers: list[int], report: Connection) -> None:
    """Registers one file per number and reports each that was acknowledged."""
    store = Store(directory, keep=1000)
    # At its first conversion pyarrow looks for pandas, which may take it a second.
    pa.table({"x": [0]})
    report.send("ready")
    report.recv()
    for number in numbers:
        info = store.write(f"k{number:04}", {"x": [number]})
        store.register(name, info, ingest_id=f"i{number}")
        report.send(number)
    report.close()


def start(
    context: ForkServerContext, directory: Path, name: str, numbers: list[int]
) -> tuple[BaseProcess, Connection]:
    ours, theirs = context.Pipe()
    process = context.Process(target=register_many, args=(directory, name, numbers, theirs))
    process.start()
    theirs.close()
    assert ours.poll(60), "the process did not start"
    assert ours.recv() == "ready"
    return process, ours


def acknowledged(report: Connection) -> list[int]:
    """What a process reported until its end."""
    numbers: list[int] = []
    try:
        while report.poll(60):
            numbers.append(report.recv())
    except (EOFError, ConnectionResetError):
        return numbers
    raise AssertionError("the process neither ended nor went on")


def assert_exactly(store: Store, name: str, numbers: list[int]) -> None:
    """The dataset loads and has each number's file and ingest exactly once, and no other."""
    expected = sorted(f"k{number:04}" for number in numbers)
    assert store.keys(name) == expected
    assert Counter(store.ingest_ids(name)) == Counter(f"i{number}" for number in numbers)
    assert store.reader.describe(name).rows == len(numbers)


def test_many_processes_lose_nothing_and_double_nothing(
    tmp_path: Path, processes: ForkServerContext
) -> None:
    every = [list(range(n * COMMITS, (n + 1) * COMMITS)) for n in range(PROCESSES)]
    # Each process also sends what another sends: of the same ingest at once one counts.
    shared = [100_000, 100_001, 100_002]
    started = [start(processes, tmp_path, "t", shared + numbers) for numbers in every]
    for _, report in started:
        report.send("go")
    for (process, report), numbers in zip(started, every, strict=True):
        assert acknowledged(report) == shared + numbers
        process.join(60)
        assert process.exitcode == 0
    store = Store(tmp_path, keep=1000)
    everything = shared + [number for numbers in every for number in numbers]
    # All processes wrote the shared files under one key.
    assert_exactly(store, "t", everything)
    snapshots = store.reader.list_snapshots("t").snapshots
    assert [s.parent_id for s in snapshots[1:]] == [s.snapshot_id for s in snapshots[:-1]]
    table = SqlCatalog("lakehouse", uri=store.uri).load_table("lakehouse.t")
    assert sorted(table.scan().to_arrow()["x"].to_pylist()) == sorted(everything)


def test_killed_at_any_instant_it_has_what_it_acknowledged_once_and_a_retry_works(
    tmp_path: Path, processes: ForkServerContext
) -> None:
    instants = random.Random(20260131)
    done: list[int] = []
    killed_in_the_middle = 0
    for round_number in range(KILLS):
        first = round_number * 1000
        numbers = list(range(first, first + 500))
        process, report = start(processes, tmp_path, "t", numbers)
        report.send("go")
        deadline = time.monotonic() + instants.uniform(0, 0.12)
        while time.monotonic() < deadline:
            pass
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        told = acknowledged(report)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert len(told) < len(numbers)

        store = Store(tmp_path, keep=1000)
        present = {int(key.removeprefix("k")) for key in keys_or_none(store)}
        assert set(done + told) <= present, "an acknowledged register is missing"
        # The one under way may be there or not; it can be no other.
        in_flight = first + len(told)
        assert present - set(done + told) <= {in_flight}
        killed_in_the_middle += (tmp_path / f"k{in_flight:04}.parquet").exists()
        info = store.write(f"k{in_flight:04}", {"x": [in_flight]})
        again = store.register("t", info, ingest_id=f"i{in_flight}")
        assert (again.status == "unchanged") == (in_flight in present)
        done += [*told, in_flight]
        assert_exactly(store, "t", done)
        store.close()
    assert killed_in_the_middle > KILLS // 3, "the kills came too early to show anything"
    table = SqlCatalog("lakehouse", uri=f"sqlite:///{tmp_path}/catalogue.db")
    rows = table.load_table("lakehouse.t").scan().to_arrow()["x"].to_pylist()
    assert sorted(rows) == sorted(done)


def keys_or_none(store: Store) -> list[str]:
    """Keys of the dataset; none while it was never made."""
    return store.keys("t") if store.pointers.list_pointers() else []
