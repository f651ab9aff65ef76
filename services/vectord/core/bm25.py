"""BM25 with the statistics of the texts that are alive."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from shared.bm25 import damp, score_count, weigh_word


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
        return weigh_word(self.texts, self._holding.get(word, 0))


def count_words(words: Sequence[str]) -> tuple[dict[str, int], int]:
    """How often each word occurs, and how many there are."""
    return dict(Counter(words)), len(words)


def score_words(
    counts: Counts, asked: Sequence[str], found: Mapping[str, int], length: int
) -> float:
    """The score of a text for the words asked for, each counted once."""
    average = counts.words / counts.texts if counts.texts > 0 else 1.0
    damping = damp(length, average)
    return math.fsum(
        score_count(counts.weight(word), times, damping)
        for word in asked
        if (times := found.get(word))
    )
