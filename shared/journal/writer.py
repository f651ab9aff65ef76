"""Group commit: one thread that writes and syncs what all callers handed in meanwhile.

While the disk syncs one group, the next one gathers. A group is everything that waits when
the thread comes back, so the busier the daemon, the larger the groups and the less one
record costs. Callers on an event loop are woken together: one `call_soon_threadsafe` a
group, whatever its size.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from shared.errors import InsufficientStorage, LakehouseError, RateLimited, TooLarge, Unavailable
from shared.journal.disk import out_of_storage
from shared.journal.tail import Tail

# After a group of many, the thread waits for as many to gather again, but no longer than
# this part of a sync (and this many seconds): their callers are just being woken, and a
# group that leaves without them costs a whole sync for few records.
_HOLD_PART = 0.25
_HOLD_MOST_S = 0.001
# More than this goes into the next group, so that no caller waits for a gigantic one.
_GROUP_BYTES = 8 << 20


class Ticket:
    """What one call handed in, and how to tell it. `first_seq` is set when it is written."""

    __slots__ = ("blobs", "done", "error", "first_seq", "future", "loop", "seal", "size")

    def __init__(
        self,
        blobs: list[bytes],
        size: int,
        loop: asyncio.AbstractEventLoop | None = None,
        future: asyncio.Future[int] | None = None,
        *,
        seal: bool = False,
    ) -> None:
        self.blobs = blobs
        self.size = size
        self.loop = loop
        self.future = future
        self.first_seq = 0
        self.error: LakehouseError | None = None
        self.seal = seal
        self.done: threading.Lock | None = None
        if loop is None:
            # A held lock is the cheapest thing that another thread can let go.
            self.done = threading.Lock()
            self.done.acquire()

    def wait(self) -> None:
        """Blocks a thread until its ticket is settled, and raises what it was settled with."""
        if self.done is not None:
            self.done.acquire()
        if self.error is not None:
            raise self.error


class GroupWriter:
    """The queue, its bounds, and the thread, which is started by the first `submit`."""

    def __init__(
        self, tail: Tail, clock: Callable[[], int], *, max_records: int, max_bytes: int
    ) -> None:
        self.failure: InsufficientStorage | None = None
        self.pending_records = 0
        self.pending_bytes = 0
        self.appended = 0
        self.groups = 0
        self.refused = 0
        self._tail = tail
        self._clock = clock
        self._max_records = max_records
        self._max_bytes = max_bytes
        # Entered directly wherever nothing waits: a Condition costs as much again.
        self._lock = threading.Lock()
        self._bell = threading.Condition(self._lock)
        self._queue: deque[Ticket] = deque()
        self._wanted = 1
        self._idle = False
        self._ringing: asyncio.AbstractEventLoop | None = None
        self._closing = False
        self._thread: threading.Thread | None = None

    def enqueue(self, blobs: list[bytes], size: int) -> asyncio.Future[int]:
        """Queues payloads for the running event loop; gives the first one's seq when durable.

        Raises:
            As `submit`, at once; what the disk refuses later is the future's exception.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        self.submit(Ticket(blobs, size, loop, future))
        return future

    def submit(self, ticket: Ticket) -> None:
        """Queues a ticket; the thread settles it.

        Raises:
            InsufficientStorage: the log is read-only.
            RateLimited: the queue is full. Nothing was queued.
            TooLarge: the ticket is larger than the whole queue may be.
            Unavailable: the journal is closed.
        """
        count = len(ticket.blobs)
        with self._lock:
            if self.failure is not None:
                raise _again(self.failure)
            if self._closing:
                raise Unavailable("The log is closed: the daemon is stopping. Send it again later.")
            records, size = self.pending_records + count, self.pending_bytes + ticket.size
            if records > self._max_records or size > self._max_bytes:
                self._refuse(count, ticket.size)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="journal", daemon=True)
                thread.start()
                self._thread = thread
            self.pending_records, self.pending_bytes = records, size
            self._queue.append(ticket)
            if self._idle and (self._ringing is not ticket.loop or ticket.loop is None):
                self._ring_for(ticket.loop)

    def close(self) -> None:
        """Writes what is queued, settles it, and ends the thread. Nothing more is taken."""
        with self._lock:
            self._closing = True
            self._bell.notify()
        if self._thread is not None:
            self._thread.join()

    def _refuse(self, count: int, size: int) -> None:
        if count > self._max_records or size > self._max_bytes:
            raise TooLarge(
                f"{count} records of {size} bytes are more than one call may append "
                f"({self._max_records} records, {self._max_bytes} bytes). Send them in parts.",
                details={"max_records": self._max_records, "max_bytes": self._max_bytes},
            )
        self.refused += count
        raise RateLimited(
            "Too many records wait for the disk. Try again shortly; nothing was recorded.",
            headers={"Retry-After": "1"},
        )

    def _ring_for(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Wakes the idle thread: at once, or when this turn of the loop has handed in all."""
        if loop is None:
            if len(self._queue) >= self._wanted:
                self._bell.notify()
        elif self._ringing is None:
            self._ringing = loop
            loop.call_soon(self._ring)
        elif self._ringing is not loop:
            self._bell.notify()

    def _ring(self) -> None:
        with self._lock:
            self._ringing = None
            if self._idle and len(self._queue) >= self._wanted:
                self._bell.notify()

    def _run(self) -> None:
        while tickets := self._take():
            self._commit(tickets)

    def _take(self) -> list[Ticket]:
        """The next group; empty when the journal is closed and all is written."""
        with self._lock:
            self._idle = True
            hoped = self._wanted
            self._wanted = 1
            while not self._queue and not self._closing:
                self._bell.wait()
            if len(self._queue) < hoped and not self._closing:
                self._wanted = hoped
                self._bell.wait(min(_HOLD_MOST_S, self._tail.sync_s * _HOLD_PART))
            self._idle = False
            # A loop that was closed never rang; the next one must not wait for it.
            self._ringing = None
            tickets: list[Ticket] = []
            size = 0
            while self._queue and size < _GROUP_BYTES:
                ticket = self._queue.popleft()
                tickets.append(ticket)
                size += ticket.size
            return tickets

    def _commit(self, tickets: list[Ticket]) -> None:
        tail = self._tail
        failure: InsufficientStorage | None = None
        try:
            now = self._clock()
            for ticket in tickets:
                if ticket.seal:
                    tail.rotate()
                ticket.first_seq = tail.next_seq
                for blob in ticket.blobs:
                    tail.stage(blob, now)
            tail.flush()
        # Whatever it is, callers must hear of it: nobody else would wake them.
        except BaseException as error:
            failure = out_of_storage(error)
        self.groups += 1
        with self._lock:
            if failure is not None:
                self.failure = failure
                tickets.extend(self._queue)
                self._queue.clear()
            count = 0
            for ticket in tickets:
                count += len(ticket.blobs)
                self.pending_bytes -= ticket.size
            self.pending_records -= count
            self._wanted = len(tickets) + len(self._queue)
        if failure is None:
            self.appended += count
        else:
            self._sort_out(tickets, failure)
        _settle(tickets)

    def _sort_out(self, tickets: list[Ticket], failure: InsufficientStorage) -> None:
        """Marks as failed what is not durable: a full segment may have been synced before."""
        durable = self._tail.durable_seq
        for ticket in tickets:
            if ticket.first_seq and ticket.first_seq + len(ticket.blobs) - 1 <= durable:
                self.appended += len(ticket.blobs)
            else:
                ticket.error = _again(failure)


def _again(failure: InsufficientStorage) -> InsufficientStorage:
    """The same error anew: one raised in many places would gather all their tracebacks."""
    return InsufficientStorage(failure.message, details=failure.details)


def _settle(tickets: list[Ticket]) -> None:
    """Tells every caller: threads one by one, an event loop once."""
    loops: dict[asyncio.AbstractEventLoop, list[Ticket]] = {}
    for ticket in tickets:
        if ticket.done is not None:
            ticket.done.release()
        elif ticket.loop is not None:
            loops.setdefault(ticket.loop, []).append(ticket)
    for loop, waiting in loops.items():
        try:
            loop.call_soon_threadsafe(_wake, waiting)
        except RuntimeError:
            # The loop was closed: its callers are gone, and their records are written.
            continue


def _wake(tickets: list[Ticket]) -> None:
    """Runs on the event loop. A caller that was cancelled meanwhile has left already."""
    for ticket in tickets:
        future = ticket.future
        if future is None or future.done():
            continue
        if ticket.error is None:
            future.set_result(ticket.first_seq)
        else:
            future.set_exception(ticket.error)
