"""How a dense and a lexical list become one: reciprocal rank fusion.

Cormack, Clarke and Büttcher (SIGIR 2009): score = sum over lists of 1 / (60 + rank), rank
counted from 1. It needs no calibration of scores; callers that calibrate take the lists.
"""

from __future__ import annotations

from collections.abc import Sequence

RANK_OFFSET = 60


def fuse_ranks(lists: Sequence[Sequence[int]], k: int) -> list[tuple[int, float]]:
    """The best `k` rows of several ranked lists as (row, score); ties by the earlier list."""
    scores: dict[int, float] = {}
    for rows in lists:
        for rank, row in enumerate(rows, start=1):
            scores[row] = scores.get(row, 0.0) + 1.0 / (RANK_OFFSET + rank)
    # sorted is stable and dicts keep their order, so equal scores keep the lists' order.
    return sorted(scores.items(), key=lambda pair: -pair[1])[:k]
