"""Searching one view: dense, lexical, or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from services.vectord.core.fusion import fuse_ranks
from services.vectord.core.plans import plan_width, widen
from services.vectord.store.index import View
from services.vectord.store.table import Matrix
from shared.filters.language import Filter
from shared.wire.vectord import Metric

Rows = np.ndarray[Any, np.dtype[np.intp]]
Ranked = list[tuple[int, float]]
# Rows scored at once in a scan: bounds the copy that is made of them.
_SCAN_BLOCK = 16_384


@dataclass(frozen=True, slots=True)
class Ask:
    """One query as searched. `vector` is float32 of the index's dimension."""

    vector: Matrix | None
    text: str | None
    k: int
    ef: int
    filter: Filter | None


@dataclass(frozen=True, slots=True)
class Found:
    """Rows of the view with scores, best first; each list is there when it was searched."""

    hits: Ranked
    dense: Ranked | None
    lexical: Ranked | None


def search_view(view: View, metric: Metric, asks: Sequence[Ask], threads: int) -> list[Found]:
    """Answers queries on one view, all of them on the same items.

    Queries that differ only in their vector go through the graph together.
    """
    dense: list[Ranked | None] = [None] * len(asks)
    groups: dict[tuple[int, int, Filter | None], list[int]] = {}
    for number, ask in enumerate(asks):
        if ask.vector is not None:
            groups.setdefault((ask.k, ask.ef, ask.filter), []).append(number)
    for (k, ef, given), numbers in groups.items():
        queries = np.stack([vector for n in numbers if (vector := asks[n].vector) is not None])
        allowed = Allowance(view, given)
        answers = search_dense(view, metric, queries, k, ef, allowed, threads)
        for number, ranked in zip(numbers, answers, strict=True):
            dense[number] = ranked
    return [_finish(view, ask, found) for ask, found in zip(asks, dense, strict=True)]


def _finish(view: View, ask: Ask, dense: Ranked | None) -> Found:
    lexical: Ranked | None = None
    if ask.text is not None:
        lexical = []
        if view.searcher is not None:
            allowed = Allowance(view, ask.filter)
            lexical = view.searcher.search(ask.text, ask.k, allowed.mask, allowed.count)
    if dense is not None and lexical is not None:
        lists = [[row for row, _ in ranked] for ranked in (dense, lexical)]
        return Found(fuse_ranks(lists, ask.k), dense, lexical)
    return Found(dense if dense is not None else lexical or [], dense, lexical)


class Allowance:
    """Which rows of a view a query may hit."""

    def __init__(self, view: View, given: Filter | None) -> None:
        self.mask = view.alive
        self._all = given is None
        self._live = view.live
        if given is not None:
            self.mask = view.alive & view.columns.mask(given, view.rows)

    def count(self) -> int:
        """How many rows that are."""
        return self._live if self._all else int(np.count_nonzero(self.mask))


def search_dense(
    view: View,
    metric: Metric,
    queries: Matrix,
    k: int,
    ef: int,
    allowed: Allowance,
    threads: int,
) -> list[Ranked]:
    """The nearest allowed rows of each query, with exact scores, best first."""
    graph, covered = view.graph, view.graph_rows
    mask = allowed.mask
    exact = np.flatnonzero(mask[covered:]) + covered  # scanned beside the graph
    near: list[Rows | None] = [None] * len(queries)
    scan_all = list(range(len(queries)))
    if graph is not None:
        in_graph = allowed.count() - len(exact)
        width = plan_width(k, ef, graph.size, in_graph)
        wanted = min(k, in_graph)
        while width is not None and scan_all:
            labels = graph.search(queries[scan_all], width, threads if len(scan_all) > 1 else 1)
            if labels is None:
                break
            labels = labels.astype(np.intp)
            if in_graph == graph.size:
                labels, keep = labels[:, :k], None
            else:
                keep = mask[labels]
            short: list[int] = []
            for at, number in enumerate(scan_all):
                rows = labels[at] if keep is None else labels[at][keep[at]]
                if len(rows) < wanted:
                    short.append(number)
                else:
                    near[number] = rows[:k]
            scan_all = short
            width = widen(width, graph.size)
    beside = _scan(view, metric, queries, exact, k) if len(exact) else None
    if scan_all and covered:
        scanned = _scan(view, metric, queries[scan_all], np.flatnonzero(mask[:covered]), k)
        for number, rows in zip(scan_all, scanned, strict=True):
            near[number] = rows
    return _rank(view, metric, queries, _lay_out(near, beside), k)


