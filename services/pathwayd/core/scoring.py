"""How meaning and words become one score between 0 and 1.

    score = w * max(0, cosine) + (1 - w) * lexical
    lexical = tanh(bm25 / idf_sum)

Dividing BM25 by the summed weight of the query's words makes it 1 for a text of usual
length that holds each of them once, whatever the query; tanh keeps it below 1 without ties.
"""

from __future__ import annotations

import math


def squash(bm25: float, idf_sum: float) -> float:
    """BM25 as a number from 0 to 1."""
    return math.tanh(bm25 / idf_sum) if idf_sum > 0 else 0.0


def combine(cosine: float | None, lexical: float | None, weight: float) -> float:
    """The score of a hit. A trace without a vector gets nothing for meaning."""
    if lexical is None:
        return max(0.0, cosine or 0.0)
    return weight * max(0.0, cosine or 0.0) + (1 - weight) * lexical
