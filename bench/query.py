"""Queries over HTTP beside DuckDB in this process, on the same Parquet files.

- 3 M rows of ten mixed columns, and of three numbers, in Arrow at queryd's own port and at the
  gateway's. The peer is DuckDB in this process with as many threads, its rows read to the end
  as Arrow batches: once in batches as queryd makes them, once in those it makes by itself.
- The same rows as NDJSON, beside DuckDB writing JSON lines of them to memory.
- The same rows as CSV and as Parquet, beside DuckDB's COPY to a file.
- 100,000 rows as one JSON body, beside fetchall and json.dumps in this process.
- `SELECT count(*)` by one client, beside DuckDB in this process, connection included.

Rounds alternate; figures are medians of seconds (smaller is better), so is each ratio.

    python bench/query.py [--rows 3000000] [--rounds 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import duckdb
import pyarrow as pa

from scripts.private_fleet import PrivateFleet

THREADS = 2
ARROW = "application/vnd.apache.arrow.stream"
NDJSON = "application/x-ndjson"
JSON = "application/json"
# By DuckDB's name of the format, with what its COPY is told.
FILES = {
    "csv": ("text/csv", "FORMAT csv"),
    "parquet": ("application/vnd.apache.parquet", "FORMAT parquet, COMPRESSION zstd"),
}
# What queryd's workers make of these tables.
BATCH = {"staff": 6144, "figures": 43008}
TABLES = {
    "staff": """
        SELECT i::BIGINT AS worker_id, 'Worker ' || hash(i) % 1000000 AS name,
            ['Welder', 'Forklift Operator', 'Nurse', 'Accountant', 'Warehouse Associate',
             'Electrician', 'Driver'][1 + (hash(i * 7) % 7)::INTEGER] AS role,
            ['Oslo', 'Chicago', 'Austin', 'Detroit', 'Boston', 'Denver', 'Seattle',
             'Portland'][1 + (hash(i * 11) % 8)::INTEGER] AS city,
            ['IL', 'TX', 'MI', 'MA', 'CO', 'WA', 'OR'][1 + (hash(i * 13) % 7)::INTEGER] AS state,
            (15 + hash(i * 17) % 6000 / 100)::DECIMAL(10, 2) AS hourly_rate,
            DATE '2015-01-01' + (hash(i * 19) % 3600)::INTEGER AS hired_on,
            TIMESTAMP '2024-01-01' + to_seconds((hash(i * 23) % 30000000)::BIGINT) AS updated_at,
            (hash(i * 29) % 100000) / 1000 AS score, hash(i * 31) % 2 = 0 AS active""",
    "figures": "SELECT i::BIGINT AS id, i * 2 AS twice, i / 3 AS third",
}


class Server:
    """One daemon's address, and requests to it on connections of their own."""

    def __init__(self, url: str, prefix: str = "") -> None:
        self.address = url.removeprefix("http://")
        self.prefix = prefix

    def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self.address, timeout=120)
        connection.request(method, self.prefix + path, body, headers or {})
        response = connection.getresponse()
        if response.status >= 300:
            raise RuntimeError(f"{method} {path}: {response.status} {response.read(500)!r}")
        return response

    def sql(self, sql: str, accept: str, **body: Any) -> http.client.HTTPResponse:
        sent = json.dumps({"sql": sql, **body}).encode()
        headers = {"content-type": "application/json", "accept": accept}
        return self.request("POST", "/sql", sent, headers)


def count_rows(batches: Any) -> int:
    """Reads Arrow batches to the end."""
    return sum(batch.num_rows for batch in batches)


def count_bytes(response: http.client.HTTPResponse) -> int:
    """Reads an answer to the end."""
    buffer, length = bytearray(1 << 20), 0
    while count := response.readinto(buffer):
        length += count
    return length


