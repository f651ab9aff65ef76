"""One line of work to one model: texts asked for twice are computed once, in shared batches.

A text under way is a flight. Requests that want it wait on a ticket; a request that leaves
takes its ticket along, and a flight that nobody waits for any more is not begun (or, where
the provider can be told, is broken off). Batches form by themselves: while the model is
busy, what arrives is queued, and an idle model begins at once, so there is no waiting time
to choose.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar, cast

from services.embedd.core.batching import Waiting, WorkQueue
from services.embedd.core.lru import Entry
from services.embedd.store.figures import LaneFigures
from shared.errors import (
    Internal,
    Invalid,
    LakehouseError,
    TooLarge,
    Unavailable,
    Unprocessable,
)

logger = logging.getLogger("lakehouse.embedd")

P = TypeVar("P")

# Texts prepared in one go: short enough that cancelled ones are noticed.
PREPARE_AT_ONCE = 64
# A peer's word that one of the texts is at fault; the batch is then split to find it.
BLAMED_ON_TEXT = (Invalid, TooLarge, Unprocessable)


class Ticket:
    """What one request waits for: its texts that are not cached."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.found: dict[bytes, Entry] = {}
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Flight(Generic[P]):
    """One text on its way to a vector. `prepared` is what the provider computes from."""

    __slots__ = ("key", "length", "prepared", "text", "tickets", "waiting")

    def __init__(self, key: bytes, text: str) -> None:
        self.key = key
        self.text = text
        self.tickets: list[Ticket] = []
        self.prepared: P | None = None
        self.length = 0
        self.waiting: Waiting[Flight[P]] | None = None


