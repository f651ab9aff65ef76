"""One search over one view of the index, in a thread: what is allowed, what is near, what fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from services.pathwayd.core.scoring import combine, squash
from services.pathwayd.core.traces import Trace
from services.pathwayd.core.words import split_words
from services.pathwayd.store.index import LIVE, SUPERSEDED, View
from services.pathwayd.store.planes import Floats, Mask
from services.pathwayd.store.postings import PostingsView
from shared.filters.language import Filter

# Candidates that each side brings, at least, and times what is wanted.
_LEAST, _TIMES = 100, 4


@dataclass(frozen=True, slots=True)
class Ask:
    """A search. `vector` has length 1 and is of `model`; without it words decide."""

    text: str | None
    vector: Floats | None
    model: str | None
    k: int
    filter: Filter | None
    weight: float
    superseded: bool = False
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A hit. Ranks are those among the candidates of each side, from 1."""

    row: int
    trace: Trace
    score: float
    cosine: float | None
    lexical: float | None
    bm25: float
    semantic_rank: int | None
    lexical_rank: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits, how many traces were allowed, and what the words weighed.

    `postings` are those that were searched; by the time that a score is explained, the index
    may be another one, with other rows.
    """

    found: Sequence[Found]
    matched: int
    mode: Literal["hybrid", "semantic", "lexical", "filter"]
    weighed: Sequence[tuple[str, float]]
    idf_sum: float
    postings: PostingsView | None = None


def search_view(view: View, ask: Ask) -> Answer:
    """The best hits, best first; equal scores by id."""
    total = len(view.marks)
    allowed: Mask = view.marks == LIVE
    if ask.superseded:
        allowed |= view.marks == SUPERSEDED
    if ask.filter is not None:
        allowed = allowed & view.columns.mask(ask.filter, total)
    matched = int(allowed.sum())
    if ask.text is None and ask.vector is None:
        return Answer(_list_newest(view, allowed, ask.k), matched, "filter", (), 0.0)
    wide = max(_LEAST, _TIMES * ask.k)
    space = view.spaces.get(ask.model or "") if ask.vector is not None else None
    semantic: list[tuple[int, float]] = []
    if space is not None and ask.vector is not None:
        semantic = space.find_nearest(ask.vector, allowed, wide)
    weighed = view.postings.weigh(split_words(ask.text)) if ask.text is not None else []
    idf_sum = sum(idf for _, idf in weighed)
    bm25 = view.postings.score(weighed, total) if weighed else np.zeros(total)
    lexical = _best(bm25, allowed, wide)
    cosines = dict(semantic)
    if space is not None and ask.vector is not None:
        others = [row for row in lexical if row not in cosines]
        cosines |= space.score_rows(ask.vector, others, total) if others else {}
    rows = dict.fromkeys([row for row, _ in semantic] + lexical)
    semantic_ranks = {row: rank for rank, (row, _) in enumerate(semantic, start=1)}
    lexical_ranks = {row: rank for rank, row in enumerate(lexical, start=1)}
    by_words = ask.text is not None
    weight = ask.weight if ask.vector is not None else 0.0
    found: list[Found] = []
    for row in rows:
        words = squash(float(bm25[row]), idf_sum) if by_words else None
        cosine = cosines.get(row)
        score = round(combine(cosine, words, weight), 6)
        if ask.threshold is None or score >= ask.threshold:
            ranks = semantic_ranks.get(row), lexical_ranks.get(row)
            trace = view.entries[row]
            found.append(Found(row, trace, score, cosine, words, float(bm25[row]), *ranks))
    found.sort(key=lambda one: (-one.score, one.trace.id))
    mode = "lexical" if ask.vector is None else "hybrid" if by_words else "semantic"
    return Answer(found[: ask.k], matched, mode, weighed, idf_sum, view.postings)


def _best(scores: np.ndarray[Any, np.dtype[np.float64]], allowed: Mask, count: int) -> list[int]:
    """The allowed rows with the greatest scores above zero, greatest first, ties by row."""
    rows = np.flatnonzero(allowed & (scores > 0))
    if len(rows) > count:
        floor = np.partition(scores[rows], len(rows) - count)[len(rows) - count]
        rows = rows[scores[rows] >= floor]
    return rows[np.lexsort((rows, -scores[rows]))][:count].tolist()


def _list_newest(view: View, allowed: Mask, k: int) -> list[Found]:
    # A change makes a new row, so the last rows are the newest.
    rows = np.flatnonzero(allowed)[::-1][:k].tolist()
    return [Found(row, view.entries[row], 0.0, None, None, 0.0, None, None) for row in rows]
