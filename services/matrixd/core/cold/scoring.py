"""Candidates of several corpora as one list of comparable probabilities.

A logistic of four things: the cosine above the corpus' middle; the log of the rank by that
among the candidates of all corpora; the share that the document's calibrated BM25 has of the
query's best; and the best score in the same corpus, because where one document fits well its
neighbours are likelier right than those of a corpus without any. Weights were fitted on
job titles, answers of web forums and requests to an assistant, and hold for each of the three
when fitted on the other two (reports/reality-tests/RECORD.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from services.matrixd.core.cold.calibration import Calibration
from services.matrixd.core.cold.candidates import Candidates, ColdList, Floats, Ref

COSINE = 6.0
LOG_RANK = -1.1
LEXICAL = 1.2
CORPUS = 1.0
INTERCEPT = -1.3


def rank_cold(
    lists: Sequence[tuple[Candidates, Calibration]], lexical: Mapping[str, float] | None = None
) -> ColdList:
    """All candidates with p0, best first, ties by (corpus, id).

    The order of the corpora and of the candidates within them does not matter.

    Args:
        lists: what each corpus found, and what its scores mean.
        lexical: the weight of words in corpora that were tuned to another than the usual.
    """
    lists = sorted((pair for pair in lists if pair[0].ids), key=lambda pair: pair[0].corpus)
    refs: list[Ref] = []
    for found, _ in lists:
        refs.extend((found.corpus, identifier) for identifier in found.ids)
    if not refs:
        empty = np.zeros(0)
        return ColdList((), empty, empty, empty)
    cosine = np.concatenate([found.cosine for found, _ in lists]).astype(np.float64)
    bm25 = np.concatenate([found.bm25 for found, _ in lists]).astype(np.float64)
    above = np.concatenate([found.cosine - scale.middle for found, scale in lists])
    words = np.concatenate([found.bm25 / scale.lexical for found, scale in lists])
    best_words = float(words.max())
    if best_words > 0:
        words = words / best_words
    weights = [(lexical or {}).get(found.corpus, LEXICAL) for found, _ in lists]
    linear = COSINE * above + np.repeat(weights, [len(found.ids) for found, _ in lists]) * words
    # Equal cosines share a rank, so that the order of arrival cannot tell.
    ranks = 1 + np.searchsorted(np.sort(-above), -above, side="left")
    logit = linear + LOG_RANK * np.log(ranks) + INTERCEPT
    if len(lists) > 1:
        logit = logit + CORPUS * _corpus_bests(lists, linear)
    p0 = 1.0 / (1.0 + np.exp(-logit))
    order = sorted(range(len(refs)), key=lambda at: (-p0[at], refs[at]))
    return ColdList(tuple(refs[at] for at in order), p0[order], cosine[order], bm25[order])


def _corpus_bests(lists: Sequence[tuple[Candidates, Calibration]], linear: Floats) -> Floats:
    # Against the best corpus, so that searching one more, worse corpus changes nothing.
    sizes = [len(found.ids) for found, _ in lists]
    bests = np.maximum.reduceat(linear, np.cumsum([0, *sizes[:-1]]))
    return np.repeat(bests - bests.max(), sizes)
