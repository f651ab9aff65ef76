"""Vector search: vectord beside hnswlib in this process, and beside Chroma.

Vectors of 384 dimensions: those of the texts in a file (one a line; embedded once, kept in
bench/results), each perturbed as often as it takes to be as many as asked for; or clustered
synthetic ones where no file is given. The limit is hnswlib called in this process
with the same M, ef_construction and ef on the same vectors; the peer is Chroma (its
embedded client), which runs in an environment of its own, named by `--peer-python`:

    bench/vectors.py [--items 20000] [--texts FILE] [--json FILE] [--peer-python PATH]

Rows: recall@10 alone and under filters that keep 50, 10, 1 and .1 % (peer: exact search);
batches of 32 in Arrow and JSON; the time that one search adds; memory and recall after
deleting and adding half of the items again.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import hnswlib
import numpy as np
import pyarrow as pa

from bench.raw_client import RawClient
from scripts.private_fleet import PrivateFleet
from shared.wire.vectord import ARROW_STREAM

DIM, M, EF_BUILD, EF, K = 384, 16, 200, 128, 10
SHARES = (0.5, 0.1, 0.01, 0.001)
BATCH = 32
QUERIES = 320
BUILD_S = 1800.0

# Runs in the peer's environment: builds a collection, times single and filtered queries.
PEER = """
import json, sys, time, numpy as np, chromadb
folder, count = sys.argv[1], int(sys.argv[2])
data = np.load(folder + "/data.npz")
X, Q, u = data["vectors"], data["queries"], data["share"]
client = chromadb.EphemeralClient()
c = client.create_collection("bench", embedding_function=None, metadata={
    "hnsw:space": "cosine", "hnsw:M": 16, "hnsw:construction_ef": 200, "hnsw:search_ef": 128})
began = time.perf_counter()
for a in range(0, count, 2000):
    b = min(a + 2000, count)
    c.add(ids=[str(n) for n in range(a, b)], embeddings=X[a:b],
          metadatas=[{"share": float(v)} for v in u[a:b]])
build = time.perf_counter() - began
def time_of(call, queries):
    taken = []
    for q in queries:
        began = time.perf_counter(); call(q); taken.append(time.perf_counter() - began)
    return sorted(taken)[len(taken) // 2]
single = time_of(lambda q: c.query(query_embeddings=[q], n_results=10), Q[:200])
began = time.perf_counter()
for a in range(0, 320, 32):
    c.query(query_embeddings=Q[a:a + 32], n_results=10)
batch = 320 / (time.perf_counter() - began)
filtered = {str(s): time_of(lambda q: c.query(query_embeddings=[q], n_results=10,
            where={"share": {"$lt": s}}), Q[:20]) for s in (0.5, 0.1, 0.01, 0.001)}
print(json.dumps({"single": single, "batch": batch, "filtered": filtered, "build": build,
                  "version": chromadb.__version__}))
"""


class Daemon:
    """One kept connection to vectord."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=600)
        self.used = time.monotonic()

    def call(self, method: str, path: str, body: object = None, arrow: bool = False) -> Any:
        """One request; JSON answers decoded, Arrow ones as a table."""
        headers = {"content-type": ARROW_STREAM, "accept": ARROW_STREAM} if arrow else {}
        if not arrow:
            headers = {"content-type": "application/json"}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        if time.monotonic() - self.used > 20:
            # The daemon may have closed it meanwhile; http.client opens another.
            self.connection.close()
        self.used = time.monotonic()
        self.connection.request(method, path, data if body is not None else None, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]!r}")
        if answer.headers["content-type"] == ARROW_STREAM:
            return pa.ipc.open_stream(content).read_all()
        return json.loads(content)


