"""Upsert by key over HTTP beside DuckDB doing the same to a file of its own, in one run.

A table of `--rows` staffing rows; then, round by round, `--changed` of them with other values.
Ours is the whole way: the body over HTTP into ingestd, conversion, the keys looked for in the
table's files, those rewritten, stored with fsync, one commit. Beside it stands, in a process of
its own, DuckDB's anti-join and `COPY … TO parquet` of the same rows, which checks nothing, keeps
no snapshot and makes nothing durable.

Changed rows are spread over the whole table (every file is rewritten) or, as `near`, lie next
to each other, so that most files stay as they are.

`--progress` instead compares ingests of the file as a request and as a job that is followed, for
what the telling of progress costs.

    python bench/upsert.py [--rows 1000000] [--changed 10000] [--rounds 5] [--parts 4] [--json FILE]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.ingest import MemoryWatch, write_csv
from scripts.private_fleet import PrivateFleet

KEY = "worker_id"
TARGET = ">= 25 % of DuckDB's anti-join and COPY"

# DuckDB in a process of its own: the table in one file, the changes as CSV.
RAW = """
import duckdb, json, sys, time
connection = duckdb.connect(config={"threads": int(sys.argv[2])})
connection.execute("SET enable_progress_bar = false")
table, key = sys.argv[1], sys.argv[3]
for line in sys.stdin:
    changes, target = json.loads(line)
    begun = time.perf_counter()
    connection.execute(f"CREATE OR REPLACE TEMP TABLE c AS FROM read_csv('{changes}')")
    connection.execute(
        f"COPY (SELECT t.* FROM read_parquet('{table}') t ANTI JOIN c USING ({key}) "
        f"UNION ALL BY NAME FROM c) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
    )
    print(json.dumps(time.perf_counter() - begun), flush=True)
    table = target
"""


class RawUpsert:
    """The limit: a warm DuckDB that rewrites its one file when told to."""

    def __init__(self, table: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", RAW, str(table), str(os.cpu_count() or 1), KEY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, changes: Path, target: Path) -> float:
        """Seconds of one upsert."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(changes), str(target)]) + "\n")
        self._process.stdin.flush()
        return float(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()


def send(url: str, query: str, source: Path, headers: dict[str, str] | None = None) -> Any:
    """Sends a file as curl does; gives the answer."""
    host, _, port = url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=3600)
    connection.blocksize = 256 * 1024
    with source.open("rb") as body:
        given = {"content-type": "text/csv", "prefer": "wait=3600", **(headers or {})}
        connection.request("POST", f"/ingest?{query}", body=body, headers=given)
        response = connection.getresponse()
        answer = json.loads(response.read())
    connection.close()
    if response.status not in (200, 202):
        raise RuntimeError(f"{response.status}: {answer}")
    return answer


def follow(url: str, job_id: str) -> int:
    """Reads a job's events to their end; gives how many there were."""
    host, _, port = url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=3600)
    connection.request("GET", f"/ingest/jobs/{job_id}/events")
    events = connection.getresponse().read().count(b"event: ")
    connection.close()
    return events


