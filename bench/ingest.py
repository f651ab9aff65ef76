"""Ingest over HTTP beside DuckDB's own `COPY … TO parquet` of the same CSV, in one run.

Ours is the whole way: the body over HTTP into ingestd, conversion in its worker with every
value checked and every row counted, Parquet into storaged (fsynced), the commit in catalogd.
Beside it stand, round by round:
- limit: `COPY (FROM read_csv('x.csv')) TO 'x.parquet'` in a DuckDB process of its own, which
  checks nothing and stores nothing durably;
- worker: the conversion alone, without HTTP, storage and catalogue.

Beside the seconds stand the processor's seconds of all processes taking part: on a machine
that others use too they say more than the clock.

`--large` adds a file of more than 2 GB, to show that memory does not grow with the file.
`--casts` compares ways to check that a cast loses nothing. `--lines` sends the same rows as
JSON lines, beside `COPY (FROM read_json('x.jsonl')) TO 'x.parquet'`. `--gib N` measures
nothing but memory: N GiB made on the fly and sent as they are made, beside 0.1 GiB, each to a
fleet of its own; the peaks are the kernel's (VmHWM), the shares sampled (PSS).

    python bench/ingest.py [--rows 500000] [--rounds 5] [--large] [--casts] [--lines]
                           [--gib N [--form csv|jsonl]] [--json FILE]
"""

from __future__ import annotations

import argparse
import csv
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.private_fleet import PrivateFleet
from scripts.staffing_data import write_workers
from services.ingestd.core.checks import MACROS, Target, convert_or
from services.ingestd.core.job import Job, Limits
from services.ingestd.core.options import Options

MiB = 1024 * 1024
TARGET = ">= 50 % of raw COPY, goal 80 %; <= 1,024 MiB"
MISFIT = "error('misfit')"
LARGE_BYTES = 2_200_000_000

# DuckDB in a process of its own, so that its memory and warmth are not ours.
RAW = """
import duckdb, json, resource, sys, time
connection = duckdb.connect(config={"threads": int(sys.argv[3])})
connection.execute("SET enable_progress_bar = false")
for line in sys.stdin:
    begun = time.perf_counter()
    reader = "read_json" if sys.argv[1].endswith(".jsonl") else "read_csv"
    connection.execute(f"COPY (FROM {reader}('{sys.argv[1]}')) TO '{sys.argv[2]}'")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([time.perf_counter() - begun, peak, time.process_time()]), flush=True)
"""


class RawCopy:
    """The limit: a warm DuckDB that copies the file when told to."""

    def __init__(self, source: Path, target: Path, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", RAW, str(source), str(target), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self) -> tuple[float, float, float]:
        """Seconds of one copy; peak resident MiB and processor's seconds so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        seconds, peak, processor = json.loads(self._process.stdout.readline())
        return seconds, peak, processor

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()


class WorkerAlone:
    """The conversion by itself, in a worker process as the daemon runs it."""

    def __init__(self, source: Path, folder: Path) -> None:
        self._source = source
        self._folder = folder
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "services.ingestd.worker",
                json.dumps({"memory_bytes": Limits().memory_bytes}),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self) -> tuple[float, dict[str, float]]:
        """Seconds of one conversion, and of each of its stages."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        work = Path(tempfile.mkdtemp(dir=self._folder))
        job = Job(str(self._source), str(work), "bench", Options(), None, Limits())
        begun = time.perf_counter()
        self._process.stdin.write(json.dumps(job.to_json()) + "\n")
        self._process.stdin.flush()
        while (event := json.loads(self._process.stdout.readline()))["event"] in (
            "stage",
            "progress",
        ):
            pass
        seconds = time.perf_counter() - begun
        shutil.rmtree(work)
        return seconds, event["outcome"]["seconds"]

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()


class MemoryWatch(threading.Thread):
    """The summed resident memory of a process and its children, at its highest."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._done = threading.Event()
        self.peak_mib = 0.0

    def run(self) -> None:
        """Looks twenty times a second."""
        while not self._done.wait(0.05):
            total = sum(resident_mib(pid) for pid in [self._pid, *children_of(self._pid)])
            self.peak_mib = max(self.peak_mib, total)

    def stop(self) -> float:
        """Ends the watch; gives the peak in MiB."""
        self._done.set()
        self.join()
        return self.peak_mib


def children_of(pid: int) -> list[int]:
    """The direct children of a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except OSError:
            continue
    return found


def processor_seconds(pids: list[int]) -> float:
    """Processor's seconds that processes and their children have used so far."""
    ticks = 0
    for pid in pids:
        for one in [pid, *children_of(pid)]:
            try:
                fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Resident memory of a process in MiB; 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / MiB


def post_file(url: str, dataset: str, source: Path) -> tuple[float, dict[str, Any]]:
    """Sends a file as curl does; gives the seconds until the answer, and the answer."""
    host, _, port = url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=3600)
    connection.blocksize = 256 * 1024
    with source.open("rb") as body:
        begun = time.perf_counter()
        connection.request(
            "POST",
            f"/ingest?dataset={dataset}",
            body=body,
            headers={"content-type": "application/octet-stream", "prefer": "wait=3600"},
        )
        response = connection.getresponse()
        answer = json.loads(response.read())
        seconds = time.perf_counter() - begun
    connection.close()
    if response.status != 200:
        raise RuntimeError(f"{response.status}: {answer}")
    return seconds, answer


