"""Which rows hold which words, and their BM25.

Postings lie in three flat arrays (compressed sparse rows) with a little that is new beside
them, which is taken up when it has grown. Weights count the rows that are searched now, so
that a score depends on these alone and not on what was there before; and all of it can be
written to a checkpoint as it stands.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from shared.bm25 import K1, B, damp, score_count, weigh_word

Rows = np.ndarray[Any, np.dtype[np.int32]]
Counts = np.ndarray[Any, np.dtype[np.uint16]]
Offsets = np.ndarray[Any, np.dtype[np.int64]]
Doubles = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

# Words of a query that are looked up; the rest of a long text adds little.
MAX_QUERY_WORDS = 256
# New postings beside the arrays before they are taken up: at least, and at most.
_FRESH_LEAST, _FRESH_MOST = 50_000, 200_000


class Frozen(NamedTuple):
    """Postings by word number: rows[offsets[w]:offsets[w + 1]], ascending, and counts."""

    offsets: Offsets
    rows: Rows
    counts: Counts

    @classmethod
    def empty(cls) -> Frozen:
        """No postings."""
        return cls(np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.uint16))

    def of_word(self, word: int) -> tuple[Rows, Counts]:
        """One word's rows and counts."""
        if word + 1 >= len(self.offsets):
            return self.rows[:0], self.counts[:0]
        start, stop = self.offsets[word], self.offsets[word + 1]
        return self.rows[start:stop], self.counts[start:stop]

    def words(self) -> Rows:
        """The word number of each posting."""
        lengths = np.diff(self.offsets)
        return np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)


class Part(NamedTuple):
    """Some postings in the order in which they came: word numbers, rows, counts."""

    words: array[int]
    rows: array[int]
    counts: array[int]

    @classmethod
    def empty(cls) -> Part:
        """No postings."""
        return cls(array("i"), array("i"), array("H"))


class Postings:
    """The words of all rows. One thread changes it; readers take views."""

    def __init__(self) -> None:
        self.vocabulary: dict[str, int] = {}
        # Rows searched now that hold each word.
        self.holding = array("i")
        self.lengths = array("i")
        self.texts = 0
        self.total_words = 0
        self.frozen = Frozen.empty()
        self._fresh = [Part.empty()]

    def add(self, row: int, words: Mapping[str, int], length: int) -> None:
        """Takes the words of the next row."""
        assert row == len(self.lengths)
        self.lengths.append(length)
        vocabulary, holding = self.vocabulary, self.holding
        numbers: list[int] = []
        for word in words:
            number = vocabulary.get(word)
            if number is None:
                number = vocabulary[word] = len(holding)
                holding.append(0)
            holding[number] += 1
            numbers.append(number)
        part = self._fresh[-1]
        part.words.extend(numbers)
        part.rows.extend([row] * len(numbers))
        part.counts.extend(words.values())
        self.texts += 1
        self.total_words += length

    def remove(self, words: Iterable[str], length: int) -> None:
        """Takes a row that is no longer searched out of the weights."""
        for word in words:
            self.holding[self.vocabulary[word]] -= 1
        self.texts -= 1
        self.total_words -= length

    def view(self) -> PostingsView:
        """The postings as they are now."""
        parts = [tuple(map(np.array, part)) for part in self._fresh if part.rows]
        return PostingsView(self, self.frozen, parts)

    # --- taking up what is new

    @property
    def is_due(self) -> bool:
        """Whether the new postings should be taken up."""
        quarter = len(self.frozen.rows) // 4
        return len(self._fresh[-1].rows) >= max(_FRESH_LEAST, min(quarter, _FRESH_MOST))

    def seal(self) -> tuple[Callable[[], Frozen], int]:
        """Sets the new postings apart; gives what merges them, and how many parts they are.

        The first may run in any thread; call `replace` with both results.
        """
        sealed, frozen, words = list(self._fresh), self.frozen, len(self.holding)
        self._fresh.append(Part.empty())

        def merge_all() -> Frozen:
            found = frozen
            for part in sealed:
                found = merge(found, part, words)
            return found

        return merge_all, len(sealed)

    def replace(self, frozen: Frozen, parts: int) -> None:
        """Puts merged postings in place of those they were made of."""
        self.frozen = frozen
        del self._fresh[:parts]

    @property
    def memory_bytes(self) -> int:
        """What it takes in memory, the words themselves nearly."""
        arrays = sum(part.nbytes for part in self.frozen) + 4 * len(self.lengths)
        return arrays + 130 * len(self.vocabulary) + sum(10 * len(p.rows) for p in self._fresh)


