#!/usr/bin/env python3
"""Measures the relevance filter on labelled sets, beside a plain similarity cut-off.

    scripts/measure_relevance.py                    the built-in staffing set
    scripts/measure_relevance.py DIR|FILE [...]     judged sets, or files of labelled lists

A judged set is a folder with corpus.jsonl, queries.jsonl and qrels.tsv (or qrels/test.tsv): the
candidates of a query are its relevant documents and, as distractors, the nearest others and some
of those that follow (adjacent topics). A file has an object a line: query, relevant,
distractors. Candidates go to POST /v1/matrix/relevance of the gateway at LAKEHOUSE_GATEWAY.

Printed for each set: the share of relevant candidates kept and of distractors dropped, and what
cut-offs by cosine (its height, and its distance to the best candidate) would drop while keeping
as many, their lines chosen on the very set. The exit status is 1 when a set misses
--keep or --drop, or does not beat the cut-off by height.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_PYTHON = ROOT / ".venv" / "bin" / "python"
if _PYTHON.exists() and Path(sys.prefix) != ROOT / ".venv":
    os.execv(_PYTHON, [str(_PYTHON), *sys.argv])
sys.path.insert(0, str(ROOT))

import argparse
import json
import random
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

GATEWAY = os.environ.get("LAKEHOUSE_GATEWAY", "http://127.0.0.1:3110")
BUILT_IN = ROOT / "tests" / "reality" / "staffing_relevance.jsonl"
BATCH = 200


@dataclass(frozen=True)
class Labelled:
    """One query with candidates and whether each is relevant."""

    query: str
    texts: list[str]
    relevant: list[bool]


class Gateway:
    """The two routes that are needed, and the vectors seen so far."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._vectors: dict[str, Any] = {}

    def vectors(self, texts: list[str]) -> Any:
        """A unit vector a row."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        for start in range(0, len(missing), BATCH):
            some = missing[start : start + BATCH]
            found = self._post("/v1/embed", {"texts": some})["vectors"]
            self._vectors |= {t: np.array(v) for t, v in zip(some, found, strict=True)}
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{start + len(some)} of {len(missing)} texts embedded ")
        return np.stack([self._vectors[text] for text in texts])

    def judge(self, one: Labelled) -> list[bool]:
        """Whether each candidate is kept."""
        candidates = [{"id": str(n), "text": text} for n, text in enumerate(one.texts)]
        body = {"query": one.query, "candidates": candidates}
        kept = {c["id"] for c in self._post("/v1/matrix/relevance", body)["kept"]}
        return [str(n) in kept for n in range(len(one.texts))]

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self._client.post(path, json=body)
        if answer.status_code != 200:
            raise SystemExit(f"{path} answered {answer.status_code}: {answer.text[:300]}")
        return answer.json()


def main() -> int:
    """Measures each set named; gives the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="*", type=Path, default=[BUILT_IN])
    parser.add_argument("--queries", type=int, default=200, help="most queries of one set")
    parser.add_argument("--near", type=int, default=7, help="nearest other documents of a query")
    parser.add_argument("--adjacent", type=int, default=7, help="documents out of ranks to 100")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=float, default=0.97, help="relevant ones to be kept")
    parser.add_argument("--drop", type=float, default=0.70, help="distractors to be dropped")
    arguments = parser.parse_args()
    token = os.environ.get("LAKEHOUSE_TOKEN")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    good = True
    with httpx.Client(base_url=GATEWAY, headers=headers, timeout=120, trust_env=False) as client:
        gateway = Gateway(client)
        for path in arguments.sets:
            dice = random.Random(f"{path.name}-{arguments.seed}")
            lists = (
                read_lists(path) if path.is_file() else build_lists(gateway, path, arguments, dice)
            )
            good &= report(path.name, gateway, lists, arguments.keep, arguments.drop)
    return 0 if good else 1


def read_lists(path: Path) -> list[Labelled]:
    """Labelled lists from a file."""
    found: list[Labelled] = []
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        right, wrong = row["relevant"], row["distractors"]
        found.append(
            Labelled(row["query"], right + wrong, [True] * len(right) + [False] * len(wrong))
        )
    return found


def build_lists(
    gateway: Gateway, folder: Path, arguments: argparse.Namespace, dice: random.Random
) -> list[Labelled]:
    """Labelled lists out of a judged set."""
    rows = [json.loads(x) for x in (folder / "corpus.jsonl").read_text("utf-8").splitlines()]
    texts = [f"{row.get('title', '')} {row['text']}".strip() for row in rows]
    numbers = {row["_id"]: n for n, row in enumerate(rows)}
    queries = {
        row["_id"]: row["text"]
        for row in map(json.loads, (folder / "queries.jsonl").read_text("utf-8").splitlines())
    }
    qrels = folder / "qrels.tsv"
    if not qrels.exists():
        qrels = folder / "qrels" / "test.tsv"
    wanted: dict[str, set[int]] = {}
    for line in qrels.read_text("utf-8").splitlines():
        query, document, score = line.split("\t")[:3]
        if document in numbers and query in queries and float(score) > 0:
            wanted.setdefault(query, set()).add(numbers[document])
    chosen = dice.sample(sorted(wanted), min(arguments.queries, len(wanted)))
    matrix = gateway.vectors(texts)
    asked = gateway.vectors([queries[name] for name in chosen])
    found: list[Labelled] = []
    for name, vector in zip(chosen, asked, strict=True):
        others = [int(n) for n in np.argsort(-(matrix @ vector)) if int(n) not in wanted[name]]
        near = others[: arguments.near]
        rest = others[arguments.near : 100]
        adjacent = dice.sample(rest, min(arguments.adjacent, len(rest)))
        candidates = [*sorted(wanted[name]), *near, *adjacent]
        dice.shuffle(candidates)
        found.append(
            Labelled(
                queries[name],
                [texts[n] for n in candidates],
                [n in wanted[name] for n in candidates],
            )
        )
    return found


def report(name: str, gateway: Gateway, lists: list[Labelled], keep: float, drop: float) -> bool:
    """Prints the figures of a set; gives whether they are good enough."""
    kept = np.array([k for one in lists for k in gateway.judge(one)])
    right = np.array([r for one in lists for r in one.relevant])
    heights: list[float] = []
    distances: list[float] = []
    for one in lists:
        vectors = gateway.vectors([one.query, *one.texts])
        cosines = vectors[1:] @ vectors[0]
        heights += cosines.tolist()
        distances += (cosines - cosines.max()).tolist()
    ours_keep, ours_drop = kept[right].mean(), (~kept)[~right].mean()
    level = max(ours_keep, keep)
    by_height = drop_at(np.array(heights), right, level)
    by_distance = drop_at(np.array(distances), right, level)
    good = bool(ours_keep >= keep and ours_drop >= drop and ours_drop > by_height)
    print(
        f"{name}: {len(lists)} queries, {right.sum()} relevant, {(~right).sum()} distractors. "
        f"Kept {ours_keep:.3f} of the relevant, dropped {ours_drop:.3f} of the distractors. "
        f"Cosine cut-off at the same keep rate: {by_height:.3f} by height, "
        f"{by_distance:.3f} by distance to the best. {'ok' if good else 'MISSED'}"
    )
    return good


def drop_at(scores: Any, right: Any, keep: float) -> float:
    """The share of wrong ones under the line that keeps so many of the right ones."""
    line = np.quantile(scores[right], 1 - keep, method="lower")
    return float((scores[~right] < line).mean())


if __name__ == "__main__":
    sys.exit(main())