def write_csv(path: Path, rows: int) -> int:
    """Staffing rows; gives the file's size."""
    with path.open("wb") as file:
        for piece in write_workers(rows):
            file.write(piece)
    return path.stat().st_size


def write_large(path: Path, source: Path) -> int:
    """The source's rows again and again, to more than 2 GB; gives the number of rows."""
    with source.open("rb") as file:
        header = file.readline()
        body = file.read()
    repeats = LARGE_BYTES // len(body) + 1
    with path.open("wb") as file:
        file.write(header)
        for _ in range(repeats):
            file.write(body)
    return repeats * body.count(b"\n")


def write_lines(path: Path, source: Path) -> None:
    """The rows of a CSV file as JSON lines: numbers and truth as such, nothing as null."""
    with source.open(newline="") as file, path.open("w") as target:
        for row in csv.DictReader(file):
            target.write(_write_line(row))


def _write_line(row: dict[str, str]) -> str:
    bare = ("years_experience", "hourly_rate", "rating", "active")
    members = (
        f"{json.dumps(name)}: " + ((value if name in bare else json.dumps(value)) or "null")
        if value
        else f"{json.dumps(name)}: null"
        for name, value in row.items()
    )
    return "{" + ", ".join(members) + "}\n"


def make_body(size: int, form: str) -> Iterator[bytes]:
    """About `size` bytes of rows, made as they are read; every block has other ids."""
    pieces = b"".join(write_workers(20_000))
    header, _, rows = pieces.partition(b"\n")
    if form == "jsonl":
        reader = csv.DictReader(pieces.decode().splitlines())
        rows = "".join(map(_write_line, reader)).encode()
    else:
        yield header + b"\n"
    for number in range(size // len(rows) + 1):
        yield rows.replace(b"W-", b"W%06d-" % number)


def read_peaks(pid: int) -> dict[str, float]:
    """The highest resident memory in MiB of a process and of each of its children, so far."""
    found: dict[str, float] = {}
    for one in [pid, *children_of(pid)]:
        try:
            status = Path(f"/proc/{one}/status").read_text()
        except OSError:
            continue
        lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        name = "daemon" if one == pid else f"worker {one}"
        found[name] = int(lines["VmHWM"].split()[0]) / 1024
    return found


def share_mib(pid: int) -> float:
    """The proportional share of memory (PSS) of a process and its children in MiB."""
    total = 0
    for one in [pid, *children_of(pid)]:
        try:
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line[:4] == "Pss:")
    return total / 1024


