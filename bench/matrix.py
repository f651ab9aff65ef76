"""The matrix: what a search costs beside its parts, and what ten thousand notes add to it.

    bench/matrix.py [--notes 10000] [--documents 2000] [--json FILE]

The corpora hold synthetic workers, embedded by fake_ollama, so that the model is no part of the
figures. The limit of a search is what it must do anyway, called directly: one embed of the query
(cached) and one vectord request for the candidates. The notes are written into the playbook's
log before matrixd starts: ten thousand through the route would measure the recording instead.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import httpx
import numpy as np

from scripts.private_fleet import PrivateFleet
from scripts.staffing_data import SHIFTS, generate_workers
from services.matrixd.core.cold import ColdList
from services.matrixd.core.playbook import Episode, Rating
from shared.journal import Journal

DAEMONS = (
    *("gateway", "storaged", "catalogd", "ingestd", "queryd"),
    *("vectord", "embedd", "fake_ollama", "matrixd"),
)
CORPORA = 4
ROUNDS = 300
ADDED_MS = 5.0
Row = dict[str, Any]


def make_rows(documents: int) -> list[tuple[str, str]]:
    """Ids and summaries."""
    return [(row[0], row[-1]) for row in generate_workers(documents)]


def make_queries(texts: list[str], count: int, seed: int) -> list[str]:
    """Queries in the words of the documents, a few of each, in an order of their own."""
    dice = random.Random(seed)
    return [
        f"{' '.join(dice.sample(dice.choice(texts).split(), 5))} {dice.choice(SHIFTS)}"
        for _ in range(count)
    ]


def fill(client: httpx.Client, rows: list[tuple[str, str]]) -> float:
    """Four corpora of equal parts; gives documents a second of the builds."""
    begun = time.perf_counter()
    for number in range(CORPORA):
        lines = [json.dumps({"id": n, "text": t}) for n, t in rows[number::CORPORA]]
        client.put(
            f"/v1/storage/objects/bench/{number}.jsonl", content="\n".join(lines).encode()
        ).raise_for_status()
        spec = {
            "name": f"c{number}",
            "source": {"objects": [f"bench/{number}.jsonl"]},
            "id": "id",
            "text": "{text}",
        }
        made = client.post("/v1/matrix/corpora", params={"wait": 300}, json=spec)
        if made.json().get("status") != "ready":
            raise SystemExit(f"the corpus was not built: {made.text[:500]}")
    return len(rows) / (time.perf_counter() - begun)


def embed(client: httpx.Client, texts: list[str]) -> tuple[str, Any]:
    """Model and unit vectors."""
    parts: list[Any] = []
    model = ""
    for start in range(0, len(texts), 500):
        found = client.post("/v1/embed", json={"texts": texts[start : start + 500]}).json()
        parts += found["vectors"]
        model = found["model"]
    vectors = np.array(parts, np.float64)
    return model, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def write_notes(
    folder: Path, model: str, rows: list[tuple[str, str]], matrix: Any, asked: Any, texts: list[str]
) -> None:
    """The log of a playbook with an episode for each query."""
    refs = [(f"c{n % CORPORA}", name) for n, (name, _) in enumerate(rows)]
    with Journal(folder) as journal:
        batch: list[dict[str, Any]] = []
        for number, (query, vector) in enumerate(zip(texts, asked, strict=True)):
            cosine = matrix @ vector
            top = np.argsort(-cosine)[:50]
            near = cosine[top].astype(np.float64)
            chosen = [int(top[at]) for at in (0, 3, 6)]
            name = f"ep-{number:024d}"
            ratings = [(refs[row], rate) for row, rate in zip(chosen, (1, 1, -1), strict=True)]
            episode = Episode(
                id=name,
                seq=number + 1,
                query=query,
                vector=vector,
                cold=ColdList(
                    tuple(refs[row] for row in top), 1 / (1 + np.exp(9 - 18 * near)), near, near * 9
                ),
                ratings=tuple(Rating(c, i, float(rate)) for (c, i), rate in ratings),
                source=f"judge{number % 3}",
            ).with_vectors({refs[row]: matrix[row] for row in top})
            batch.append(
                {
                    "kind": "episode",
                    "id": name,
                    "at": "2026-01-01T00:00:00+00:00",
                    "basis": name,
                    "body": name,
                    "query": query,
                    "ratings": [{"corpus": c, "id": i, "rating": r} for (c, i), r in ratings],
                    "source": episode.source,
                    "run_id": None,
                    "corpora": [f"c{n}" for n in range(CORPORA)],
                    "views": {model: episode.to_json()},
                }
            )
            if len(batch) == 500:
                journal.append_many_sync(batch)
                batch.clear()
        journal.append_many_sync(batch)


def measure_ms(calls: list[Callable[[], object]]) -> Any:
    """Milliseconds of each call."""
    taken: list[float] = []
    for call in calls:
        begun = time.perf_counter()
        call()
        taken.append((time.perf_counter() - begun) * 1e3)
    return np.array(taken)


def measure(notes: int, documents: int) -> list[Row]:
    """All rows, printed as they come."""
    found: list[Row] = []

    def add(figure: str, ours: float, peer: float, name: str, target: str) -> None:
        row = {
            "figure": figure,
            "ours": ours,
            "peer": peer,
            "peer_name": name,
            "ratio": ours / peer if peer else None,
            "target": target,
        }
        found.append(row)
        print(f"{figure:<48} {ours:10.3g}  {name}: {peer:.3g}  asked: {target}", flush=True)

    rows = make_rows(documents)
    texts = [text for _, text in rows]
    recorded, asked = make_queries(texts, notes, 1), make_queries(texts, ROUNDS, 2)
    # Every third query is one that was recorded.
    asked = [recorded[n * 7 % notes] if n % 3 == 0 else text for n, text in enumerate(asked)]
    with tempfile.TemporaryDirectory(prefix="lakehouse-") as folder:
        settings = {"EMBEDD__DEFAULT_MODEL": "fake"}
        with PrivateFleet(DAEMONS, settings, Path(folder)) as fleet:
            timeout = httpx.Timeout(330)

            def connect(name: str) -> httpx.Client:
                return httpx.Client(base_url=fleet.urls[name], timeout=timeout, trust_env=False)

            with connect("gateway") as gateway:
                rate = fill(gateway, rows)
                begun = time.perf_counter()
                model, matrix = embed(gateway, [text + "." for text in texts])
                bare = len(texts) / (time.perf_counter() - begun)
                add("corpora built, documents/s", rate, bare, "embedding alone", "")
                _, matrix = embed(gateway, texts)
                _, vectors = embed(gateway, recorded)
                index = gateway.get("/v1/matrix/corpora/c0").json()["index"]
            fleet.stop()
            write_notes(
                Path(folder) / "matrixd" / "playbook", model, rows, matrix, vectors, recorded
            )
            begun = time.perf_counter()
            fleet.start()
            with connect("gateway") as gateway:
                while gateway.get("/v1/matrix/playbook", params={"limit": 1}).status_code != 200:
                    time.sleep(0.05)
            add("start with the notes, s", time.perf_counter() - begun, 5.0, "limit", "<= 5")
            with connect("matrixd") as m, connect("embedd") as e, connect("vectord") as v:

                def search(query: str, corpora: list[str], playbook: bool) -> object:
                    body = {"query": query, "corpora": corpora, "use_playbook": playbook}
                    return m.post("/matrix/search", json=body).raise_for_status()

                def parts(query: str) -> object:
                    vector = e.post("/embed", json={"texts": [query]}).json()["vectors"][0]
                    ask = {"vector": vector, "text": query, "k": 100}
                    path = f"/vectors/indexes/{index}/candidates"
                    return v.post(path, json=ask).raise_for_status()

                four = [f"c{n}" for n in range(CORPORA)]
                for query in asked[:30]:
                    search(query, four, True)
                one = measure_ms([lambda q=q: search(q, ["c0"], False) for q in asked])
                alone = measure_ms([lambda q=q: parts(q) for q in asked])
                add(
                    "search of one corpus, p50 ms",
                    float(np.median(one)),
                    float(np.median(alone)),
                    "its embed and candidates",
                    "",
                )
                # In pairs, so that both see the same machine.
                pairs = [
                    measure_ms([lambda q=q, on=on: search(q, four, on) for on in (False, True)])
                    for q in asked
                ]
                cold, warm = np.array(pairs).T
                many = float(np.median(cold))
                add("search of four corpora, p50 ms", many, float(np.median(one)), "of one", "")
                add(
                    f"playbook of {notes} notes adds, p50 ms",
                    float(np.median(warm - cold)),
                    ADDED_MS,
                    "limit",
                    "",
                )
                add(
                    f"playbook of {notes} notes adds, p95 ms",
                    float(np.quantile(warm, 0.95) - np.quantile(cold, 0.95)),
                    ADDED_MS,
                    "limit",
                    "<= 5",
                )
    return found


def main() -> int:
    """Measures and prints; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--notes", type=int, default=10_000)
    parser.add_argument("--documents", type=int, default=2_000)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    arguments = parser.parse_args()
    rows = measure(arguments.notes, arguments.documents)
    host = f"{platform.machine()}, {os.cpu_count()} cores, {arguments.documents} documents"
    if arguments.json:
        result = {"bench": "matrix", "host": host, "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
