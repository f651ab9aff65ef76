"""TPC-H through queryd beside DuckDB in this process, on the same Parquet files.

All 22 queries in turn, each by queryd at its own port (Arrow) and by DuckDB here with as many
threads, in alternating rounds; every answer of the first round is held against the published
one. A figure is the median over the rounds; sums are of medians.

    python bench/tpch.py [--scale 1] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import duckdb
import httpx
import pyarrow as pa

from scripts.private_fleet import PrivateFleet
from tests.support import tpch

THREADS = 2
ARROW = {"accept": "application/vnd.apache.arrow.stream"}


def load(fleet: PrivateFleet, tables: dict[str, Path]) -> None:
    """Stores and registers the tables."""
    with httpx.Client(timeout=300) as client:
        for name, path in tables.items():
            key = f"tpch/{name}.parquet"
            url = f"{fleet.urls['storaged']}/storage/objects/{key}"
            with path.open("rb") as file:
                client.put(url, content=file).raise_for_status()
            body = {"name": name, "objects": [key], "ingest_id": f"tpch-{name}"}
            url = f"{fleet.urls['catalogd']}/catalog/datasets"
            client.post(url, json=body).raise_for_status()


def ask(client: httpx.Client, sql: str) -> tuple[float, pa.Table]:
    """Seconds and rows of one query by queryd."""
    begun = time.perf_counter()
    answer = client.post("/sql", json={"sql": sql}, headers=ARROW).raise_for_status()
    table = pa.ipc.open_stream(io.BytesIO(answer.content)).read_all()
    return time.perf_counter() - begun, table


def run_inside(tables: dict[str, Path], sql: str) -> float:
    """Seconds of one query by DuckDB here; the connection and its views are not counted."""
    with duckdb.connect(config={"threads": THREADS}) as connection:
        for name, path in tables.items():
            connection.execute(f"CREATE VIEW {name} AS FROM read_parquet('{path}')")
        begun = time.perf_counter()
        connection.execute(sql).to_arrow_table()
        return time.perf_counter() - begun


def measure(fleet: PrivateFleet, tables: dict[str, Path], scale: float, rounds: int) -> list[Any]:
    """Rows of the report."""
    queries, answers = tpch.load_queries(), tpch.load_answers(scale)
    mine: dict[int, list[float]] = {number: [] for number in queries}
    other: dict[int, list[float]] = {number: [] for number in queries}
    wrong: list[int] = []
    with httpx.Client(base_url=fleet.urls["queryd"], timeout=300) as client:
        for turn in range(rounds + 1):
            for number, sql in queries.items():
                took, table = ask(client, sql)
                inside = run_inside(tables, sql)
                if turn:  # the first round warms everything up
                    mine[number].append(took)
                    other[number].append(inside)
                    continue
                found = [tuple(row.values()) for row in table.to_pylist()]
                if reason := tpch.find_difference(table.column_names, found, answers[number]):
                    wrong.append(number)
                    print(f"query {number}: {reason}")
    rows: list[dict[str, Any]] = [
        {
            "figure": "right answers",
            "ours": len(queries) - len(wrong),
            "peer": len(answers),
            "peer_name": "published",
            "target": "22",
        }
    ]
    medians = [(statistics.median(mine[n]), statistics.median(other[n])) for n in queries]
    ratios = [ours / peer for ours, peer in medians]
    rows.append(make_row("all queries, s", sum(m for m, _ in medians), sum(p for _, p in medians)))
    rows.append(make_row("median ratio of a query", statistics.median(ratios), 1.0))
    rows += [make_row(f"query {n}, s", m, p) for n, (m, p) in zip(queries, medians, strict=True)]
    return rows


def make_row(figure: str, ours: float, peer: float) -> dict[str, Any]:
    """A row beside DuckDB in this process."""
    name = "DuckDB in process"
    return {"figure": figure, "ours": ours, "peer": peer, "peer_name": name, "ratio": ours / peer}


def main() -> None:
    """Measures, prints a table, writes JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, choices=(0.01, 0.1, 1.0))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    settings = {"QUERYD__WORKER_THREADS": str(THREADS), "LOG__LEVEL": "warning"}
    names = ("gateway", "storaged", "catalogd", "queryd")
    with tempfile.TemporaryDirectory(prefix="bench-tpch-") as made:
        tables = tpch.write_tables(Path(made), args.scale)
        with PrivateFleet(names, settings) as fleet:
            load(fleet, tables)
            rows = measure(fleet, tables, args.scale, args.rounds)
    for row in rows:
        print(
            f"{row['figure']:28} {row['ours']:9.3f} {row['peer']:9.3f} {row.get('ratio', 1):6.2f}"
        )
    if args.json:
        host = {"cores": os.cpu_count(), "python": platform.python_version()}
        body = {"bench": "tpch", "host": host, "rows": rows}
        args.json.write_text(json.dumps(body, indent=2) + "\n")


if __name__ == "__main__":
    main()
