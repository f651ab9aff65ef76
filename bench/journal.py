"""Durable records a second: the journal beside the disk's own limit and beside SQLite.

Each row is one number of callers that append 1 KB records at the same time. In the same
run, round by round, stand:
- limit: the same bytes by bare write + fdatasync, in groups of as many records;
- SQLite: WAL, synchronous=FULL, one commit per group of as many rows.
The last part reads the log back and stands beside bare orjson.loads of the same lines.

    python bench/journal.py [--dir DIR] [--seconds 1.0] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import orjson
import uvloop

from shared.journal import Journal
from shared.journal.record import encode_line, encode_payload

CALLERS = (1, 16, 64, 256)
BATCH = 100
REPLAYED = 200_000


def make_payload() -> dict[str, Any]:
    """An event as observerd logs it; its line is 1 KB long."""
    payload: dict[str, Any] = {
        "run_id": "8c1f6a52-0b7e-4a4e-9d0b-7b1f6f2f9a10",
        "node_id": "search-3",
        "attempt": 1,
        "status": "ok",
        "latency_ms": 41.25,
        "tokens": {"prompt": 812, "completion": 64},
        "note": "",
    }
    missing = 1024 - len(encode_line(10**6, 10**15, orjson.dumps(payload)))
    return {**payload, "note": "n" * missing}


class Cell:
    """One measured run: records, seconds, and the groups they went in."""

    def __init__(self, records: int, seconds: float, groups: int, cpu: float = 0.0) -> None:
        self.rate = records / seconds
        self.group = records / max(groups, 1)
        self.cpu_us = cpu / records * 1e6


def run_journal(directory: Path, callers: int, seconds: float, batch: int = 1) -> Cell:
    """Tasks that each append, wait for the acknowledgement, and append again."""
    payload = make_payload()

    async def measure() -> Cell:
        with Journal(directory) as journal:
            stop = time.perf_counter() + seconds

            async def append() -> None:
                while time.perf_counter() < stop:
                    if batch == 1:
                        await journal.append(payload)
                    else:
                        await journal.append_many([payload] * batch)

            started, cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(append() for _ in range(callers)))
            took, cpu = time.perf_counter() - started, time.process_time() - cpu
            stats = journal.stats()
            return Cell(stats.appended, took, stats.groups, cpu)

    return uvloop.run(measure())


def run_threads(directory: Path, callers: int, seconds: float) -> Cell:
    """The same from threads."""
    payload = make_payload()
    with Journal(directory) as journal:
        stop = time.perf_counter() + seconds

        def append() -> None:
            while time.perf_counter() < stop:
                journal.append_sync(payload)

        threads = [threading.Thread(target=append) for _ in range(callers)]
        started, cpu = time.perf_counter(), time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took, cpu = time.perf_counter() - started, time.process_time() - cpu
        stats = journal.stats()
        return Cell(stats.appended, took, stats.groups, cpu)


def run_limit(directory: Path, group: int, seconds: float) -> Cell:
    """write + fdatasync of ready-made lines, nothing else."""
    data = encode_line(10**6, 10**15, encode_payload(make_payload(), 4096)) * group
    fd = os.open(directory / "limit", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        groups, started, cpu = 0, time.perf_counter(), time.process_time()
        while (took := time.perf_counter() - started) < seconds:
            os.write(fd, data)
            os.fdatasync(fd)
            groups += 1
        cpu = time.process_time() - cpu
    finally:
        os.close(fd)
    return Cell(groups * group, took, groups, cpu)


def run_sqlite(directory: Path, group: int, seconds: float) -> Cell:
    """One transaction per group, encoded payloads, the durable setting of WAL."""
    blob = encode_payload(make_payload(), 4096)
    database = sqlite3.connect(directory / "log.db", isolation_level=None)
    try:
        database.execute("pragma journal_mode=wal")
        database.execute("pragma synchronous=full")
        database.execute("create table log (seq integer primary key, t integer, payload blob)")
        groups, started = 0, time.perf_counter()
        while (took := time.perf_counter() - started) < seconds:
            rows = [(time.time_ns() // 1000, blob)] * group
            database.execute("begin")
            database.executemany("insert into log (t, payload) values (?, ?)", rows)
            database.execute("commit")
            groups += 1
    finally:
        database.close()
    return Cell(groups * group, took, groups)


def measure_replay(root: Path) -> dict[str, float]:
    """Records a second of `replay`, and of orjson.loads over the same bytes in memory."""
    payload = make_payload()
    with tempfile.TemporaryDirectory(dir=root) as made:
        with Journal(Path(made)) as journal:
            for _ in range(REPLAYED // 10_000):
                journal.append_many_sync([payload] * 10_000)
            ours: list[float] = []
            bare: list[float] = []
            near: list[float] = []
            for _ in range(3):
                started = time.perf_counter()
                count = sum(1 for _ in journal.replay())
                ours.append(count / (time.perf_counter() - started))
                started = time.perf_counter()
                count = 0
                for segment in journal.segments():
                    with segment.path.open("rb") as lines:
                        for line in lines:
                            orjson.loads(line)
                            count += 1
                bare.append(count / (time.perf_counter() - started))
                started = time.perf_counter()
                next(journal.replay(REPLAYED - 500))
                near.append((time.perf_counter() - started) * 1000)
        started = time.perf_counter()
        with Journal(Path(made)):
            opened = (time.perf_counter() - started) * 1000
    return {
        "replay_per_s": statistics.median(ours),
        "orjson_lines_per_s": statistics.median(bare),
        "replay_to_orjson": statistics.median(ours) / statistics.median(bare),
        "seek_ms": statistics.median(near),
        "open_ms": opened,
    }


def measure_appends(root: Path, seconds: float, rounds: int) -> list[dict[str, Any]]:
    """A row per kind and number of callers: medians over the rounds."""
    kinds: list[tuple[str, int, int, Callable[[Path, float], Cell]]] = []
    for callers in CALLERS:
        kinds.append(("tasks", callers, 1, lambda d, s, n=callers: run_journal(d, n, s)))
    kinds.append(("threads", 16, 1, lambda d, s: run_threads(d, 16, s)))
    for callers in (1, 4):
        kinds.append(
            ("batches", callers, BATCH, lambda d, s, n=callers: run_journal(d, n, s, BATCH))
        )
    rows: list[dict[str, Any]] = []
    for kind, callers, batch, run in kinds:
        cells: dict[str, list[Cell]] = {"journal": [], "limit": [], "sqlite": []}
        for _ in range(rounds):
            peers: dict[str, Callable[[Path, float], Cell]] = {
                "journal": run,
                "limit": lambda d, s, n=callers * batch: run_limit(d, n, s),
                "sqlite": lambda d, s, n=callers * batch: run_sqlite(d, n, s),
            }
            for name, peer in peers.items():
                with tempfile.TemporaryDirectory(dir=root) as made:
                    gc.collect()
                    cells[name].append(peer(Path(made), seconds))
        rate = {name: statistics.median(c.rate for c in found) for name, found in cells.items()}
        rows.append(
            {
                "kind": kind,
                "callers": callers,
                "batch": batch,
                "journal_per_s": rate["journal"],
                "limit_per_s": rate["limit"],
                "sqlite_per_s": rate["sqlite"],
                "to_limit": rate["journal"] / rate["limit"],
                "to_sqlite": rate["journal"] / rate["sqlite"],
                "mean_group": statistics.median(c.group for c in cells["journal"]),
                "cpu_us_per_record": statistics.median(c.cpu_us for c in cells["journal"]),
                "limit_cpu_us": statistics.median(c.cpu_us for c in cells["limit"]),
            }
        )
    return rows


def tabulate(rows: list[dict[str, Any]], replay: dict[str, float]) -> list[dict[str, Any]]:
    """The figures as the common rows of all benchmarks: ours beside a limit or a peer."""
    table: list[dict[str, Any]] = []
    for row in rows:
        name = f"durable records/s, {row['callers']} {row['kind']}"
        name += f" of {row['batch']}" if row["batch"] > 1 else ""
        for peer, key, ratio in (
            ("write + fdatasync", "limit_per_s", "to_limit"),
            ("SQLite WAL, FULL", "sqlite_per_s", "to_sqlite"),
        ):
            table.append(
                {
                    "figure": name,
                    "ours": row["journal_per_s"],
                    "peer": row[key],
                    "peer_name": peer,
                    "ratio": row[ratio],
                }
            )
    table.append(
        {
            "figure": "replay, records/s",
            "ours": replay["replay_per_s"],
            "peer": replay["orjson_lines_per_s"],
            "peer_name": "orjson.loads of the lines",
            "ratio": replay["replay_to_orjson"],
        }
    )
    return table


def main() -> None:
    """Measures, prints a table, writes JSON if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dir", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--seconds", type=float, default=1.0, help="per measured run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.dir) as made:
        root = Path(made)
        rows = measure_appends(root, args.seconds, args.rounds)
        replay = measure_replay(root)
    print("durable records/s, 1 KB each")
    print(
        f"{'callers':>16} {'journal':>9} {'limit':>9} {'SQLite':>9} "
        f"{'/limit':>7} {'/SQLite':>7} {'group':>7} {'CPU us':>7} {'limit':>6}"
    )
    for row in rows:
        name = f"{row['callers']} {row['kind']}"
        name += f" of {row['batch']}" if row["batch"] > 1 else ""
        print(
            f"{name:>16} {row['journal_per_s']:9.0f} {row['limit_per_s']:9.0f} "
            f"{row['sqlite_per_s']:9.0f} {row['to_limit']:7.2f} {row['to_sqlite']:7.2f} "
            f"{row['mean_group']:7.1f} {row['cpu_us_per_record']:7.1f} {row['limit_cpu_us']:6.1f}"
        )
    print(
        f"replay {replay['replay_per_s']:.0f} records/s = {replay['replay_to_orjson']:.2f} of bare "
        f"orjson over lines ({replay['orjson_lines_per_s']:.0f}); to a seq near the end "
        f"{replay['seek_ms']:.2f} ms; open {replay['open_ms']:.0f} ms ({REPLAYED} records)"
    )
    if args.json:
        host = {"cores": os.cpu_count()}
        result = {"bench": "journal", "host": host, "rows": tabulate(rows, replay)}
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