def make_vectors(count: int) -> tuple[Any, Any, Any]:
    """Vectors around as many centres as there are hundreds, queries alike, and shares."""
    rng = np.random.default_rng(11)
    centres = rng.standard_normal((max(20, count // 100), DIM), dtype=np.float32)
    around = rng.integers(0, len(centres), count)
    vectors = centres[around] + 0.6 * rng.standard_normal((count, DIM), dtype=np.float32)
    asked = centres[rng.integers(0, len(centres), QUERIES)]
    queries = asked + 0.6 * rng.standard_normal((QUERIES, DIM), dtype=np.float32)
    return vectors, queries, rng.random(count)


def embed_texts(path: Path) -> Any:
    """Unit vectors (n, 384) of a file's lines by the local model; computed once per content."""
    content = path.read_bytes()
    kept = ROOT / "bench" / "results" / f"texts-{hashlib.sha256(content).hexdigest()[:16]}.npy"
    if not kept.exists():
        lines = [line for line in content.decode().splitlines() if line.strip()]
        parts: list[Any] = []
        with PrivateFleet(("embedd",)) as fleet:
            daemon = Daemon(fleet.urls["embedd"])
            for start in range(0, len(lines), 256):
                answer = daemon.call("POST", "/embed", {"texts": lines[start : start + 256]})
                parts.append(np.asarray(answer["vectors"], dtype=np.float32))
        kept.parent.mkdir(exist_ok=True)
        np.save(kept, np.concatenate(parts))
    return np.load(kept)


def perturb(real: Any, count: int) -> tuple[Any, Any, Any]:
    """`count` vectors around real ones (cosine about .9 to their own), queries alike, shares."""
    rng = np.random.default_rng(11)

    def around(number: int) -> Any:
        # Noise of half a vector's length, spread over all dimensions.
        noise = rng.standard_normal((number, DIM), dtype=np.float32) * (0.5 / DIM**0.5)
        return real[rng.integers(0, len(real), number)] + noise

    return around(count), around(QUERIES), rng.random(count)


def to_stream(columns: dict[str, Any]) -> bytes:
    """An Arrow IPC stream; two-dimensional arrays become fixed-size lists."""
    made: dict[str, Any] = {}
    for name, values in columns.items():
        if isinstance(values, np.ndarray) and values.ndim == 2:
            flat = pa.array(np.ascontiguousarray(values).reshape(-1))
            values = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        made[name] = values
    table = pa.table(made)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def put(daemon: Daemon, vectors: Any, shares: Any, numbers: Any) -> None:
    """Writes items in requests of 2,000."""
    for start in range(0, len(numbers), 2000):
        part = numbers[start : start + 2000]
        columns = {
            "id": [str(n) for n in part],
            "vector": vectors[part],
            "metadata": [json.dumps({"share": float(shares[n])}) for n in part],
        }
        daemon.call("PUT", "/vectors/indexes/w/items", to_stream(columns), arrow=True)


def settle(daemon: Daemon, count: int) -> None:
    """Waits until the graph holds everything and nothing dead is left to reclaim."""
    deadline = time.monotonic() + BUILD_S
    while time.monotonic() < deadline:
        info = daemon.call("GET", "/vectors/indexes/w")
        if info["delta_rows"] < 250 and info["deleted_rows"] <= count * 0.25:
            return
        time.sleep(0.2)
    raise RuntimeError("the index did not settle")


def median_time(call: Any, queries: Any) -> float:
    """Median seconds of one call per query."""
    taken: list[float] = []
    for query in queries:
        began = time.perf_counter()
        call(query)
        taken.append(time.perf_counter() - began)
    return median(taken)


def rate(call: Any, queries: Any) -> float:
    """Queries a second in batches, best of three rounds."""
    best = 0.0
    for _ in range(3):
        began = time.perf_counter()
        for start in range(0, len(queries), BATCH):
            call(queries[start : start + BATCH])
        best = max(best, len(queries) / (time.perf_counter() - began))
    return best


def recall_of(daemon: Daemon, queries: Any, truth: Any, where: dict[str, Any] | None) -> float:
    """The part of the true ten nearest that searches find."""
    right = total = 0
    for query, wanted in zip(queries, truth, strict=True):
        body: dict[str, Any] = {"vector": query.tolist(), "k": K, "include": []}
        if where:
            body["filter"] = where
        hits = daemon.call("POST", "/vectors/indexes/w/search", body)["hits"]
        right += len({int(h["id"]) for h in hits} & set(wanted.tolist()))
        total += len(wanted)
    return right / total


def read_rss(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(count: int, texts: Path | None, peer_python: str | None) -> list[dict[str, Any]]:
    """All rows, in one run."""
    vectors, queries, shares = perturb(embed_texts(texts), count) if texts else make_vectors(count)
    unit = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    scores = (queries / np.linalg.norm(queries, axis=1)[:, None]) @ unit.T
    rows: list[dict[str, Any]] = []

    def row(figure: str, ours: float, peer: float, name: str, target: str) -> None:
        rows.append(
            {
                "figure": figure,
                "ours": round(ours, 4),
                "peer": round(peer, 4),
                "peer_name": name,
                "ratio": round(ours / peer, 3) if peer else None,
                "target": target,
            }
        )
        print(json.dumps(rows[-1]), flush=True)

    with PrivateFleet(("storaged", "vectord")) as fleet:
        daemon = Daemon(fleet.urls["vectord"])
        daemon.call(
            "POST",
            "/vectors/indexes",
            {"name": "w", "dim": DIM, "m": M, "ef_construction": EF_BUILD},
        )
        began = time.perf_counter()
        put(daemon, vectors, shares, np.arange(count))
        durable = time.perf_counter() - began
        settle(daemon, count)
        ready = time.perf_counter() - began
        index = hnswlib.Index("cosine", DIM)
        index.init_index(count, M=M, ef_construction=EF_BUILD, random_seed=100)
        began = time.perf_counter()
        index.add_items(vectors, np.arange(count), num_threads=2)
        bare = time.perf_counter() - began
        index.set_ef(EF)
        row("durable upserts/s in Arrow", count / durable, count / bare, "hnswlib build", "")
        row("seconds until all is in the graph", ready, bare, "hnswlib build", "")

        truth = np.argsort(-scores, axis=1)[:, :K]
        labels, _ = index.knn_query(queries, k=K)
        bare_recall = float(
            np.mean([len(set(a) & set(b)) / K for a, b in zip(labels, truth, strict=True)])
        )
        found = recall_of(daemon, queries, truth, None)
        row("recall@10", found, bare_recall, "hnswlib in process", ">= .98")
        for share in SHARES:
            masked = np.where(shares < share, scores, -9.0)
            kept = min(K, int((shares < share).sum()))
            best = np.argsort(-masked, axis=1)[:100, :kept]
            where = {"share": {"lt": share}}
            found = recall_of(daemon, queries[:100], best, where)
            row(f"recall@10, filter keeps {share:.1%}", found, 1.0, "exact search", ">= .98")

        path = f"/vectors/indexes/w/search?k={K}&ef={EF}&include=dense"
        arrow = rate(
            lambda q: daemon.call("POST", path, to_stream({"vector": q}), arrow=True), queries
        )
        limit = rate(lambda q: index.knn_query(q, k=K, num_threads=2), queries)
        row("queries/s, batches of 32 in Arrow", arrow, limit, "hnswlib in process", ">= .5 (.7)")

        def in_json(batch: Any) -> None:
            asked = [{"vector": q.tolist(), "k": K, "ef": EF, "include": []} for q in batch]
            daemon.call("POST", "/vectors/indexes/w/search", {"queries": asked})

        row(
            "queries/s, batches of 32 in JSON",
            rate(in_json, queries),
            limit,
            "hnswlib in process",
            "",
        )

        bodies = [json.dumps({"vector": q.tolist(), "k": K, "ef": EF}).encode() for q in queries]
        client = RawClient(fleet.urls["vectord"])
        requests = [client.prepare("POST", "/vectors/indexes/w/search", b) for b in bodies]
        single = median_time(client.ask, requests)
        alone = median_time(lambda q: index.knn_query(q, k=K, num_threads=1), queries)
        row("one search, ms", single * 1e3, alone * 1e3, "hnswlib in process", "adds <= 1 ms")
        row("one search adds, ms", (single - alone) * 1e3, 1.0, "limit", "<= 1")
        if peer_python:
            measure_peer(peer_python, daemon, vectors, queries, shares, arrow, single, row)

        pid = fleet.pid("vectord")
        before = read_rss(pid)
        half = np.arange(0, count, 2)
        names = [str(n) for n in half]
        for start in range(0, len(names), 5000):
            ids = names[start : start + 5000]
            daemon.call("DELETE", "/vectors/indexes/w/items", {"ids": ids})
        put(daemon, vectors, shares, half)
        settle(daemon, count)
        time.sleep(3)
        settle(daemon, count)
        row("resident MiB after churn", read_rss(pid) / 2**20, before / 2**20, "before", "<= 1.2")
        row(
            "recall@10 after churn",
            recall_of(daemon, queries, truth, None),
            found or 1,
            "filter .1 %",
            ">= .98",
        )
    return rows


def measure_peer(
    python: str,
    daemon: Daemon,
    vectors: Any,
    queries: Any,
    shares: Any,
    arrow: float,
    single: float,
    row: Any,
) -> None:
    """The same searches by Chroma."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/data.npz", vectors=vectors, queries=queries, share=shares)
        done = subprocess.run(
            [python, "-c", PEER, folder, str(len(vectors))],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        print(f"the peer failed: {done.stderr[-500:]}", file=sys.stderr)
        return
    peer = json.loads(done.stdout.strip().splitlines()[-1])
    name = f"Chroma {peer['version']} embedded"
    row("one search, ms (Chroma)", single * 1e3, peer["single"] * 1e3, name, "<= 1")
    row("queries/s, batches of 32 (Chroma)", arrow, peer["batch"], name, ">= 1")
    for share in SHARES:
        bodies = [
            {"vector": q.tolist(), "k": K, "ef": EF, "filter": {"share": {"lt": share}}}
            for q in queries[:20]
        ]
        ours = median_time(lambda b: daemon.call("POST", "/vectors/indexes/w/search", b), bodies)
        theirs = peer["filtered"][str(share)]
        row(f"one search, filter keeps {share:.1%}, ms", ours * 1e3, theirs * 1e3, name, "<= 1")


def main() -> int:
    """Measures and prints; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--texts", type=Path, help="real texts, one a line")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--peer-python", help="an interpreter that has chromadb")
    arguments = parser.parse_args()
    rows = measure(arguments.items, arguments.texts, arguments.peer_python)
    host = f"{platform.machine()}, {os.cpu_count()} cores, {arguments.items} items"
    host += ", real texts perturbed" if arguments.texts else ", synthetic"
    if arguments.json:
        command = f"bench/vectors.py --items {arguments.items}"
        command += " --texts FILE" if arguments.texts else ""
        found = {"bench": arguments.json.stem, "command": command, "host": host, "rows": rows}
        arguments.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
