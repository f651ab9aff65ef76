"""BM25, the score of a text for the words asked for.

Robertson and Zaragoza (2009), in the form that Lucene uses, whose weights are never negative:
sum over words of ln(1 + (N - n + .5) / (n + .5)) * f * (k1 + 1) / (f + k1 * (1 - b + b * l / L))
with N texts, n of them holding the word, f occurrences in this text of l words, L on average.
"""

from __future__ import annotations

import math

K1 = 1.2
B = 0.75


def weigh_word(texts: int, holding: int) -> float:
    """A word's inverse document frequency, from how many of the texts hold it."""
    # Beside a writer the two figures may be of neighbouring instants.
    return math.log(1 + max(0.0, texts - holding + 0.5) / (holding + 0.5))


def damp(length: float, average: float) -> float:
    """What a count is damped by in a text of so many words, where so many are usual."""
    return K1 * (1 - B + B * length / max(average, 1e-9))


def score_count(idf: float, count: float, damping: float) -> float:
    """What one word adds to the score of a text that holds it `count` times."""
    return idf * count * (K1 + 1) / (count + damping)
