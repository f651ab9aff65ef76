#!/usr/bin/env python3
"""Shows config refinement on a judged set: what held-out searches gain, through the gateway.

    scripts/refine_search.py --dataset DIR [--topics 300] [--seed 1] [--out FILE]

A corpus is built of the set's documents. For every topic two of its queries are recorded in
the playbook, a third is a logged run that observerd refines from, and a fourth is held out.
Refinement begins with words left out, few candidates and the playbook off. At the end the
held-out queries are searched as refinement began and as it ended: mean nDCG@10 of both, and
the gain with a 95 % interval (bootstrap over topics). The fleet is one of its own, unless
--gateway names another. The exit status is 0 when the interval lies above 0.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_PYTHON = ROOT / ".venv" / "bin" / "python"
if _PYTHON.exists() and Path(sys.prefix) != ROOT / ".venv":
    os.execv(_PYTHON, [str(_PYTHON), *sys.argv])
sys.path.insert(0, str(ROOT))

import httpx

from scripts.lift.edge import Edge
from scripts.lift.judged import JudgedSet, Query, load_set
from scripts.private_fleet import PrivateFleet
from services.observerd.core.refine.scoring import score_ranking

KNOBS = {
    "lexical": [0.0, 0.6, 1.2, 2.4],
    "candidates": [20, 50, 100],
    "use_playbook": [False, True],
}
START = {"lexical": 0.0, "candidates": 20, "use_playbook": False}
QUERIES_A_TOPIC = 4


def choose_topics(judged: JudgedSet, count: int, seed: int) -> list[list[Query]]:
    """Four queries of each of so many topics, in an order that the seed fixes."""
    by_topic: dict[str, list[Query]] = {}
    for query in judged.queries:
        if judged.relevant.get(query.id):
            by_topic.setdefault(query.topic, []).append(query)
    chance = random.Random(seed)
    able = sorted(topic for topic, found in by_topic.items() if len(found) >= QUERIES_A_TOPIC)
    chosen = chance.sample(able, min(count, len(able)))
    return [chance.sample(by_topic[topic], QUERIES_A_TOPIC) for topic in chosen]


class Trial:
    """The set behind a gateway, and what is asked of it."""

    def __init__(self, address: str, judged: JudgedSet, seed: int) -> None:
        self.name = f"refine-{os.getpid()}-{seed}"
        self._judged = judged
        self._edge = Edge(address, os.environ.get("LAKEHOUSE_TOKEN", ""), self.name)
        self._client = httpx.Client(base_url=f"{address}/v1", timeout=120, trust_env=False)
        self._client.headers.update(_headers())
        self._edge.build_corpora(judged.documents)
        groups = sorted({document.corpus for document in judged.documents})
        # The edge names its corpora by number, in the order of the groups.
        names = dict(zip(groups, self._edge.corpora, strict=True))
        self._corpus_of = {d.id: names[d.corpus] for d in judged.documents}

    def record(self, query: Query) -> None:
        """Records the ten that a search shows, each with its judgment."""
        shown = self._edge.search(query.text, playbook=False)
        right = self._judged.relevant[query.id]
        ratings = [(ref, 1 if ref[1] in right else -1) for ref in shown.refs]
        self._edge.record(query.text, ratings, source="judge", run="recorded")

    def declare(self) -> None:
        """Declares the refiner. Its corpora are tuned by what is promoted."""
        body = {"corpora": self._edge.corpora, "knobs": KNOBS, "start": START}
        self._client.put(f"/observer/refiners/{self.name}", json=body).raise_for_status()

    def learn(self, query: Query) -> list[dict[str, Any]]:
        """Has observerd learn from a query whose answers are known; the decisions."""
        relevant = [
            {"corpus": self._corpus_of[identifier], "id": identifier, "grade": gain}
            for identifier, gain in self._judged.relevant[query.id].items()
        ]
        body = {"run_id": query.id, "query": query.text, "relevant": relevant}
        answer = self._client.post(f"/observer/refiners/{self.name}/runs", json=body)
        return answer.raise_for_status().json()["decisions"]

    def show(self) -> dict[str, Any]:
        """The refiner."""
        return self._client.get(f"/observer/refiners/{self.name}").raise_for_status().json()

    def score(self, query: Query, values: dict[str, Any]) -> float:
        """nDCG@10 of a query with a configuration."""
        tuning = {name: values[name] for name in ("lexical", "candidates")}
        body = {
            "query": query.text,
            "corpora": self._edge.corpora,
            "use_playbook": values["use_playbook"],
            "tuning": tuning,
        }
        answer = self._client.post("/matrix/search", json=body).raise_for_status().json()
        grades = {
            (self._corpus_of[one], one): gain
            for one, gain in self._judged.relevant[query.id].items()
        }
        return score_ranking([(hit["corpus"], hit["id"]) for hit in answer["hits"]], grades)

    def close(self) -> None:
        """Takes back what was recorded and built."""
        self._edge.retire_runs()
        self._edge.drop_corpora()
        self._edge.close()
        self._client.close()


def _headers() -> dict[str, str]:
    token = os.environ.get("LAKEHOUSE_TOKEN")
    return {"authorization": f"Bearer {token}"} if token else {}


def interval(gains: list[float], seed: int) -> tuple[float, float]:
    """The 95 % interval of the mean by bootstrap."""
    chance = random.Random(seed)
    means = sorted(statistics.fmean(chance.choices(gains, k=len(gains))) for _ in range(2000))
    return means[50], means[1949]


def run(address: str, args: argparse.Namespace) -> dict[str, Any]:
    """The whole trial; its figures."""
    judged = load_set(args.dataset)
    topics = choose_topics(judged, args.topics, args.seed)
    trial = Trial(address, judged, args.seed)
    try:
        begun = time.monotonic()
        for first, second, _, _ in topics:
            trial.record(first)
            trial.record(second)
        print(f"recorded 2 queries of {len(topics)} topics in {time.monotonic() - begun:.0f} s")
        trial.declare()
        for number, (_, _, logged, _) in enumerate(topics, start=1):
            for done in trial.learn(logged):
                print(f"  after {number:4} runs: {done['kind']} {done['values']}: {done['reason']}")
        view = trial.show()
        held = [query for *_, query in topics]
        before = [trial.score(query, START) for query in held]
        after = [trial.score(query, view["incumbent"]) for query in held]
    finally:
        trial.close()
    gains = [one - other for one, other in zip(after, before, strict=True)]
    low, high = interval(gains, args.seed)
    return {
        "set": judged.name,
        "seed": args.seed,
        "topics": len(topics),
        "start": START,
        "incumbent": view["incumbent"],
        "decisions": view["decisions"],
        "held_out_before": statistics.fmean(before),
        "held_out_after": statistics.fmean(after),
        "gain": statistics.fmean(gains),
        "gain_95": [low, high],
        "wins": sum(gain > 0.01 for gain in gains),
        "losses": sum(gain < -0.01 for gain in gains),
    }


def main() -> int:
    """Parses the command line and runs; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--topics", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gateway", help="address of a running fleet; one of its own otherwise")
    parser.add_argument("--out", type=Path, help="also write the figures here")
    args = parser.parse_args()
    with ExitStack() as stack:
        address = args.gateway or stack.enter_context(PrivateFleet()).urls["gateway"]
        figures = run(address, args)
    low, high = figures["gain_95"]
    print(
        f"held-out nDCG@10 {figures['held_out_before']:.4f} -> {figures['held_out_after']:.4f}, "
        f"gain {figures['gain']:+.4f} [{low:+.4f}, {high:+.4f}], "
        f"{figures['wins']} wins, {figures['losses']} losses; now {figures['incumbent']}"
    )
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if low > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
