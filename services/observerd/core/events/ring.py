"""The newest events in memory: found by run, counted when they leave."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from itertools import islice

from services.observerd.core.events.figures import Breakdown
from services.observerd.core.events.records import Kept


class RunEvents:
    """The events of one run that are still in the ring, and how many are known not to be.

    `whole` says that `first` is the run's first event: false where it may have older ones.
    """

    def __init__(self, first: Kept, *, whole: bool) -> None:
        self.events: deque[Kept] = deque()
        self.first_seq = first.seq
        self.started_at = first.t
        self.evicted = 0
        opens = first.status == "started" and first.node_id is None and first.attempt == 1
        self.whole = whole or opens

    @property
    def complete(self) -> bool | None:
        """Whether all of the run's events are here; None where nobody knows."""
        return False if self.evicted else True if self.whole else None


class Ring:
    """At most `events` events of at most `size` bytes together; the oldest go first."""

    def __init__(self, events: int, size: int) -> None:
        self.capacity = events
        self.evicted = 0
        # Whether the ring has seen every event there ever was.
        self.whole = True
        self.figures = Breakdown()
        self._size = size
        self._bytes = 0
        self._events: deque[Kept] = deque()
        # By the latest event, newest last.
        self._runs: OrderedDict[str, RunEvents] = OrderedDict()

    def __len__(self) -> int:
        return len(self._events)

    @property
    def first_seq(self) -> int | None:
        """Seq of the oldest event in memory."""
        return self._events[0].seq if self._events else None

    def add(self, event: Kept) -> None:
        """Takes an event in; what no longer fits goes, and is counted."""
        self._events.append(event)
        self._bytes += len(event.blob)
        self.figures.count(event, 1)
        run = self._runs.get(event.run_id)
        if run is None:
            run = self._runs[event.run_id] = RunEvents(event, whole=self.whole)
        else:
            self._runs.move_to_end(event.run_id)
        run.events.append(event)
        while len(self._events) > self.capacity or (
            self._bytes > self._size and len(self._events) > 1
        ):
            self._evict()

    def _evict(self) -> None:
        gone = self._events.popleft()
        self._bytes -= len(gone.blob)
        self.evicted += 1
        self.whole = False
        self.figures.count(gone, -1)
        run = self._runs[gone.run_id]
        # Both lists are in the order of arrival, so the oldest of all is its run's oldest.
        run.events.popleft()
        run.evicted += 1
        if not run.events:
            del self._runs[gone.run_id]

    def after(self, seq: int, limit: int, run_id: str | None) -> list[Kept]:
        """The first `limit` events behind `seq`, of one run when it is named."""
        events = self._choose(run_id)
        return list(islice((event for event in events if event.seq > seq), limit))

    def newest(self, limit: int, run_id: str | None) -> list[Kept]:
        """The last `limit` events, of one run when it is named, oldest first."""
        return list(islice(reversed(self._choose(run_id)), limit))[::-1]

    def _choose(self, run_id: str | None) -> deque[Kept]:
        if run_id is None:
            return self._events
        run = self._runs.get(run_id)
        return run.events if run else deque()

    def run(self, run_id: str) -> RunEvents | None:
        """The events of one run."""
        return self._runs.get(run_id)

    def runs(self) -> Iterator[RunEvents]:
        """All runs by their latest event, newest first."""
        return reversed(self._runs.values())
