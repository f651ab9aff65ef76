"""How meaning and words become one score between 0 and 1.

    score = w * max(0, cosine) + (1 - w) * lexical
    lexical = tanh(bm25 / idf_sum)

BM25 is that of Robertson and Zaragoza (2009) with Lucene's weights, which are never
negative. Dividing by the summed weight of the query's words makes it 1 for a text of usual
length that holds each of them once, whatever the query; tanh keeps it below 1 without ties.
"""

from __future__ import annotations

import math

K1 = 1.2
B = 0.75


def weigh_word(texts: int, holding: int) -> float:
    """A word's inverse document frequency, from how many of the texts hold it."""
    return math.log(1 + max(0.0, texts - holding + 0.5) / (holding + 0.5))


def damp(length: float, average: float) -> float:
    """What a count is damped by in a text of so many words, where so many are usual."""
    return K1 * (1 - B + B * length / max(average, 1e-9))


def score_count(idf: float, count: float, damping: float) -> float:
    """What one word adds to BM25."""
    return idf * count * (K1 + 1) / (count + damping)


def squash(bm25: float, idf_sum: float) -> float:
    """BM25 as a number from 0 to 1."""
    return math.tanh(bm25 / idf_sum) if idf_sum > 0 else 0.0


def combine(cosine: float | None, lexical: float | None, weight: float) -> float:
    """The score of a hit. A trace without a vector gets nothing for meaning."""
    if lexical is None:
        return max(0.0, cosine or 0.0)
    return weight * max(0.0, cosine or 0.0) + (1 - weight) * lexical
