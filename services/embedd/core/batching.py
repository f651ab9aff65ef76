"""What is embedded next, and together with what.

Padding is wasted work, so texts of like length go together, up to a budget of padded tokens
(on one core a larger batch is no faster and holds the core longer). Whose turn it is follows
start-time fair queueing (Goyal et al. 1996): the n-th text of a request is due n steps after
the request came, so one query does not wait behind ten thousand texts of a corpus.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

# Lengths that share a batch differ by at most this part of the first one's.
SLACK = 1 / 8


@dataclass(eq=False)
class Waiting(Generic[T]):
    """One entry of the queue. `item` is None once it was taken or dropped."""

    item: T | None
    length: int
    due: int


class WorkQueue(Generic[T]):
    """Entries by due time and by length."""

    def __init__(self) -> None:
        self._alive = 0
        self._clock = 0
        self._count = 0
        self._heap: list[tuple[int, int, Waiting[T]]] = []
        self._by_length: dict[int, deque[Waiting[T]]] = {}

    def __len__(self) -> int:
        return self._alive

    def add(self, items: Iterable[tuple[T, int]], first: int = 0) -> list[Waiting[T]]:
        """Queues one request's items with their lengths; gives a handle for each.

        `first` is how many of the same request were queued before these.
        """
        added: list[Waiting[T]] = []
        for position, (item, length) in enumerate(items, first):
            entry = Waiting(item, length, self._clock + position)
            self._count += 1
            heapq.heappush(self._heap, (entry.due, self._count, entry))
            self._by_length.setdefault(length, deque()).append(entry)
            added.append(entry)
        self._alive += len(added)
        return added

    def drop(self, entry: Waiting[T]) -> None:
        """Takes an entry out that nobody waits for; one already taken is left alone."""
        if entry.item is not None:
            self._claim(entry)
            self._forget_if_empty()

    def take(self, max_items: int, max_padded: int | None = None) -> list[T]:
        """The entry that is due and others of like length, as many as the limits allow.

        Args:
            max_items: entries in one batch.
            max_padded: entries times the longest length among them; a single entry may be over.
        """
        first = self._pop_due()
        if first is None:
            return []
        self._clock = first.due
        longest = first.length
        batch = [self._claim(first)]
        for length in self._near(longest):
            together = max(longest, length)
            while len(batch) < max_items and (
                max_padded is None or together * (len(batch) + 1) <= max_padded
            ):
                entry = self._pop_of_length(length)
                if entry is None:
                    break
                batch.append(self._claim(entry))
                longest = together
        self._forget_if_empty()
        return batch

    def _near(self, length: int) -> list[int]:
        # Shorter before longer: they cost padding, the longer cost everyone padding.
        slack = int(length * SLACK)
        near = [n for n in self._by_length if abs(n - length) <= slack]
        return sorted(near, key=lambda n: (abs(n - length), n > length))

    def _claim(self, entry: Waiting[T]) -> T:
        item = entry.item
        assert item is not None
        entry.item = None
        self._alive -= 1
        return item

    def _forget_if_empty(self) -> None:
        # What was taken out of turn or dropped still stands in the heap or in a row.
        if not self._alive:
            self._heap.clear()
            self._by_length.clear()

    def _pop_due(self) -> Waiting[T] | None:
        while self._heap:
            entry = heapq.heappop(self._heap)[2]
            if entry.item is not None:
                return entry
        return None

    def _pop_of_length(self, length: int) -> Waiting[T] | None:
        row = self._by_length[length]
        while row:
            entry = row.popleft()
            if entry.item is not None:
                return entry
        del self._by_length[length]
        return None
