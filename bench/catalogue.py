"""Commits to the catalogue: latency over hundreds of appends, and many writers at once.

In the same run, commit by commit, stand:
- pyiceberg: its own SqlCatalog on SQLite with default settings, `add_files` of the same file;
- limit: what a durable commit costs on this disk at least, without any catalogue: a manifest,
  a manifest list and a metadata file of the sizes ours has, each written and fsynced, the
  directory fsynced, and one SQLite commit with synchronous=FULL.

Then `--processes` processes commit `--each` times to one dataset over one SQLite file, ours
and pyiceberg's (which gives up after four retries), and as many clients do so through a real
catalogd over a real storaged.

Flatness is asked of commits 450-500 and, with `--commits 2000`, of the last 50: their median
over that of commits 50-100. Beside it stand the limit's own growth in the same minutes, and the
growth of our processor time, which other programs' use of the disk does not touch.

    python bench/catalogue.py [--commits 500] [--peer-commits 250] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import platform
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
from prometheus_client import CollectorRegistry
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException

from scripts.private_fleet import PrivateFleet
from services.catalogd.core.ingests import Order
from services.catalogd.store.figures import Figures
from services.catalogd.store.pointers import Pointers
from services.catalogd.store.reader import Reader
from services.catalogd.store.rooms import build_rooms
from shared.wire.storaged import ObjectInfo

# Commits whose medians are compared: these, and as many at the end.
EARLY = slice(50, 100)
WINDOW = 50
TARGET = 1.5
KEEP = 100


def write_file(directory: Path, number: int) -> Path:
    """A small Parquet file of its own content."""
    path = directory / f"data-{number}.parquet"
    rows = [number * 10 + n for n in range(10)]
    table = pa.table(
        {
            "worker_id": pa.array(rows, pa.int64()),
            "name": [f"worker {row}" for row in rows],
            "city": ["Oslo"] * 10,
            "rate": [row / 2 for row in rows],
        }
    )
    pq.write_table(table, path)
    return path


class Ours:
    """catalogd's store on a folder."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        pointers = Pointers(f"sqlite:///{directory / 'catalogue.db'}")
        pointers.create_tables()
        self.figures = Figures(CollectorRegistry())
        rooms = build_rooms(pointers, f"file://{directory / 'warehouse'}", KEEP, self.figures)
        self.registrar = rooms.registrar
        self.reader: Reader = rooms.reader
        self.warehouse = directory / "warehouse"

    def commit(self, path: Path) -> None:
        """One register, from the object's footer to the durable pointer."""
        info = ObjectInfo(
            key=path.name,
            etag=f'"{path.name}"',
            size=path.stat().st_size,
            uri=f"file://{path}",
            last_modified="2026-01-01T00:00:00Z",
        )
        files = self.registrar.read_objects([info])
        objects = ((info.key, info.etag),)
        order = Order("workers", "append", False, path.name, None, None, objects)
        self.registrar.register(order, files, 600.0)


