"""The reporter never waits, never grows without end, and counts what it gives up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from shared import context
from shared.errors import Unavailable
from shared.reporter import BATCH, CAPACITY, Reporter

pytestmark = pytest.mark.anyio


class Sink:
    """Takes batches, as it is told."""

    def __init__(self) -> None:
        self.batches: list[list[dict[str, Any]]] = []
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.dropped = 0
        self.deadlines: list[float | None] = []

    async def send(self, events: Sequence[dict[str, Any]]) -> None:
        """One batch."""
        self.deadlines.append(context.deadline.get())
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.batches.append(list(events))

    def drop(self, count: int) -> None:
        """Counts."""
        self.dropped += count

    @property
    def taken(self) -> int:
        """Events that arrived."""
        return sum(map(len, self.batches))


async def test_events_go_in_batches_and_in_order() -> None:
    sink = Sink()
    reporter = Reporter(sink.send, sink.drop)
    context.deadline.set(time.monotonic() - 1)  # the request's, which is over
    for n in range(BATCH + 10):
        reporter.tell({"n": n})
    assert sink.batches == []
    await reporter.aclose()
    assert [len(batch) for batch in sink.batches] == [BATCH, 10]
    assert [e["n"] for batch in sink.batches for e in batch] == list(range(BATCH + 10))
    assert (sink.dropped, sink.deadlines) == (0, [None, None])
    reporter.tell({})
    assert sink.dropped == 1  # it is closed


async def test_what_does_not_fit_is_dropped_at_once_and_counted() -> None:
    sink = Sink()
    sink.gate = asyncio.Event()
    reporter = Reporter(sink.send, sink.drop)
    reporter.tell({})
    async with asyncio.timeout(5):
        while not sink.deadlines:
            await asyncio.sleep(0.01)
    begun = time.perf_counter()
    for _ in range(CAPACITY + 50):
        reporter.tell({})
    assert time.perf_counter() - begun < 0.5
    assert sink.dropped == 50
    sink.gate.set()
    await reporter.aclose()
    assert sink.taken == CAPACITY + 1


async def test_a_failure_costs_its_batch_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.reporter.REST_S", 0.01)
    sink = Sink()
    sink.error = Unavailable("away")
    reporter = Reporter(sink.send, sink.drop)
    reporter.tell({})
    async with asyncio.timeout(5):
        while not sink.dropped:
            await asyncio.sleep(0.01)
    sink.error = TypeError("an event of ours that is no JSON")
    reporter.tell({})
    async with asyncio.timeout(5):
        while sink.dropped < 2:
            await asyncio.sleep(0.01)
    sink.error = None
    reporter.tell({})
    await reporter.aclose()
    assert (sink.taken, sink.dropped) == (1, 2)


async def test_a_stop_waits_a_moment_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.reporter.LAST_S", 0.05)
    sink = Sink()
    sink.gate = asyncio.Event()
    reporter = Reporter(sink.send, sink.drop)
    for _ in range(3):
        reporter.tell({})
    begun = time.perf_counter()
    await reporter.aclose()
    assert time.perf_counter() - begun < 1
    assert (sink.taken, sink.dropped) == (0, 3)
