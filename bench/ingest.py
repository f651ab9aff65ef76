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
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.ingest_memory import MemoryWatch, measure_memory, processor_seconds
from bench.ingest_rows import write_csv, write_large, write_lines
from scripts.private_fleet import PrivateFleet
from services.ingestd.core.checks import MACROS, Target, convert_or
from services.ingestd.core.job import Job, Limits
from services.ingestd.core.options import Options
from services.ingestd.store.workers import ENVIRONMENT

MiB = 1024 * 1024
TARGET = ">= 50 % of raw COPY, goal 80 %; <= 1,024 MiB"
MISFIT = "error('misfit')"

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
            env=ENVIRONMENT,
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