class Plain:
    """pyiceberg as it comes."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        uri = f"sqlite:///{directory / 'catalogue.db'}"
        self.catalog = SqlCatalog("plain", uri=uri, warehouse=f"file://{directory / 'warehouse'}")

    def create(self, path: Path) -> None:
        """Makes the table with the columns of a file."""
        self.catalog.create_namespace("plain")
        self.catalog.create_table("plain.workers", pq.read_schema(path))

    def commit(self, path: Path) -> None:
        """One add_files."""
        self.catalog.load_table("plain.workers").add_files([f"file://{path}"])

    def rows(self) -> int:
        """Rows of the table."""
        return self.catalog.load_table("plain.workers").scan().count()


class Limit:
    """The writes of a commit and nothing else."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.count = 0
        self.database = sqlite3.connect(directory / "limit.db", isolation_level=None)
        self.database.execute("pragma journal_mode=wal")
        self.database.execute("pragma synchronous=full")
        self.database.execute("create table pointers (id integer primary key, place text)")

    def commit(self, sizes: list[int]) -> None:
        """Files of these sizes, the directory, one row."""
        self.count += 1
        for position, size in enumerate(sizes):
            name = self.directory / f"{self.count}-{position}"
            fd = os.open(name, os.O_CREAT | os.O_WRONLY, 0o644)
            os.write(fd, b"x" * size)
            os.fsync(fd)
            os.close(fd)
        fd = os.open(self.directory, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        self.database.execute("begin immediate")
        self.database.execute("insert into pointers (place) values (?)", ("x" * 400,))
        self.database.execute("commit")


def time_ms(work: Callable[[], None]) -> float:
    """How long it takes, in milliseconds."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def measure_sizes(warehouse: Path) -> list[int]:
    """Bytes of the newest manifest, manifest list and metadata file."""
    newest: list[int] = []
    for pattern in ("*-m0.avro", "snap-*.avro", "*.metadata.json"):
        found = sorted(warehouse.rglob(pattern), key=lambda path: path.stat().st_mtime)
        newest.append(found[-1].stat().st_size)
    return newest


def measure_latency(root: Path, commits: int, peer_commits: int) -> list[dict[str, Any]]:
    """Rows about one writer's commits."""
    ours, plain, limit = Ours(root / "ours"), Plain(root / "plain"), Limit(root / "limit")
    mine: list[float] = []
    spent: list[float] = []
    theirs: list[float] = []
    bare: list[float] = []
    sizes: list[int] = []
    for number in range(commits):
        path = write_file(root, number)
        before = time.process_time()
        mine.append(time_ms(lambda path=path: ours.commit(path)))
        spent.append((time.process_time() - before) * 1000)
        if number == 0:
            plain.create(path)
        if number < peer_commits:
            theirs.append(time_ms(lambda path=path: plain.commit(path)))
        if number % WINDOW == 0:
            sizes = measure_sizes(ours.warehouse)
        bare.append(time_ms(lambda sizes=sizes: limit.commit(sizes)))
        show_progress(f"commit {number + 1}/{commits}")
    assert ours.reader.describe("workers").files == commits
    early, late = median(mine[EARLY]), median(mine[-WINDOW:])
    last_peer = f"pyiceberg, its commits {peer_commits - WINDOW}-{peer_commits}"
    peer_early, peer_late = median(theirs[EARLY]), median(theirs[-WINDOW:])
    return [
        row("commit 50-100, median ms", early, peer_early, "pyiceberg"),
        row(f"commit {commits - WINDOW}-{commits}, median ms", late, peer_late, last_peer),
        row(
            f"commit {commits - WINDOW}-{commits}, median ms",
            late,
            median(bare[-WINDOW:]),
            "bare fsyncs and SQLite commit",
        ),
        row("slowest of the last 50, ms", max(mine[-WINDOW:]), max(theirs[-WINDOW:]), last_peer),
        *[
            line
            for end in sorted({min(500, commits), commits})
            for line in measure_flatness(mine, spent, bare, end)
        ],
        row(
            "growth of the peer over its commits",
            None,
            peer_late / peer_early,
            last_peer + " over 50-100",
        ),
    ]


def measure_flatness(
    mine: list[float], spent: list[float], bare: list[float], end: int
) -> list[dict[str, Any]]:
    """How much the commits before `end` cost over the early ones: time, and processor time."""

    def growth(figures: list[float]) -> float:
        return median(figures[end - WINDOW : end]) / median(figures[EARLY])

    name = f"{end - WINDOW}-{end} over 50-100"
    return [
        # The limit's own growth in the same minutes tells how much of ours is the machine.
        {
            **row(f"flatness: {name}", growth(mine), growth(bare), "the limit's own"),
            "target": f"<= {TARGET}",
        },
        row(f"processor time: {name}", growth(spent), None, ""),
    ]


def run_ours(root: str, paths: list[str], barrier: Any, results: Any) -> None:
    """A process that commits through catalogd's store."""
    ours = Ours(Path(root) / "many-ours")
    barrier.wait()
    for path in paths:
        ours.commit(Path(path))
    results.put((len(paths), 0))


def run_plain(root: str, paths: list[str], barrier: Any, results: Any) -> None:
    """A process that commits through plain pyiceberg."""
    # Its retries are counted here; it need not tell of each.
    logging.getLogger("pyiceberg").setLevel(logging.ERROR)
    plain = Plain(Path(root) / "many-plain")
    barrier.wait()
    refused = 0
    for path in paths:
        try:
            plain.commit(Path(path))
        except CommitFailedException:
            refused += 1
    results.put((len(paths) - refused, refused))


def run_processes(
    target: Callable[..., None], root: Path, parts: list[list[str]]
) -> tuple[int, int, float]:
    """Acknowledged, refused, seconds."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(len(parts) + 1), context.Queue()
    processes = [
        context.Process(target=target, args=(str(root), part, barrier, results)) for part in parts
    ]
    for process in processes:
        process.start()
    barrier.wait()
    started = time.perf_counter()
    told = [results.get() for _ in parts]
    seconds = time.perf_counter() - started
    for process in processes:
        process.join()
    return sum(done for done, _ in told), sum(refused for _, refused in told), seconds


def measure_processes(root: Path, processes: int, each: int) -> list[dict[str, Any]]:
    """Rows about many processes on one SQLite file."""
    paths = [str(write_file(root, 100_000 + number)) for number in range(processes * each + 1)]
    first, rest = paths[0], paths[1:]
    parts = [rest[n * each : (n + 1) * each] for n in range(processes)]
    ours, plain = Ours(root / "many-ours"), Plain(root / "many-plain")
    ours.commit(Path(first))
    plain.create(Path(first))
    show_progress(f"{processes} processes, ours")
    done, refused, seconds = run_processes(run_ours, root, parts)
    present = ours.reader.list_files("workers", None).files
    uris = {file.uri for file in present}
    lost = sum(f"file://{path}" not in uris for path in rest)
    doubled = len(present) - len(uris)
    show_progress(f"{processes} processes, pyiceberg")
    peer_done, _, peer_seconds = run_processes(run_plain, root, parts)
    name = f"{processes} processes x {each}"
    return [
        {**row(f"{name}: acknowledged", done, peer_done, "pyiceberg"), "target": f"{len(rest)}"},
        {**row(f"{name}: lost or doubled", lost + doubled + refused, None, ""), "target": "0"},
        row(f"{name}: commits/s", done / seconds, peer_done / peer_seconds, "pyiceberg"),
    ]


def measure_daemon(clients: int, each: int) -> list[dict[str, Any]]:
    """Rows about clients of a real catalogd at its own port."""
    show_progress("clients of a real catalogd")
    taken: list[float] = []
    with PrivateFleet(("storaged", "catalogd")) as fleet, tempfile.TemporaryDirectory() as folder:
        storage = f"{fleet.urls['storaged']}/storage/objects"
        catalog = f"{fleet.urls['catalogd']}/catalog/datasets"

        def work(client_number: int) -> None:
            with httpx.Client(trust_env=False, timeout=120) as client:
                for number in range(each):
                    key = f"bench/{client_number}-{number}"
                    path = write_file(Path(folder), client_number * each + number)
                    client.put(f"{storage}/{key}", content=path.read_bytes()).raise_for_status()
                    body = {"name": "workers", "objects": [key]}
                    started = time.perf_counter()
                    client.post(catalog, json=body).raise_for_status()
                    taken.append((time.perf_counter() - started) * 1000)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - started
        files = httpx.get(f"{catalog}/workers/files", trust_env=False, timeout=60).json()["files"]
    assert len({file["uri"] for file in files}) == len(files) == clients * each
    name = f"{clients} clients x {each} at the port"
    return [
        {**row(f"{name}: acknowledged", len(taken), None, ""), "target": f"{clients * each}"},
        row(f"{name}: registers/s with upload", len(taken) / seconds, None, ""),
        row(f"{name}: register, median ms", median(taken), None, ""),
    ]


def row(figure: str, ours: float | None, peer: float | None, name: str) -> dict[str, Any]:
    """One line of the report; the ratio is ours to the peer's."""
    ratio = ours / peer if ours is not None and peer else None
    return {"figure": figure, "ours": ours, "peer": peer, "peer_name": name, "ratio": ratio}


def show_progress(text: str) -> None:
    """What is being done, on a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{text:<60}")


def main() -> None:
    """Measures, prints a table, writes JSON if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dir", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--commits", type=int, default=500, help="of one writer; at least 150")
    parser.add_argument("--peer-commits", type=int, default=250, help="of pyiceberg's, likewise")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--each", type=int, default=50, help="commits of each process")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    peer_commits = min(args.peer_commits, args.commits)
    with tempfile.TemporaryDirectory(dir=args.dir) as made:
        root = Path(made)
        rows = measure_latency(root, args.commits, peer_commits)
        rows += measure_processes(root, args.processes, args.each)
    rows += measure_daemon(args.processes, args.each)
    show_progress("")
    print(f"{'':<44} {'ours':>9} {'beside':>9} {'ratio':>7}")
    for line in rows:
        figures = (line["ours"], line["peer"], line["ratio"])
        shown = [f"{figure:.2f}" if figure is not None else "" for figure in figures]
        target = f"  asked {line['target']}" if "target" in line else ""
        print(
            f"{line['figure']:<44} {shown[0]:>9} {shown[1]:>9} {shown[2]:>7}  "
            f"{line['peer_name']}{target}"
        )
    if args.json:
        host = {"cores": os.cpu_count(), "python": platform.python_version()}
        result = {"bench": "catalogue", "host": host, "rows": rows}
        args.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
