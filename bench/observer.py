"""observerd: durable events a second over HTTP, beside the journal alone; a workflow's makespan.

Events are 1 KB on disk, sent in batches by several connections, and answered after the sync.
Beside them, in rounds, stands what they stand on: the journal appending the same batches from
as many tasks in one process, without HTTP, checks, ring or figures. A workflow's makespan
stands beside its critical path, the longest chain of what its nodes themselves take.

    python bench/observer.py [--seconds 2] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import random
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.journal import make_payload, run_journal
from scripts.private_fleet import PrivateFleet
from services.matrixd.store.reporting import Observed
from shared.reporter import CAPACITY, Reporter
from shared.wire.matrixd import MatrixAnswer, MatrixHit, MatrixSearch, PlaybookAnswer

RUNS = "/observer/workflows/runs"
BATCH = 100
TARGET = 5000


class Caller:
    """One connection to the daemon."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._http = http.client.HTTPConnection(str(parts.hostname), int(parts.port or 80))

    def call(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        """One request; anything but success ends the benchmark."""
        self._http.request(method, path, body, {"content-type": "application/json"})
        answer = self._http.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {content[:300]!r}")
        return json.loads(content)


def make_batch(size: int) -> bytes:
    """Events as the journal's benchmark logs them."""
    event = make_payload()
    note = event.pop("note")
    return json.dumps({"events": [{**event, "attributes": {"note": note}}] * size}).encode()


def load_daemon(url: str, callers: int, size: int, seconds: float) -> float:
    """Durable events a second."""
    body = make_batch(size)
    stop = time.perf_counter() + seconds

    def send(_: int) -> int:
        caller, sent = Caller(url), 0
        while time.perf_counter() < stop:
            sent += caller.call("POST", "/observer/events", body)["accepted"]
        return sent

    began = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        total = sum(pool.map(send, range(callers)))
    return total / (time.perf_counter() - began)


def make_graph(seed: int, size: int) -> tuple[dict[str, Any], float]:
    """A random graph of nodes that take 50 to 200 ms, and the length of its critical path."""
    dice = random.Random(seed)
    nodes: list[dict[str, Any]] = []
    ends: dict[str, float] = {}
    for number in range(size):
        name = f"n{number}"
        after = [f"n{n}" for n in dice.sample(range(number), min(number, dice.randrange(3)))]
        delay = dice.uniform(50, 200)
        ends[name] = max((ends[one] for one in after), default=0.0) + delay
        inputs = {"delay_ms": delay}
        nodes.append({"id": name, "mode": "fixture.echo", "depends_on": after, "with": inputs})
    spec = {"name": "bench", "nodes": nodes, "max_parallel": 64}
    return spec, max(ends.values()) / 1000


def run_graph(caller: Caller, spec: dict[str, Any]) -> float:
    """Seconds from the request to the run's end."""
    began = time.perf_counter()
    run_id = caller.call("POST", RUNS, json.dumps(spec).encode())["run_id"]
    run = caller.call("GET", f"{RUNS}/{run_id}?wait=60")
    took = time.perf_counter() - began
    if run["status"] != "completed":
        raise SystemExit(f"the run ended as {run['status']}")
    return took


def time_telling() -> float:
    """Microseconds that telling observerd adds to a search, on the search's own path."""
    hits = [
        MatrixHit(corpus="c", id=str(n), score=0.5, rank=n, text="t", metadata={})
        for n in range(10)
    ]
    answer = MatrixAnswer(hits=hits, corpora={}, playbook=PlaybookAnswer())
    request = MatrixSearch(query="forklift driver for nights", corpora=["a", "b"], k=10)

    async def search(_: MatrixSearch) -> MatrixAnswer:
        return answer

    async def send(_: Any) -> None:
        return None

    async def measure() -> float:
        reporter = Reporter(send, lambda _: None)
        observed = Observed(reporter)
        rounds = CAPACITY // 2
        began = time.perf_counter()
        for _ in range(rounds):
            await observed.search(request, search)
        took = time.perf_counter() - began
        await reporter.aclose()
        return took / rounds * 1e6

    return asyncio.run(measure())


def main() -> int:
    """Runs all of it and prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    rows: list[dict[str, Any]] = []

    def add(figure: str, ours: float, peer: float, name: str, target: str = "") -> None:
        rows.append({"figure": figure, "ours": ours, "peer": peer, "peer_name": name,
                     "ratio": ours / peer, "target": target})  # fmt: skip
        print(f"{figure}: {ours:,.3f}, {name} {peer:,.3f}, ratio {ours / peer:.3f} {target}")

    with tempfile.TemporaryDirectory() as folder, PrivateFleet(("observerd",)) as fleet:
        url = fleet.urls["observerd"]
        for callers, size in ((1, 1), (4, BATCH), (16, BATCH)):
            ours: list[float] = []
            peer: list[float] = []
            for number in range(chosen.rounds):
                ours.append(load_daemon(url, callers, size, chosen.seconds))
                place = Path(folder) / f"{callers}-{size}-{number}"
                peer.append(run_journal(place, callers, chosen.seconds, size).rate)
            add(
                f"durable events a second, {callers} callers, {size} in a request",
                statistics.median(ours),
                statistics.median(peer),
                "the journal alone",
                f">= {TARGET:,} a second" if size == BATCH else "",
            )
        caller = Caller(url)
        for size in (5, 20, 60):
            graphs = [make_graph(seed, size) for seed in range(chosen.rounds)]
            taken = [(run_graph(caller, spec), path) for spec, path in graphs]
            worst = max(taken, key=lambda one: one[0] / one[1])
            add(
                f"makespan of {size} nodes, seconds, worst graph",
                *worst,
                "critical path",
                "<= 1.05",
            )
    add("telling of a search, microseconds", time_telling(), 1000.0, "1 ms")
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps({"bench": "observer", "rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