def send_made(size: int, form: str) -> dict[str, float]:
    """Sends so many bytes to a fresh fleet; gives seconds, rows and peaks."""
    sent = 0

    def counted() -> Iterator[bytes]:
        nonlocal sent
        for piece in make_body(size, form):
            sent += len(piece)
            yield piece

    with PrivateFleet(("storaged", "catalogd", "ingestd")) as fleet:
        pid = fleet.pid("ingestd")
        done = threading.Event()
        shares = [0.0]
        peaks: dict[str, float] = {}

        def watch() -> None:
            while not done.wait(0.5):
                shares.append(share_mib(pid))
                peaks.update(read_peaks(pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        host, _, port = fleet.urls["ingestd"].removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=3600)
        begun = time.perf_counter()
        try:
            connection.request(
                "POST",
                "/ingest?dataset=made",
                body=counted(),
                headers={"prefer": "wait=86400"},
                encode_chunked=True,
            )
            response = connection.getresponse()
            answer = json.loads(response.read())
            seconds = time.perf_counter() - begun
            peaks.update(read_peaks(pid))
        finally:
            done.set()
            watcher.join()
            connection.close()
        if response.status != 200 or answer["rows_in"] != answer["rows_out"]:
            raise RuntimeError(f"{response.status}: {answer}")
    worker = max(peak for name, peak in peaks.items() if name != "daemon")
    return {
        "bytes": sent,
        "rows": answer["rows_out"],
        "seconds": seconds,
        "daemon_mib": peaks["daemon"],
        "worker_mib": worker,
        "share_mib": max(shares),
    }


def measure_memory(gib: float, form: str) -> list[dict[str, Any]]:
    """Peaks at 0.1 GiB and at `gib`."""
    found = [send_made(int(size * 1024 * MiB), form) for size in (0.1, gib)]
    for one in found:
        print(
            f"{form}: {one['bytes'] / 1e9:6.2f} GB, {one['rows']:,} rows in "
            f"{one['seconds']:.1f} s, {one['bytes'] / 1e6 / one['seconds']:.1f} MB/s; "
            f"peak resident: daemon "
            f"{one['daemon_mib']:.0f} MiB, worker {one['worker_mib']:.0f} MiB; "
            f"peak share of both {one['share_mib']:.0f} MiB"
        )
    small, large = found
    return [
        {
            "figure": f"{form}, peak resident of the {name} at {gib:g} GiB, MiB",
            "ours": round(large[f"{name}_mib"]),
            "peer": round(small[f"{name}_mib"]),
            "peer_name": "the same at 0.1 GiB",
            "ratio": round(large[f"{name}_mib"] / small[f"{name}_mib"], 2),
            "target": "flat: <= 1,024 MiB",
        }
        for name in ("daemon", "worker")
    ]


def compare(
    source: Path, rows: int, rounds: int, folder: Path, fleet: PrivateFleet, label: str
) -> list[dict[str, Any]]:
    """Ours, the worker alone and the raw copy in turn; one row of results per comparison."""
    raw = RawCopy(source, folder / "raw.parquet", os.cpu_count() or 1)
    alone = WorkerAlone(source, folder)
    ours: list[float] = []
    limit: list[float] = []
    worker: list[float] = []
    stages: list[dict[str, float]] = []
    peak = raw_peak = used = raw_used = 0.0
    daemons = [fleet.pid(name) for name in ("storaged", "catalogd", "ingestd")]
    try:
        *_, raw_begun = raw.run()
        alone.run()
        post_file(fleet.urls["ingestd"], f"{label}_warm", source)
        for number in range(rounds):
            seconds, raw_peak, raw_used = raw.run()
            limit.append(seconds)
            seconds, by_stage = alone.run()
            worker.append(seconds)
            stages.append(by_stage)
            watch = MemoryWatch(fleet.pid("ingestd"))
            watch.start()
            before = processor_seconds(daemons)
            seconds, answer = post_file(fleet.urls["ingestd"], f"{label}_{number}", source)
            used += processor_seconds(daemons) - before
            peak = max(peak, watch.stop())
            ours.append(seconds)
            assert answer["rows_in"] == answer["rows_out"] == rows, answer
    finally:
        raw.close()
        alone.close()
    ratios = [theirs / mine for theirs, mine in zip(limit, ours, strict=True)]
    by_stage = {name: round(median(one.get(name, 0.0) for one in stages), 3) for name in stages[0]}
    print(f"{label}: {rows:,} rows, {source.stat().st_size / 1e6:,.0f} MB, {rounds} rounds")
    print(f"  raw COPY      {median(limit):7.3f} s   peak {raw_peak:6.0f} MiB")
    print(f"  worker alone  {median(worker):7.3f} s   {by_stage}")
    print(f"  over HTTP     {median(ours):7.3f} s   peak {peak:6.0f} MiB (daemon and workers)")
    used, raw_used = used / rounds, (raw_used - raw_begun) / rounds
    print(f"  processor     {used:7.3f} s   raw COPY {raw_used:.3f} s   {raw_used / used:.2f}")
    print(f"  ratio         {median(ratios):7.2f}     best round {max(ratios):.2f}")
    return [
        {
            "figure": f"{label}, {rows:,} rows over HTTP, s",
            "ours": round(median(ours), 3),
            "peer": round(median(limit), 3),
            "peer_name": "raw DuckDB COPY",
            "ratio": round(median(ratios), 2),
            "target": TARGET,
        },
        {
            "figure": f"{label}, conversion alone, s",
            "ours": round(median(worker), 3),
            "peer": round(median(limit), 3),
            "peer_name": "raw DuckDB COPY",
            "ratio": round(median(limit) / median(worker), 2),
        },
        {
            "figure": f"{label}, over HTTP, processor's seconds of three daemons and the worker",
            "ours": round(used, 3),
            "peer": round(raw_used, 3),
            "peer_name": "raw DuckDB COPY",
            "ratio": round(raw_used / used, 2),
        },
        {
            "figure": f"{label}, peak resident, MiB",
            "ours": round(peak),
            "peer": round(raw_peak),
            "peer_name": "raw DuckDB COPY",
            "ratio": round(peak / raw_peak, 2),
            "target": "<= 1,024 MiB",
        },
    ]


def compare_casts(source: Path, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Ways to convert the staffing rows, from unchecked to matched by pattern."""
    import duckdb

    header = source.open("rb").readline().decode().strip().split(",")
    kinds = duckdb.sql(f"DESCRIBE FROM read_csv('{source}')").fetchall()
    types = {name: kind for name, kind, *_ in kinds if kind != "VARCHAR"}
    columns = ", ".join(f"'{name}': 'VARCHAR'" for name in header)
    reader = (
        f"read_csv('{source}', auto_detect=false, header=true, delim=',', quote='\"', "
        f"escape='\"', columns={{{columns}}}, nullstr='', allow_quoted_nulls=false)"
    )

    def checked(name: str) -> str:
        if name not in types:
            return name
        kind = "DECIMAL(18,2)" if types[name] == "DOUBLE" else types[name]
        return f"{convert_or(Target(kind), name, MISFIT)} AS {name}"

    def matched(name: str) -> str:
        if name not in types:
            return name
        pattern = {
            "BIGINT": "-?(0|[1-9][0-9]{0,17})",
            "DOUBLE": r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,2})?",
            "DATE": "[0-9]{4}-[0-9]{2}-[0-9]{2}",
            "TIMESTAMP": "[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}(:[0-9]{2})?",
            "BOOLEAN": "true|false",
        }.get(types[name], ".*")
        return (
            f"CASE WHEN {name} IS NULL OR regexp_full_match({name}, '{pattern}') "
            f"THEN CAST({name} AS {types[name]}) ELSE {MISFIT} END AS {name}"
        )

    ways: dict[str, Callable[[str], str]] = {
        "text only": lambda name: name,
        "bare CAST": lambda n: f"CAST({n} AS {types[n]}) AS {n}" if n in types else n,
        "cast and compare (ours)": checked,
        "match a pattern": matched,
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            connection = duckdb.connect(config={"threads": os.cpu_count() or 1})
            for macro in MACROS:
                connection.execute(macro)
            begun = time.perf_counter()
            connection.execute(
                f"COPY (SELECT {', '.join(map(way, header))} FROM {reader}) "
                f"TO '{folder / 'casts.parquet'}' (FORMAT parquet, COMPRESSION zstd, "
                "COMPRESSION_LEVEL 1, ROW_GROUP_SIZE 61440)"
            )
            found[name].append(time.perf_counter() - begun)
            connection.close()
    ours = median(found["cast and compare (ours)"])
    rows: list[dict[str, Any]] = []
    for name, seconds in found.items():
        print(f"  {name:<26} {median(seconds):7.3f} s")
        if "ours" not in name:
            rows.append(
                {
                    "figure": "conversion with checked casts, s",
                    "ours": round(ours, 3),
                    "peer": round(median(seconds), 3),
                    "peer_name": name,
                    "ratio": round(median(seconds) / ours, 2),
                }
            )
    return rows


def main() -> int:
    """Runs the comparisons and prints them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--casts", action="store_true")
    parser.add_argument("--lines", action="store_true")
    parser.add_argument("--gib", type=float)
    parser.add_argument("--form", choices=("csv", "jsonl"), default="csv")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.gib:
        tell(measure_memory(arguments.gib, arguments.form), arguments.json)
        return 0
    folder = Path(tempfile.mkdtemp(prefix="lakehouse-bench-"))
    results: list[dict[str, Any]] = []
    try:
        source = folder / "staffing.csv"
        write_csv(source, arguments.rows)
        if arguments.casts:
            results += compare_casts(source, folder, arguments.rounds)
        with PrivateFleet(("storaged", "catalogd", "ingestd")) as fleet:
            results += compare(source, arguments.rows, arguments.rounds, folder, fleet, "staffing")
            if arguments.lines:
                lines = folder / "staffing.jsonl"
                write_lines(lines, source)
                results += compare(lines, arguments.rows, arguments.rounds, folder, fleet, "lines")
            if arguments.large:
                large = folder / "large.csv"
                rows = write_large(large, source)
                results += compare(large, rows, 1, folder, fleet, "large")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    tell(results, arguments.json)
    return 0


def tell(rows: list[dict[str, Any]], path: Path | None) -> None:
    """Writes the figures for the report, if they are asked for."""
    if path is not None:
        host = {"cpus": os.cpu_count()}
        path.write_text(json.dumps({"bench": "ingest", "host": host, "rows": rows}))


if __name__ == "__main__":
    sys.exit(main())
