"""Candidates for callers that fuse by themselves: both lists as one, every score filled in.

A caller that calibrates dense against lexical scores needs both for each item, also for one
that only one of the two searches found; a missing score is not a low one.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from services.vectord.store.index import View
from services.vectord.store.search import Ask, Ranked, score_rows, search_view
from shared.errors import Invalid
from shared.wire.vectord import Metric


def find_candidates(
    view: View, metric: Metric, asks: Sequence[Ask], threads: int
) -> list[list[tuple[int, float, float]]]:
    """For each query the union of its dense and lexical lists as (row, dense, BM25).

    Dense hits come first, best first, then those that only the words found.

    Raises:
        Invalid: a query has no vector, or no text.
    """
    for number, ask in enumerate(asks):
        if ask.vector is None or ask.text is None:
            raise Invalid(f"queries[{number}]: candidates need a vector and a text.")
    found = search_view(view, metric, asks, threads)
    return [
        _fill_in(view, metric, ask, one.dense or [], one.lexical or [])
        for ask, one in zip(asks, found, strict=True)
    ]


def _fill_in(
    view: View, metric: Metric, ask: Ask, dense: Ranked, lexical: Ranked
) -> list[tuple[int, float, float]]:
    near, words = dict(dense), dict(lexical)
    by_words = [row for row in words if row not in near]
    by_vector = [row for row in near if row not in words]
    assert ask.vector is not None
    near |= dict(score_rows(view, metric, ask.vector, by_words))
    if view.searcher is not None and ask.text is not None:
        words |= dict(view.searcher.score(ask.text, by_vector))
    return [(row, near[row], words.get(row, 0.0)) for row in near]


def render_candidates(
    view: View, found: Sequence[tuple[int, float, float]], include: Sequence[str]
) -> dict[str, Any]:
    """One query's candidates in columns; vectors as base64 of little-endian float32."""
    table = view.table
    rows = [row for row, _, _ in found]
    answer: dict[str, Any] = {
        "ids": [table.ids[row] for row in rows],
        "dense": [score for _, score, _ in found],
        "lexical": [score for _, _, score in found],
    }
    if "text" in include:
        answer["texts"] = [table.texts[row] for row in rows]
    if "metadata" in include:
        answer["metadata"] = [orjson.Fragment(table.metadata[row]) for row in rows]
    if "vector" in include:
        flat = np.ascontiguousarray(view.matrix[rows], dtype="<f4") if rows else b""
        answer["vectors"] = base64.b64encode(flat).decode("ascii")
    return answer
