"""What the playbook adds to a search at 10,000 notes.

Recording that many through the gateway would take longer than all the rest, so the daemon's
own core is timed in this process: notes and cold lists as the trial gave them, with vectors
moved a little, until there are enough.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from scripts.lift.edge import Found
from scripts.lift.judge import judge_honestly
from scripts.lift.trial import Trial
from services.matrixd.core.cold import ColdList
from services.matrixd.core.playbook import Episode, Playbook, Rating
from services.matrixd.core.playbook.episodes import COMPARED
from services.matrixd.core.playbook.kindred import SCALE

NOTES = 10_000
ASKED = 200
# How far a copy's query lies from its original: cosine about .8.
MOVED = 0.04


def time_playbook(trial: Trial, notes: int = NOTES) -> dict[str, float]:
    """Milliseconds of one rerank (p50, p95), and of building and recording."""
    tested = [*trial.repeated, *trial.held, *trial.plan.unseen]
    texts = sorted({query.text for query in tested})
    vectors = dict(zip(texts, np.array(trial.edge.embed(texts), np.float32), strict=True))
    dice = np.random.default_rng(5)
    lists = {query.id: _to_cold(trial.shown[query.id]) for query in tested}
    episodes: list[Episode] = []
    for number in range(notes):
        query = tested[number % len(tested)]
        cold = lists[query.id]
        relevant = trial.judged.relevant[query.id]
        ratings = judge_honestly(cold.refs[:10], relevant)
        vector = _move(vectors[query.text], dice)
        known = {ref: _move(vector, dice) for ref, rating in ratings if rating > 0}
        rated = tuple(Rating(c, i, r) for (c, i), r in ratings)
        shown = cold.head(COMPARED)
        kin = dice.integers(-SCALE, SCALE, (len(rated), len(shown.refs)), np.int16)
        episodes.append(
            Episode(
                f"{number}",
                number,
                query.text,
                vector,
                shown,
                rated,
                "judge",
                documents=known,
                kin=kin,
            )
        )
    begun = time.perf_counter()
    playbook = Playbook.build(episodes[:-1])
    built = time.perf_counter()
    playbook = playbook.record(episodes[-1])
    recorded = time.perf_counter()
    strictness = playbook.strictness
    settled = time.perf_counter()
    spent: list[float] = []
    for number in range(ASKED):
        query = tested[number % len(tested)]
        # The best of three: what else runs on this machine is not the playbook's.
        tries: list[float] = []
        for _ in range(3):
            start = time.perf_counter()
            playbook.rerank(query.text, vectors[query.text], lists[query.id])
            tries.append(1000 * (time.perf_counter() - start))
        spent.append(min(tries))
    return {
        "notes": float(notes),
        "p50_ms": float(np.percentile(spent, 50)),
        "p95_ms": float(np.percentile(spent, 95)),
        "build_s": built - begun,
        "record_ms": 1000 * (recorded - built),
        "settle_ms": 1000 * (settled - recorded),
        "strictness": strictness,
    }


def _to_cold(found: Found) -> ColdList:
    parts = {
        name: np.array([each[name] for each in found.explained], np.float64)
        for name in ("p0", "cosine", "bm25")
    }
    return ColdList(found.refs, parts["p0"], parts["cosine"], parts["bm25"])


def _move(vector: NDArray[np.float32], dice: np.random.Generator) -> NDArray[np.float32]:
    moved = vector + dice.normal(0, MOVED, len(vector)).astype(np.float32)
    return (moved / np.linalg.norm(moved)).astype(np.float32)