def load_tables(fleet: PrivateFleet, rows: int, folder: Path) -> dict[str, list[str]]:
    """Stores and registers the tables in four files each; gives their paths by table."""
    storaged, catalogd = Server(fleet.urls["storaged"]), Server(fleet.urls["catalogd"])
    paths: dict[str, list[str]] = {}
    for name, sql in TABLES.items():
        keys: list[str] = []
        for part in range(4):
            path = folder / f"{name}-{part}.parquet"
            first, last = rows * part // 4, rows * (part + 1) // 4
            duckdb.execute(
                f"COPY ({sql} FROM range({first}, {last}) AS t(i)) TO '{path}' "
                "(FORMAT parquet, COMPRESSION zstd)"
            )
            keys.append(f"datasets/{name}/{part}.parquet")
            storaged.request("PUT", f"/storage/objects/{keys[-1]}", path.read_bytes()).read()
        body = json.dumps({"name": name, "objects": keys}).encode()
        headers = {"content-type": "application/json"}
        catalogd.request("POST", "/catalog/datasets", body, headers).read()
        answer = catalogd.request("GET", f"/catalog/datasets/{name}/files").read()
        paths[name] = [f["uri"].removeprefix("file://") for f in json.loads(answer)["files"]]
    return paths


def source(paths: list[str]) -> str:
    """The files as queryd reads them."""
    return f"read_parquet({paths}, union_by_name => true)"


def clock(work: Callable[[], int], expected: int) -> float:
    """Seconds that `work` takes to give the count it must give."""
    begun = time.perf_counter()
    count = work()
    took = time.perf_counter() - begun
    if count != expected:
        raise RuntimeError(f"{count} instead of {expected}")
    return took


def run_inside(sql: str, batch: int) -> int:
    """Rows of a query by DuckDB in this process, read as Arrow batches."""
    with duckdb.connect(config={"threads": THREADS}) as connection:
        return count_rows(connection.execute(sql).to_arrow_reader(batch))


def write_lines_inside(sql: str) -> int:
    """Bytes of a query's rows as JSON lines, by DuckDB in this process."""
    with duckdb.connect(config={"threads": THREADS}) as connection:
        text = connection.execute(f"SELECT to_json(t)::VARCHAR || chr(10) FROM ({sql}) t")
        return sum(batch.nbytes > 0 for batch in text.to_arrow_reader(BATCH["staff"])) and 1


def write_body_inside(sql: str) -> int:
    """Whether a query's rows make one JSON body, the way of a plain service."""
    with duckdb.connect(config={"threads": THREADS}) as connection:
        return json.dumps(connection.execute(sql).fetchall(), default=str)[0] == "["


def copy_inside(sql: str, path: Path, told: str) -> int:
    """Rows of a query that DuckDB in this process writes to a file."""
    with duckdb.connect(config={"threads": THREADS}) as connection:
        row = connection.execute(f"COPY ({sql}) TO '{path}' ({told})").fetchone()
        return row[0] if row else -1


def count_inside(paths: list[str]) -> int:
    """`count(*)` by a new DuckDB in this process."""
    with duckdb.connect(config={"threads": THREADS}) as connection:
        row = connection.execute(f"SELECT count(*) FROM {source(paths)}").fetchone()
        return row[0] if row else -1


class Samples:
    """Seconds by figure and subject."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], list[float]] = {}

    def note(self, figure: str, subject: str, seconds: float) -> None:
        self.found.setdefault((figure, subject), []).append(seconds)

    def row(self, figure: str, ours: str, peer: str, target: str = "") -> dict[str, Any]:
        mine = statistics.median(self.found[figure, ours])
        other = statistics.median(self.found[figure, peer])
        return {
            "figure": f"{figure}, {ours}, s",
            "ours": mine,
            "peer": other,
            "peer_name": peer,
            "ratio": mine / other,
            "target": target,
        }


def measure(fleet: PrivateFleet, rows: int, rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Rows of the report, all subjects in turn in every round."""
    paths = load_tables(fleet, rows, folder)
    ours = {"3214": Server(fleet.urls["queryd"]), "3110": Server(fleet.urls["gateway"], "/v1")}
    samples = Samples()
    for number in range(rounds + 1):
        kept = samples if number else Samples()  # the first round warms everything up
        measure_arrow(kept, ours, paths, rows)
        measure_text(kept, ours["3214"], paths["staff"], rows)
        measure_files(kept, ours["3214"], paths["staff"], rows, folder)
    measure_small(samples, ours["3214"], paths["staff"], rows)
    report: list[dict[str, Any]] = []
    for name in TABLES:
        for port, target in (("3214", "≤ 1.15"), ("3110", "≤ 1.5")):
            for peer in ("DuckDB, same batches", "DuckDB, its own batches"):
                asked = target if name == "staff" else ""
                report.append(samples.row(f"Arrow, {rows:,} rows of {name}", port, peer, asked))
    report.append(samples.row(f"NDJSON, {rows:,} rows of staff", "3214", "DuckDB to_json"))
    for name in FILES:
        figure = f"{name}, {rows:,} rows of staff"
        report.append(samples.row(figure, "3214", "DuckDB COPY"))
    report.append(samples.row("JSON, 100,000 rows of staff", "3214", "fetchall, json.dumps"))
    figure = "count(*), one client, p50"
    report.append(samples.row(figure, "3214", "DuckDB, new connection", "≤ 0.015 s"))
    p99 = statistics.quantiles(samples.found[figure, "3214"], n=100)[98]
    report.append({"figure": "count(*), one client, p99, 3214, s", "ours": p99})
    return report