def merge(frozen: Frozen, part: Part, words: int) -> Frozen:
    """The postings of both, for `words` words. Rows in `part` follow all rows in `frozen`.

    Each word's new postings go behind its old ones, so nothing old is sorted again.
    """
    numbers = np.array(part.words)
    order = np.argsort(numbers, kind="stable")
    numbers = numbers[order]
    old = np.zeros(words, np.int64)
    old[: len(frozen.offsets) - 1] = np.diff(frozen.offsets)
    new = np.bincount(numbers, minlength=words)
    offsets = np.zeros(words + 1, np.int64)
    np.cumsum(old + new, out=offsets[1:])
    # Where the postings of a word begin among those of its own kind.
    old_starts, new_starts = np.cumsum(old) - old, np.cumsum(new) - new
    old_at = np.arange(len(frozen.rows)) + np.repeat(offsets[:-1] - old_starts, old)
    new_at = np.arange(len(numbers)) + (offsets[:-1] + old - new_starts)[numbers]
    rows, counts = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.uint16)
    rows[old_at], counts[old_at] = frozen.rows, frozen.counts
    rows[new_at], counts[new_at] = np.array(part.rows)[order], np.array(part.counts)[order]
    return Frozen(offsets, rows, counts)


def renumber(frozen: Frozen, new_row: Rows) -> Frozen:
    """The postings under other row numbers, which must keep their order; -1 drops a row."""
    moved = new_row[frozen.rows]
    keep = moved >= 0
    words = frozen.words()[keep]
    offsets = np.zeros(len(frozen.offsets), np.int64)
    np.cumsum(np.bincount(words, minlength=len(frozen.offsets) - 1), out=offsets[1:])
    return Frozen(offsets, moved[keep], frozen.counts[keep])


def keep_words(frozen: Frozen, used: Mask) -> Frozen:
    """The postings under the numbers that words have when only some stay; others have none."""
    offsets = np.zeros(int(used.sum()) + 1, np.int64)
    np.cumsum(np.diff(frozen.offsets)[used], out=offsets[1:])
    return frozen._replace(offsets=offsets)


class PostingsView:
    """The postings of one instant; the weights are those of when they are asked."""

    def __init__(
        self, postings: Postings, frozen: Frozen, parts: Sequence[tuple[Any, ...]]
    ) -> None:
        self._postings = postings
        self._frozen = frozen
        self._parts = parts
        self.texts = max(1, postings.texts)
        self.average = postings.total_words / self.texts

    def weigh(self, words: Sequence[str]) -> list[tuple[str, float]]:
        """The distinct words of a query with their weights; one that no text holds counts too."""
        found: list[tuple[str, float]] = []
        for word in list(dict.fromkeys(words))[:MAX_QUERY_WORDS]:
            number = self._postings.vocabulary.get(word)
            holding = 0 if number is None else self._postings.holding[number]
            found.append((word, weigh_word(self.texts, holding)))
        return found

    def score(self, weighed: Sequence[tuple[str, float]], total: int) -> Doubles:
        """BM25 of the first `total` rows."""
        scores = np.zeros(total, np.float64)
        lengths = np.array(self._postings.lengths[:total], np.float64)
        damping = K1 * (1 - B + B * lengths / max(self.average, 1e-9))
        for word, idf in weighed:
            for rows, counts in self._find(word):
                inside = rows if not len(rows) or rows[-1] < total else rows[rows < total]
                times = counts[: len(inside)].astype(np.float64)
                scores[inside] += idf * times * (K1 + 1) / (times + damping[inside])
        return scores

    def explain(
        self, weighed: Sequence[tuple[str, float]], row: int
    ) -> list[tuple[str, float, int, float]]:
        """What each word adds to a row's BM25, as (word, weight, count, adds)."""
        damping = damp(self._postings.lengths[row], self.average)
        found: list[tuple[str, float, int, float]] = []
        for word, idf in weighed:
            times = 0
            for rows, counts in self._find(word):
                at = int(np.searchsorted(rows, row))
                if at < len(rows) and rows[at] == row:
                    times = int(counts[at])
            found.append((word, idf, times, score_count(idf, times, damping)))
        return found

    def _find(self, word: str) -> Iterator[tuple[Rows, Counts]]:
        number = self._postings.vocabulary.get(word)
        if number is None:
            return
        yield self._frozen.of_word(number)
        for words, rows, counts in self._parts:
            at = np.flatnonzero(words == number)
            yield rows[at], counts[at]
