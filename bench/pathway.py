"""Pathway memory: pathwayd at 100,000 traces beside plain numpy and DuckDB.

Traces with seeded vectors of 384 numbers and texts of about 25 words go in over HTTP; the
daemon is killed and started again; then searches run at its own port:

    bench/pathway.py [--traces 100000] [--json FILE]

Peers: numpy scanning the same vectors as float32 in this process, with one thread (the limit
of a plain scan), and DuckDB in this process: `array_cosine_similarity` over a table of the
same vectors, ordered, the way a memory on a SQL engine does it. The searches of the last
rows send text, so that embedd's share is in them.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import platform
import random
import sys
import time
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import duckdb
import numpy as np
import pyarrow as pa

from scripts.private_fleet import PrivateFleet

DIM, K, QUERIES, BATCH = 384, 10, 200, 500
CITIES = ("Oslo", "Bergen", "Tromsø", "Bodø", "Hamar")
START_S = 120.0


class Daemon:
    """One kept connection to pathwayd."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._at = host, int(port)
        self.connection = http.client.HTTPConnection(*self._at, timeout=120)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One JSON request."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        self.connection.request(method, path, data if body is not None else None, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]!r}")
        return json.loads(content)

    def wait(self, path: str, good: Any) -> Any:
        """Asks until the answer is good, also while the daemon is not there."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                found = self.call("GET", path)
                if good(found):
                    return found
            except (OSError, http.client.HTTPException, RuntimeError):
                self.connection = http.client.HTTPConnection(*self._at, timeout=120)
            time.sleep(0.01)
        raise RuntimeError("the daemon did not come up")


def make_texts(count: int, seed: int) -> list[str]:
    """Texts of 15 to 35 words, their frequencies falling as in language."""
    chance = random.Random(seed)
    letters = "abcdefghijklmnop"
    made = random.Random(1)
    words = ["".join(made.choices(letters, k=made.randint(3, 9))) for _ in range(20_000)]
    weights = list(accumulate(1 / (n + 5) for n in range(len(words))))
    lengths = (chance.randint(15, 35) for _ in range(count))
    return [" ".join(chance.choices(words, cum_weights=weights, k=n)) for n in lengths]


def make_vectors(count: int, seed: int) -> Any:
    """Vectors around as many centres as there are hundreds."""
    rng = np.random.default_rng(7)
    centres = rng.standard_normal((max(20, count // 100), DIM), dtype=np.float32)
    own = np.random.default_rng(seed)
    around = own.integers(0, len(centres), count)
    vectors = centres[around] + 0.6 * own.standard_normal((count, DIM), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1)[:, None]


def encode(vector: Any) -> str:
    """A vector as pathwayd takes it."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def fill(daemon: Daemon, texts: list[str], vectors: Any, model: str) -> float:
    """Adds the traces in batches; gives the seconds."""
    began = time.perf_counter()
    for start in range(0, len(texts), BATCH):
        traces = [
            {
                "content": {"task": texts[n], "city": CITIES[n % 5], "n": n},
                "id": f"t{n}",
                "tags": [f"m{n % 10}"],
                "vector": encode(vectors[n]),
                "vector_model": model,
            }
            for n in range(start, min(start + BATCH, len(texts)))
        ]
        daemon.call("POST", "/pathway/traces/batch", {"traces": traces})
    return time.perf_counter() - began


def times_of(call: Any, queries: Any) -> tuple[float, float]:
    """Median and 95th percentile of one call per query, in milliseconds."""
    taken: list[float] = []
    for query in queries:
        began = time.perf_counter()
        call(query)
        taken.append((time.perf_counter() - began) * 1e3)
    taken.sort()
    return median(taken), taken[int(len(taken) * 0.95)]


