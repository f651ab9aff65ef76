"""Retrieval figures of one list, and what can be said of many.

nDCG@10 with gains as judged and log2 discounts (Järvelin and Kekäläinen 2002). Intervals are
from a bootstrap over topics, because queries of one topic are not independent; p-values from
flipping the signs of topics' mean differences; several of them are corrected by Holm's way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DEPTH = 10
RESAMPLES = 4000
FLIPS = 10_000
# A difference of nDCG@10 that counts as a win or a loss.
NOTICED = 0.01


@dataclass(frozen=True, slots=True)
class Scores:
    """One list's figures, each at 10."""

    ndcg: float
    mrr: float
    top1: float
    recall: float


def score_list(ids: Sequence[str], relevant: Mapping[str, float]) -> Scores:
    """The figures of a ranked list of document ids."""
    head = list(ids[:DEPTH])
    gained = sum(relevant.get(d, 0.0) / math.log2(r + 2) for r, d in enumerate(head))
    best = sorted(relevant.values(), reverse=True)[:DEPTH]
    ideal = sum(gain / math.log2(rank + 2) for rank, gain in enumerate(best))
    ranks = [rank for rank, d in enumerate(head, start=1) if d in relevant]
    return Scores(
        gained / ideal if ideal else 0.0,
        1 / ranks[0] if ranks else 0.0,
        1.0 if ranks and ranks[0] == 1 else 0.0,
        len(ranks) / min(len(relevant), DEPTH) if relevant else 0.0,
    )


@dataclass(frozen=True, slots=True)
class Pair:
    """One query's nDCG@10 before and after; `topic` is the cluster it belongs to."""

    topic: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """What pairs say together.

    Attributes:
        queries, topics: how many.
        before, after: mean nDCG@10.
        delta: mean difference; low and high bound its 95 % interval.
        headroom: part of what was missing to 1 that was gained.
        wins, losses: queries that changed noticeably.
        p: of the sign-flip test, two-sided.
    """

    queries: int
    topics: int
    before: float
    after: float
    delta: float
    low: float
    high: float
    headroom: float
    wins: int
    losses: int
    p: float


def compare(pairs: Sequence[Pair], seed: int = 7) -> Comparison:
    """Compares after with before."""
    if not pairs:
        return Comparison(0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 1.0)
    before = np.array([pair.before for pair in pairs])
    delta = np.array([pair.after for pair in pairs]) - before
    topics = sorted({pair.topic for pair in pairs})
    number = {topic: at for at, topic in enumerate(topics)}
    member = np.array([number[pair.topic] for pair in pairs])
    sums = np.bincount(member, delta, len(topics))
    sizes = np.bincount(member, minlength=len(topics)).astype(float)
    dice = np.random.default_rng(seed)
    drawn = dice.integers(0, len(topics), (RESAMPLES, len(topics)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    missing = float((1 - before).sum())
    return Comparison(
        len(pairs),
        len(topics),
        float(before.mean()),
        float((before + delta).mean()),
        float(delta.mean()),
        float(low),
        float(high),
        float(delta.sum()) / missing if missing > 0 else 0.0,
        int((delta > NOTICED).sum()),
        int((delta < -NOTICED).sum()),
        _flip_signs(sums, dice),
    )


def _flip_signs(
    sums: np.ndarray[tuple[int], np.dtype[np.float64]], dice: np.random.Generator
) -> float:
    moved = sums[sums != 0]
    if not len(moved):
        return 1.0
    signs = dice.integers(0, 2, (FLIPS, len(moved))) * 2 - 1
    reached = np.abs((signs * moved).sum(axis=1)) >= abs(moved.sum()) - 1e-12
    return float((reached.sum() + 1) / (FLIPS + 1))


def correct_by_holm(p: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values (Holm 1979)."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(sorted(p, key=lambda each: (p[each], each))):
        highest = max(highest, min(1.0, p[name] * (len(p) - place)))
        adjusted[name] = highest
    return adjusted
