"""BM25 with the statistics of the texts that are alive.

Robertson and Zaragoza (2009), in the form that Lucene uses, whose weights are never negative:
sum over words of ln(1 + (N - n + .5) / (n + .5)) * f * (k1 + 1) / (f + k1 * (1 - b + b * l / L))
with N texts, n of them holding the word, f occurrences in this text of l words, L on average.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

K1 = 1.2
B = 0.75


class Counts:
    """How many texts there are, how long together, and how many hold each word."""

    def __init__(self) -> None:
        self.texts = 0
        self.words = 0
        self._holding: dict[str, int] = {}

    def add(self, words: Sequence[str]) -> None:
        """Counts a text."""
        self.texts += 1
        self.words += len(words)
        for word in set(words):
            self._holding[word] = self._holding.get(word, 0) + 1

    def remove(self, words: Sequence[str]) -> None:
        """Takes back a text that was counted."""
        self.texts -= 1
        self.words -= len(words)
        for word in set(words):
            left = self._holding[word] - 1
            if left:
                self._holding[word] = left
            else:
                del self._holding[word]

    def weight(self, word: str) -> float:
        """How much a word tells: its inverse document frequency."""
        holding = self._holding.get(word, 0)
        # Beside a writer the two figures may be of neighbouring instants.
        return math.log(1 + max(0.0, self.texts - holding + 0.5) / (holding + 0.5))


def count_words(words: Sequence[str]) -> tuple[dict[str, int], int]:
    """How often each word occurs, and how many there are."""
    return dict(Counter(words)), len(words)


def score_words(
    counts: Counts, asked: Sequence[str], found: Mapping[str, int], length: int
) -> float:
    """The score of a text for the words asked for, each counted once."""
    average = counts.words / counts.texts if counts.texts > 0 else 1.0
    damping = K1 * (1 - B + B * length / max(average, 1e-9))
    return math.fsum(
        counts.weight(word) * times * (K1 + 1) / (times + damping)
        for word in asked
        if (times := found.get(word))
    )