def split(source: Path, folder: Path, parts: int) -> Iterator[Path]:
    """The file's rows in order in so many files."""
    lines = source.read_bytes().splitlines(keepends=True)
    header, rows = lines[0], lines[1:]
    size = -(-len(rows) // parts)
    for number in range(parts):
        path = folder / f"part-{number}.csv"
        path.write_bytes(header + b"".join(rows[number * size : (number + 1) * size]))
        yield path


def write_changes(path: Path, lines: Sequence[bytes], chosen: Sequence[int], salt: int) -> None:
    """Rows of the table with another last column, so that each round is another file."""
    with path.open("wb") as file:
        file.write(lines[0])
        for number in chosen:
            file.write(lines[1 + number])
        # A row of a new key tells rounds apart.
        _, _, rest = lines[1].partition(b",")
        file.write(b"%d," % (900_000_000 + salt) + rest)


def compare(
    url: str, source: Path, folder: Path, arguments: argparse.Namespace, fleet: PrivateFleet
) -> list[dict[str, Any]]:
    """Ours and DuckDB's in turn, for changes far and wide and for near ones."""
    import duckdb

    for path in split(source, folder, arguments.parts):
        send(url, "dataset=bench", path)
    plain = folder / "table.parquet"
    duckdb.sql(f"COPY (FROM read_csv('{source}')) TO '{plain}' (FORMAT parquet, COMPRESSION zstd)")
    lines = source.read_bytes().splitlines(keepends=True)
    rows = len(lines) - 1
    dice = random.Random(7)
    found: list[dict[str, Any]] = []
    salt = 0
    for label in ("spread", "near"):
        raw = RawUpsert(plain)
        ours: list[float] = []
        limit: list[float] = []
        peak = 0.0
        for number in range(arguments.rounds + 1):
            start = dice.randrange(rows - arguments.changed)
            chosen = (
                sorted(dice.sample(range(rows), arguments.changed))
                if label == "spread"
                else range(start, start + arguments.changed)
            )
            salt += 1
            changes = folder / "changes.csv"
            write_changes(changes, lines, list(chosen), salt)
            theirs = raw.run(changes, folder / f"{label}-{number % 2}.parquet")
            watch = MemoryWatch(fleet.pid("ingestd"))
            watch.start()
            begun = time.perf_counter()
            answer = send(url, f"dataset=bench&mode=upsert&key={KEY}", changes)
            seconds = time.perf_counter() - begun
            peak = max(peak, watch.stop())
            assert (answer["updated"], answer["inserted"]) == (arguments.changed, 1), answer
            if number:  # the first warms both
                ours.append(seconds)
                limit.append(theirs)
        raw.close()
        ratio = median(their / mine for their, mine in zip(limit, ours, strict=True))
        print(f"{label}: {arguments.changed:,} of {rows:,} rows, {arguments.parts} files")
        print(f"  DuckDB      {median(limit):7.3f} s")
        print(f"  over HTTP   {median(ours):7.3f} s   peak {peak:5.0f} MiB (daemon and workers)")
        print(f"  ratio       {ratio:7.2f}")
        found.append(
            {
                "figure": f"{arguments.changed:,} {label} rows into {rows:,} over HTTP, s",
                "ours": round(median(ours), 3),
                "peer": round(median(limit), 3),
                "peer_name": "DuckDB anti-join and COPY",
                "ratio": round(ratio, 2),
                "target": TARGET,
            }
        )
    return found


def compare_progress(url: str, source: Path, rounds: int) -> list[dict[str, Any]]:
    """The same file as a request and as a job that is followed."""
    plain: list[float] = []
    followed: list[float] = []
    events = 0
    send(url, "dataset=warm", source)
    for number in range(rounds):
        begun = time.perf_counter()
        send(url, f"dataset=plain_{number}", source)
        plain.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        headers = {"prefer": "respond-async"}
        job = send(url, f"dataset=job_{number}", source, headers)
        events = follow(url, job["job_id"])
        followed.append(time.perf_counter() - begun)
    print(f"as a request  {median(plain):7.3f} s")
    print(f"as a job      {median(followed):7.3f} s   {events} events")
    return [
        {
            "figure": "ingest as a job that is followed, s",
            "ours": round(median(followed), 3),
            "peer": round(median(plain), 3),
            "peer_name": "the same as a request",
            "ratio": round(median(plain) / median(followed), 2),
        }
    ]


def main() -> int:
    """Runs the comparisons and prints them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--changed", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--progress", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lakehouse-bench-"))
    try:
        source = folder / "staffing.csv"
        write_csv(source, arguments.rows)
        with PrivateFleet(("storaged", "catalogd", "ingestd")) as fleet:
            url = fleet.urls["ingestd"]
            if arguments.progress:
                results = compare_progress(url, source, arguments.rounds)
            else:
                results = compare(url, source, folder, arguments, fleet)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if arguments.json:
        host = {"cpus": os.cpu_count()}
        arguments.json.write_text(json.dumps({"bench": "upsert", "host": host, "rows": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