def _lay_out(near: list[Rows | None], beside: list[Rows] | None) -> Rows:
    """The candidates of each query as one array, a line each, filled up with -1."""
    parts = near if beside is None else [*near, *beside]
    width = sum(
        max((0 if rows is None else len(rows) for rows in half), default=0)
        for half in ((near,) if beside is None else (near, beside))
    )
    laid = np.full((len(near), width), -1, np.intp)
    first = max((len(rows) for rows in near if rows is not None), default=0)
    for number, rows in enumerate(parts):
        if rows is not None:
            line, start = (number, 0) if number < len(near) else (number - len(near), first)
            laid[line, start : start + len(rows)] = rows
    return laid


def _scan(view: View, metric: Metric, queries: Matrix, rows: Rows, k: int) -> list[Rows]:
    """The best `k` of some rows for each query, in no order, by comparing with every one."""
    best: list[list[tuple[Rows, Any]]] = [[] for _ in queries]
    for start in range(0, len(rows), _SCAN_BLOCK):
        block = rows[start : start + _SCAN_BLOCK]
        # Rows that follow one another are looked at in place.
        dense = len(block) == block[-1] - block[0] + 1
        vectors = view.matrix[block[0] : block[-1] + 1] if dense else view.matrix[block]
        scores = vectors @ queries.T
        if metric == "cosine":
            scores /= view.norms[block][:, None]
        elif metric == "l2":
            scores = 2 * scores - np.square(view.norms[block])[:, None]
        for number in range(len(queries)):
            column = scores[:, number]
            # A few more than k, since the exact scores come later and may differ in the last bit.
            count = min(len(block), k + 8)
            top = np.argpartition(-column, count - 1)[:count]
            best[number].append((block[top], column[top]))
    return [_best_of(parts, k) for parts in best]


def _best_of(parts: list[tuple[Rows, Any]], k: int) -> Rows:
    if not parts:
        return np.empty(0, np.intp)
    if len(parts) == 1:
        return parts[0][0]
    rows = np.concatenate([part[0] for part in parts])
    scores = np.concatenate([part[1] for part in parts])
    return rows[np.argsort(-scores, kind="stable")[: k + 8]]


def score_rows(view: View, metric: Metric, vector: Matrix, rows: Sequence[int]) -> Ranked:
    """Given rows with their exact scores for one query, as a search would score them."""
    if not rows:
        return []
    return _rank(view, metric, vector[None], np.array([rows], np.intp), len(rows))[0]


def _rank(view: View, metric: Metric, queries: Matrix, rows: Rows, k: int) -> list[Ranked]:
    """Each query's rows with their exact scores, best first, equal ones by row.

    Every pair is scored alone and in double precision, so that a score does not depend on
    how the row was found: by the graph, by a scan, before a restart or after it.
    """
    if not rows.size:
        return [[] for _ in queries]
    vectors, wide = view.matrix[rows], queries.astype(np.float64)[:, None, :]
    if metric == "l2":
        scores = -np.sqrt(np.square(vectors - wide).sum(axis=2))
    else:
        scores = np.multiply(vectors, wide).sum(axis=2)
        if metric == "cosine":
            norms = np.sqrt(np.square(wide).sum(axis=2))
            scores = np.clip(scores / (view.norms[rows].astype(np.float64) * norms), -1.0, 1.0)
    scores[rows < 0] = -np.inf
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    rows = np.take_along_axis(rows, order, 1)
    scores = np.take_along_axis(scores, order, 1)
    return [
        [(row, score) for row, score in zip(line, values, strict=True) if row >= 0]
        for line, values in zip(rows.tolist(), scores.tolist(), strict=True)
    ]