class Lane(Generic[P]):
    """Queues, batches and single-flights the texts of one model.

    Args:
        prepare: what each text becomes before it is computed, and its length for batching.
        compute: vectors for a batch, in order.
        keep: takes each result, before whoever waits is told.
        at_once: batches computed at the same time.
        max_items: texts in one batch.
        max_padded: texts times the longest length; None for no such limit.
        can_break_off: whether a batch under way stops when it is cancelled.
    """

    def __init__(
        self,
        *,
        prepare: Callable[[Sequence[str]], Awaitable[list[tuple[P, int]]]],
        compute: Callable[[list[P]], Awaitable[list[Entry]]],
        keep: Callable[[bytes, Entry], None],
        figures: LaneFigures,
        at_once: int,
        max_items: int,
        max_padded: int | None = None,
        can_break_off: bool = False,
    ) -> None:
        self._prepare = prepare
        self._compute = compute
        self._keep = keep
        self._figures = figures
        self._at_once = at_once
        self._max_items = max_items
        self._max_padded = max_padded
        self._can_break_off = can_break_off
        self._flights: dict[bytes, Flight[P]] = {}
        self._queue: WorkQueue[Flight[P]] = WorkQueue()
        self._running: dict[asyncio.Task[None], list[Flight[P]]] = {}
        self._preparing: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way or waiting."""
        return not self._flights and not self._running and not self._preparing

    def count_new(self, keys: Iterable[bytes]) -> int:
        """How many of the keys are not under way already."""
        return sum(key not in self._flights for key in keys)

    @property
    def in_hand(self) -> int:
        """Texts waiting or being computed."""
        return len(self._flights)

    async def fetch(self, wanted: Mapping[bytes, str]) -> dict[bytes, Entry]:
        """What each key's text became.

        Raises:
            LakehouseError: the first failure; what others wait for goes on.
        """
        ticket = Ticket(len(wanted))
        joined: list[Flight[P]] = []
        new: list[Flight[P]] = []
        for key, text in wanted.items():
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = Flight(key, text)
                new.append(flight)
            flight.tickets.append(ticket)
            joined.append(flight)
        if new:
            # A context of its own: neither the deadline nor the id of the request that
            # happened to come first belongs to work that others share.
            task = asyncio.get_running_loop().create_task(
                self._prepare_all(new), context=contextvars.Context()
            )
            self._preparing.add(task)
            task.add_done_callback(self._preparing.discard)
        try:
            await ticket.done
        finally:
            if ticket.left:
                self._abandon(ticket, joined)
        return ticket.found

    async def aclose(self) -> None:
        """Ends everything under way."""
        self._closed = True
        tasks = [*self._preparing, *self._running]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fail([*self._flights.values()], Unavailable("embedd is stopping. Try again shortly."))

    async def _prepare_all(self, flights: list[Flight[P]]) -> None:
        queued = 0
        for start in range(0, len(flights), PREPARE_AT_ONCE):
            alive = [f for f in flights[start : start + PREPARE_AT_ONCE] if f.tickets]
            try:
                prepared = await self._prepare([flight.text for flight in alive])
            except LakehouseError as error:
                self._fail(flights[start:], error)
                return
            except Exception as error:
                self._fail(flights[start:], _unexpected(error))
                return
            ready: list[Flight[P]] = []
            for flight, (flight.prepared, flight.length) in zip(alive, prepared, strict=True):
                if flight.tickets:
                    ready.append(flight)
            self._enqueue(ready, queued)
            queued += len(ready)
            self._dispatch()

    def _enqueue(self, flights: Sequence[Flight[P]], first: int = 0) -> None:
        entries = self._queue.add([(flight, flight.length) for flight in flights], first)
        for flight, entry in zip(flights, entries, strict=True):
            flight.waiting = entry

    def _dispatch(self) -> None:
        if self._closed:
            return
        while len(self._running) < self._at_once:
            batch = self._queue.take(self._max_items, self._max_padded)
            if not batch:
                break
            loop = asyncio.get_running_loop()
            task = loop.create_task(self._run(batch), context=contextvars.Context())
            self._running[task] = batch
            task.add_done_callback(self._ended)
        self._figures.set_queued(len(self._queue))

    def _ended(self, task: asyncio.Task[None]) -> None:
        batch = self._running.pop(task)
        if task.cancelled():
            self._forget_unwanted(batch)
            # Asked for again in the moment in which the batch was being broken off.
            self._enqueue([f for f in batch if self._flights.get(f.key) is f])
        self._dispatch()

    async def _run(self, batch: list[Flight[P]]) -> None:
        begun = time.perf_counter()
        try:
            entries = await self._compute([cast("P", flight.prepared) for flight in batch])
        except BLAMED_ON_TEXT as error:
            if len(batch) == 1:
                self._fail(batch, error)
                return
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                await asyncio.sleep(0)  # who was told of a failure takes its other texts back
                self._forget_unwanted(half)
                if wanted := [flight for flight in half if flight.tickets]:
                    await self._run(wanted)
        except LakehouseError as error:
            self._figures.count_failure()
            self._fail(batch, error)
        except Exception as error:
            self._figures.count_failure()
            self._fail(batch, _unexpected(error))
        else:
            self._figures.observe_batch(entries, time.perf_counter() - begun)
            for flight, entry in zip(batch, entries, strict=True):
                self._settle(flight, entry)

    def _forget_unwanted(self, flights: Sequence[Flight[P]]) -> None:
        for flight in flights:
            if not flight.tickets and self._flights.get(flight.key) is flight:
                del self._flights[flight.key]

    def _settle(self, flight: Flight[P], entry: Entry) -> None:
        self._keep(flight.key, entry)
        self._flights.pop(flight.key, None)
        for ticket in flight.tickets:
            ticket.found[flight.key] = entry
            ticket.left -= 1
            if not ticket.left and not ticket.done.done():
                ticket.done.set_result(None)

    def _fail(self, flights: Sequence[Flight[P]], error: LakehouseError) -> None:
        for flight in flights:
            self._flights.pop(flight.key, None)
            for ticket in flight.tickets:
                if not ticket.done.done():
                    ticket.done.set_exception(error)

    def _abandon(self, ticket: Ticket, joined: Sequence[Flight[P]]) -> None:
        if ticket.done.done() and not ticket.done.cancelled():
            ticket.done.exception()  # read, so that it is not reported as unhandled
        for flight in joined:
            if self._flights.get(flight.key) is not flight:
                continue
            flight.tickets.remove(ticket)
            if flight.tickets:
                continue
            if flight.waiting is not None and flight.waiting.item is not None:
                self._queue.drop(flight.waiting)
                del self._flights[flight.key]
            elif flight.prepared is None:
                del self._flights[flight.key]
        self._figures.set_queued(len(self._queue))
        if self._can_break_off:
            for task, batch in self._running.items():
                if not any(flight.tickets for flight in batch):
                    task.cancel()


def _unexpected(error: Exception) -> LakehouseError:
    logger.error("Embedding failed", exc_info=error)
    return Internal(
        "Embedding failed in a way that was not foreseen. The log of embedd has the details."
    )