def measure_arrow(
    samples: Samples, ours: dict[str, Server], paths: dict[str, list[str]], rows: int
) -> None:
    """All rows of each table in Arrow."""
    for name in TABLES:
        figure, sql = f"Arrow, {rows:,} rows of {name}", f"SELECT * FROM {source(paths[name])}"
        for port, server in ours.items():
            samples.note(
                figure,
                port,
                clock(
                    lambda server=server, name=name: count_rows(
                        pa.ipc.open_stream(server.sql(f"SELECT * FROM {name}", ARROW))
                    ),
                    rows,
                ),
            )
        for peer, batch in (
            ("DuckDB, same batches", BATCH[name]),
            ("DuckDB, its own batches", 1_000_000),
        ):
            took = clock(lambda sql=sql, batch=batch: run_inside(sql, batch), rows)
            samples.note(figure, peer, took)


def measure_text(samples: Samples, server: Server, paths: list[str], rows: int) -> None:
    """Rows as JSON lines and as one body."""
    figure = f"NDJSON, {rows:,} rows of staff"
    took = clock(lambda: count_bytes(server.sql("FROM staff", NDJSON)) > rows, True)
    samples.note(figure, "3214", took)
    took = clock(lambda: write_lines_inside(f"SELECT * FROM {source(paths)}"), 1)
    samples.note(figure, "DuckDB to_json", took)
    figure, some = "JSON, 100,000 rows of staff", min(rows, 100_000)
    took = clock(
        lambda: json.loads(server.sql("FROM staff", JSON, max_rows=some).read())["row_count"], some
    )
    samples.note(figure, "3214", took)
    took = clock(lambda: write_body_inside(f"FROM {source(paths)} LIMIT {some}"), True)
    samples.note(figure, "fetchall, json.dumps", took)


def measure_files(
    samples: Samples, server: Server, paths: list[str], rows: int, folder: Path
) -> None:
    """All rows in the formats that are kept as files."""
    for name, (accept, told) in FILES.items():
        figure = f"{name}, {rows:,} rows of staff"
        took = clock(lambda a=accept: count_bytes(server.sql("FROM staff", a)) > rows, True)
        samples.note(figure, "3214", took)
        sql, path = f"SELECT * FROM {source(paths)}", folder / f"copy.{name}"
        took = clock(lambda s=sql, p=path, t=told: copy_inside(s, p, t), rows)
        samples.note(figure, "DuckDB COPY", took)


def measure_small(samples: Samples, server: Server, paths: list[str], rows: int) -> None:
    """Many counts, one after the other."""
    figure = "count(*), one client, p50"
    for _ in range(200):
        took = clock(
            lambda: json.loads(server.sql("SELECT count(*) FROM staff", JSON).read())["rows"][0][0],
            rows,
        )
        samples.note(figure, "3214", took)
        samples.note(figure, "DuckDB, new connection", clock(lambda: count_inside(paths), rows))


def main() -> None:
    """Measures, prints a table, writes JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    settings = {"QUERYD__WORKER_THREADS": str(THREADS), "LOG__LEVEL": "warning"}
    with tempfile.TemporaryDirectory(prefix="bench-query-") as made:  # noqa: SIM117
        with PrivateFleet(settings=settings) as fleet:
            rows = measure(fleet, args.rows, args.rounds, Path(made))
    print(f"{'':44} {'ours':>8} {'other':>8} {'ratio':>6}")
    for row in rows:
        print(
            f"{row['figure']:44} {row['ours']:8.4f} {row.get('peer', 0):8.4f} "
            f"{row.get('ratio', 0):6.2f}  {row.get('peer_name', '')} {row.get('target', '')}"
        )
    if args.json:
        host = {"cores": os.cpu_count(), "python": platform.python_version()}
        args.json.write_text(
            json.dumps({"bench": "query", "host": host, "rows": rows}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
