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

With `--postgres` a server is started on the same disk, with its own settings but for the size of
its memory, and the commits and the processes are measured on it too, beside those on SQLite.

    python bench/catalogue.py [--commits 500] [--peer-commits 250] [--postgres] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import httpx
from pyiceberg.exceptions import CommitFailedException

from bench.catalogue_subjects import Limit, Ours, Plain, write_file
from scripts.private_fleet import PrivateFleet
from tests.support.postgres import Postgres

# Commits whose medians are compared: these, and as many at the end.
EARLY = slice(50, 100)
WINDOW = 50
TARGET = 1.5
SQLITE = "ours on SQLite"
# Folder that many processes commit to.
OWN = "many-ours"


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


def measure_latency(
    root: Path, commits: int, peer_commits: int, server: Postgres | None
) -> list[dict[str, Any]]:
    """Rows about one writer's commits."""
    ours, plain, limit = Ours(root / "ours"), Plain(root / "plain"), Limit(root / "limit")
    served = Ours(root / "served", server.uri(server.make_database())) if server else None
    remote: list[float] = []
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
        if served:
            remote.append(time_ms(lambda path=path: served.commit(path)))
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
        *measure_served(remote, mine),
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


def measure_served(remote: list[float], mine: list[float]) -> list[dict[str, Any]]:
    """Commits on the server beside the same ones on SQLite; nothing where there was none."""
    if not remote:
        return []
    parts = {"50-100": EARLY, f"{len(remote) - WINDOW}-{len(remote)}": slice(-WINDOW, None)}
    return [
        row(f"PostgreSQL: commit {name}, median ms", median(remote[n]), median(mine[n]), SQLITE)
        for name, n in parts.items()
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


def run_ours(
    root: str,
    paths: list[str],
    barrier: Any,
    results: Any,
    folder: str = "many-ours",
    uri: str = "",
) -> None:
    """A process that commits through catalogd's store."""
    ours = Ours(Path(root) / folder, uri)
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


def measure_processes(
    root: Path, processes: int, each: int, server: Postgres | None
) -> list[dict[str, Any]]:
    """Rows about many processes on one SQLite file, and on one server."""
    paths = [str(write_file(root, 100_000 + number)) for number in range(processes * each + 1)]
    first, rest = paths[0], paths[1:]
    parts = [rest[n * each : (n + 1) * each] for n in range(processes)]
    ours, plain = Ours(root / OWN), Plain(root / "many-plain")
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
    served = measure_served_processes(root, parts, server, name, done / seconds) if server else []
    return [
        {**row(f"{name}: acknowledged", done, peer_done, "pyiceberg"), "target": f"{len(rest)}"},
        {**row(f"{name}: lost or doubled", lost + doubled + refused, None, ""), "target": "0"},
        row(f"{name}: commits/s", done / seconds, peer_done / peer_seconds, "pyiceberg"),
        *served,
    ]


def measure_served_processes(
    root: Path, parts: list[list[str]], server: Postgres, name: str, on_sqlite: float
) -> list[dict[str, Any]]:
    """Rows about the same processes on a server, and their commits a second on SQLite."""
    show_progress(f"{name}, PostgreSQL")
    where = {"folder": "many-served", "uri": server.uri(server.make_database())}
    ours = Ours(root / where["folder"], where["uri"])
    done, refused, seconds = run_processes(partial(run_ours, **where), root, parts)
    present = [file.uri for file in ours.reader.list_files("workers", None).files]
    wanted = {f"file://{path}" for part in parts for path in part}
    wrong = len(wanted ^ set(present)) + len(present) - len(set(present)) + refused
    return [
        {**row(f"PostgreSQL, {name}: lost or doubled", wrong, None, ""), "target": "0"},
        row(f"PostgreSQL, {name}: commits/s", done / seconds, on_sqlite, SQLITE),
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
    parser.add_argument("--postgres", action="store_true", help="also on a PostgreSQL server")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    peer_commits = min(args.peer_commits, args.commits)
    with (
        tempfile.TemporaryDirectory(dir=args.dir) as made,
        Postgres(args.dir) if args.postgres else nullcontext() as server,
    ):
        root = Path(made)
        rows = measure_latency(root, args.commits, peer_commits, server)
        rows += measure_processes(root, args.processes, args.each, server)
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