def read_rss(pid: int) -> float:
    """Resident MiB of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(count: int) -> list[dict[str, Any]]:
    """All rows, in one run."""
    rows: list[dict[str, Any]] = []

    def row(
        figure: str, ours: float, peer: float | None = None, name: str = "", target: str = ""
    ) -> None:
        rows.append(
            {
                "figure": figure,
                "ours": round(ours, 4),
                "peer": None if peer is None else round(peer, 4),
                "peer_name": name,
                "ratio": None if peer is None else round(ours / peer, 3),
                "target": target,
            }
        )
        print(json.dumps(rows[-1]), flush=True)

    texts, vectors = make_texts(count, 2), make_vectors(count, 3)
    queries, words = make_vectors(QUERIES, 4), make_texts(QUERIES, 5)
    asked = [" ".join(text.split()[:8]) for text in words]
    settings = {"PATHWAYD__MAX_BODY_BYTES": str(64 << 20)}
    with PrivateFleet(("embedd", "pathwayd"), settings) as fleet:
        daemon = Daemon(fleet.urls["pathwayd"])
        models = Daemon(fleet.urls["embedd"]).call("GET", "/embed/models")
        empty = read_rss(fleet.pid("pathwayd"))
        seconds = fill(daemon, texts, vectors, models["default"])
        row("durable adds/s in batches of 500", count / seconds)
        one = {"content": {"task": "one more"}, "vector": encode(vectors[0])}
        middle, _ = times_of(lambda _: daemon.call("POST", "/pathway/traces", one), range(200))
        row("one durable add, p50 ms", middle)

        killed = fleet.kill("pathwayd")
        began = time.monotonic()
        daemon.wait("/pathway/stats", lambda s: s["status"] == "ready" and s["live"] >= count)
        row("seconds from kill -9 to serving", time.monotonic() - began, 5.0, "limit", "<= 1")
        pid = fleet.pid("pathwayd")
        assert pid != killed
        stats = daemon.wait("/pathway/stats", lambda s: s["log"]["checked"])
        assert stats["problems"] == [], stats["problems"]
        rss = read_rss(pid)
        raw = count * DIM * 4 / 2**20
        row("resident MiB", rss, raw, "vectors alone as float32")
        row("resident MiB without traces", empty)

        unit = np.ascontiguousarray(vectors)
        truth = [np.argsort(-(unit @ q))[:K] for q in queries]

        def search(body: dict[str, Any]) -> list[int]:
            hits = daemon.call("POST", "/pathway/search", {"k": K, **body})["hits"]
            return [int(hit["id"][1:]) if hit["id"][0] == "t" else -1 for hit in hits]

        found = [search({"vector": encode(q)}) for q in queries]
        right = sum(len(set(f) & set(t.tolist())) for f, t in zip(found, truth, strict=True))
        row("recall@10", right / (K * QUERIES), 1.0, "numpy float32, exact", ">= .99")

        def scan(query: Any) -> None:
            scores = unit @ query
            best = np.argpartition(scores, -K)[-K:]
            best[np.argsort(-scores[best])]

        table = pa.table(
            {
                "id": np.arange(count),
                "v": pa.FixedSizeListArray.from_arrays(pa.array(unit.reshape(-1)), DIM),
            }
        )
        base = duckdb.connect()
        base.execute("set threads = 2")
        base.register("given", table)
        base.execute("create table traces as select * from given")
        sql = (
            f"select id from traces order by array_cosine_similarity(v, ?::float[{DIM}]) desc "
            f"limit {K}"
        )
        plain = times_of(scan, queries)
        engine = times_of(lambda q: base.execute(sql, [q.tolist()]).fetchall(), queries[:40])
        ours = times_of(lambda q: search({"vector": encode(q)}), queries)
        for place, name in ((0, "p50"), (1, "p95")):
            figure = f"search by vector, {name} ms"
            row(figure, ours[place], plain[place], "numpy float32 in process", "<= 50")
            row(f"{figure} (DuckDB)", ours[place], engine[place], "DuckDB in process", "<= 1")

        pairs = list(zip(asked, queries, strict=True))
        kinds: list[tuple[str, Any]] = [
            ("by words", lambda p: search({"query": p[0], "mode": "lexical"})),
            ("by both", lambda p: search({"query": p[0], "vector": encode(p[1])})),
            (
                "by both, filter keeps 20 %",
                lambda p: search(
                    {"query": p[0], "vector": encode(p[1]), "filter": {"city": "Oslo"}}
                ),
            ),
            (
                "by both, filter keeps .1 %",
                lambda p: search(
                    {
                        "query": p[0],
                        "vector": encode(p[1]),
                        "filter": {"n": {"lt": count // 1000}},
                    }
                ),
            ),
        ]
        for name, call in kinds:
            began = time.perf_counter()
            call(pairs[0])
            first = (time.perf_counter() - began) * 1e3
            _, p95 = times_of(call, pairs[1:])
            row(f"search {name}, p95 ms", p95, 50.0, "limit", "<= 1")
            if "filter" in name:
                row(f"search {name}, the first of its kind, ms", first, 50.0, "limit")
        search({"query": "a first text loads the model"})
        _, p95 = times_of(lambda text: search({"query": text}), asked)
        row("search by text through embedd, p95 ms", p95, 50.0, "limit", "<= 1")
        row("resident MiB after searches", read_rss(pid), rss, "before")
    return rows


def main() -> int:
    """Measures and prints; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    arguments = parser.parse_args()
    rows = measure(arguments.traces)
    host = f"{platform.machine()}, {os.cpu_count()} cores, {arguments.traces} traces"
    if arguments.json:
        found = {"bench": "pathway", "host": host, "rows": rows}
        arguments.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
