"""The event log and the ring over it: journal first, then memory, then the answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import orjson

from services.observerd.core.events.records import Kept, keep, make_payload
from services.observerd.core.events.ring import Ring
from services.observerd.core.events.runs import assemble_run
from services.observerd.store.figures import Figures
from shared.errors import Invalid, LakehouseError, NotFound
from shared.journal import Journal, Record, Report
from shared.pool import BlockingPool
from shared.sections.base import MiB
from shared.sections.observe import ObserverdSection
from shared.wire.observerd import (
    Event,
    EventList,
    EventsAccepted,
    LogFigures,
    ObservedRun,
    ObservedRuns,
    ObserverStats,
    RecordedEvent,
)

logger = logging.getLogger("lakehouse.observerd")

_TEND_S = 5.0
# Groups shown of each kind in the figures.
_GROUPS = 100
_SEGMENT_BYTES = 32 * MiB


class EventLog:
    """Everything observed.

    Args:
        folder: the journal's directory.
        section: limits.
        figures: where things are counted.
    """

    def __init__(self, folder: Path, section: ObserverdSection, figures: Figures) -> None:
        self._section = section
        self._figures = figures
        self._journal = Journal(
            folder,
            segment_bytes=_SEGMENT_BYTES,
            max_record_bytes=section.max_event_bytes,
            max_pending_bytes=4 * max(section.max_body_bytes, MiB),
        )
        self._pool = BlockingPool("observerd-log", 2, section.max_concurrency)
        self._ring = Ring(section.ring_events, section.ring_mb * MiB)
        self._report = Report()
        # Recorded ids, oldest first; and those on their way to the disk.
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._pending: dict[str, asyncio.Future[bool]] = {}
        self._duplicates = 0
        self._tending: asyncio.Task[None] | None = None

    # --- start and stop

    async def open(self) -> None:
        """Takes the log and fills the ring with its newest events.

        Raises:
            Unavailable: another process has it.
        """
        await self._pool.run(self._journal.open)
        await self._pool.run(self._fill)
        self._show()
        self._tending = asyncio.get_running_loop().create_task(self._tend())

    def _fill(self) -> None:
        # Ids reach further back than the ring, so that a late repeat is still known.
        reach = max(self._section.ring_events, self._section.event_ids)
        start = max(1, self._journal.last_seq - reach + 1)
        self._ring.whole = start == 1
        for record in self._journal.replay(start, report=self._report):
            self._take(record.seq, record.t, record.payload)
        # What never fitted was not evicted by anything that happened here.
        self._ring.evicted = 0

    async def close(self) -> None:
        """Writes what waits and lets go."""
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
        await self._journal.aclose()
        self._pool.close()

    def check(self) -> str:
        """ "ok", or why nothing can be recorded."""
        failure = self._journal.failure
        return "ok" if failure is None else failure.message

    # --- recording

    async def record(self, events: Sequence[Event]) -> EventsAccepted:
        """Makes events durable, then known; the order is kept.

        Raises:
            Invalid: there are too many of them.
            TooLarge: one of them is; none was recorded.
            RateLimited: too much waits for the disk.
            InsufficientStorage: the log cannot be written.
        """
        if len(events) > self._section.max_batch:
            raise Invalid(
                f"{len(events)} events in one request; send at most {self._section.max_batch}."
            )
        accepted = 0
        waiting = list(events)
        while waiting:
            fresh, earlier = self._sort_out(waiting)
            # Written before anything is waited for: two callers who each hold an id that the
            # other sends as well would wait for one another.
            if fresh:
                await self._write(fresh)
                accepted += len(fresh)
            # Somebody else is recording these; only where they fail is it up to us.
            done = await asyncio.gather(*(asyncio.shield(waits) for _, waits in earlier))
            waiting = [event for (event, _), good in zip(earlier, done, strict=True) if not good]
        duplicates = len(events) - accepted
        self._duplicates += duplicates
        self._figures.duplicates.inc(duplicates)
        return EventsAccepted(accepted=accepted, duplicates=duplicates, seq=self._journal.last_seq)

    def _sort_out(
        self, events: Sequence[Event]
    ) -> tuple[list[Event], list[tuple[Event, asyncio.Future[bool]]]]:
        """Events that nobody has recorded, claimed for us, and those under way elsewhere."""
        fresh: list[Event] = []
        earlier: list[tuple[Event, asyncio.Future[bool]]] = []
        loop = asyncio.get_running_loop()
        ours: set[str] = set()
        for event in events:
            if event.id is None:
                fresh.append(event)
            elif event.id in self._ids or event.id in ours:
                continue
            elif event.id in self._pending:
                earlier.append((event, self._pending[event.id]))
            else:
                ours.add(event.id)
                self._pending[event.id] = loop.create_future()
                fresh.append(event)
        return fresh, earlier

    async def _write(self, events: list[Event]) -> None:
        # In a task of its own: a caller who goes away must not leave claims behind, nor
        # records on disk that memory does not know.
        task = asyncio.get_running_loop().create_task(self._append(events))
        task.add_done_callback(_read_failure)
        await asyncio.shield(task)

    async def _append(self, events: list[Event]) -> None:
        written = False
        try:
            payloads = [make_payload(event) for event in events]
            seqs = await self._journal.append_many(payloads)
            now = time.time_ns() // 1000
            for seq, payload in zip(seqs, payloads, strict=True):
                self._take(seq, now, payload)
            written = True
            self._figures.events.inc(len(events))
        finally:
            for event in events:
                if event.id is not None and event.id in self._pending:
                    self._pending.pop(event.id).set_result(written)

    def _take(self, seq: int, t: int, payload: dict[str, object]) -> None:
        event = keep(seq, t, payload, orjson.dumps(payload))
        self._ring.add(event)
        if event.event_id is not None:
            self._ids[event.event_id] = None
            while len(self._ids) > self._section.event_ids:
                self._ids.popitem(last=False)

    # --- reading

    async def list(self, after: int | None, limit: int, run_id: str | None) -> EventList:
        """Events behind the seq `after`: from memory, or from the log where that is older.

        Without `after` the newest in memory.
        """
        if after is None:
            return EventList(events=[_show_kept(one) for one in self._ring.newest(limit, run_id)])
        first = self._ring.first_seq
        if first is None:
            return EventList(events=[])
        if after + 1 >= first:
            found = self._ring.after(after, limit, run_id)
            more = len(found) == limit and found[-1].seq < self._journal.last_seq
            return EventList(
                events=[_show_kept(one) for one in found],
                next_after=found[-1].seq if more else None,
            )
        return await self._pool.run(self._read, after, limit, run_id)

    def _read(self, after: int, limit: int, run_id: str | None) -> EventList:
        found: list[RecordedEvent] = []
        looked = after
        for number, record in enumerate(self._journal.replay(after + 1)):
            # One look reads a bounded part of the log; the caller goes on from there.
            if len(found) == limit or number == _SCAN:
                return EventList(events=found, next_after=looked)
            looked = record.seq
            if run_id is None or record.payload.get("run_id") == run_id:
                found.append(_show_record(record))
        return EventList(events=found)

    def run(self, run_id: str) -> ObservedRun:
        """One run and its steps.

        Raises:
            NotFound: memory holds no event of it.
        """
        found = self._ring.run(run_id)
        if found is None:
            raise NotFound(
                f"No event of the run {run_id!r} is in memory. "
                f"GET /observer/events?run_id={run_id}&after=0 looks for it in the log."
            )
        return assemble_run(found, steps=True)

    def runs(self, limit: int, before: int | None) -> ObservedRuns:
        """Runs by their latest event, newest first; `before` is a seq."""
        found: list[ObservedRun] = []
        for run in self._ring.runs():
            if before is not None and run.events[-1].seq >= before:
                continue
            if len(found) == limit:
                return ObservedRuns(runs=found, next_cursor=str(found[-1].last_seq))
            found.append(assemble_run(run, steps=False))
        return ObservedRuns(runs=found)

    def stats(self) -> ObserverStats:
        """Figures over the ring, and the state of the log."""
        ring, figures, log = self._ring, self._ring.figures, self._journal.stats()
        groups = {name: figures.describe(name, _GROUPS) for name in figures.NAMES}
        return ObserverStats(
            ring=len(ring),
            ring_capacity=ring.capacity,
            evicted=ring.evicted,
            duplicates=self._duplicates,
            total=figures.total.describe(),
            by_mode=groups["mode"][0],
            by_model=groups["model"][0],
            by_task_signature=groups["task_signature"][0],
            other={name: left for name, (_, left) in groups.items()},
            log=LogFigures(
                first_seq=log.first_seq,
                last_seq=log.last_seq,
                bytes=log.bytes,
                dropped_records=log.dropped_records,
                quarantined=log.quarantined,
                missing=self._report.missing,
                read_only=log.read_only,
            ),
        )

    # --- housekeeping

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(_TEND_S)
            self._show()
            try:
                await self._pool.run(self._trim)
            except LakehouseError as error:
                logger.warning("The event log was not trimmed: %s", error.message)

    def _show(self) -> None:
        self._figures.ring.set(len(self._ring))
        self._figures.evicted.set(self._ring.evicted)

    def _trim(self) -> None:
        """Drops the oldest segments while the log is larger than it may be."""
        segments = self._journal.segments()
        size = sum(segment.size for segment in segments)
        keep_from = 0
        while size > self._section.log_mb * MiB and keep_from < len(segments) - 1:
            size -= segments[keep_from].size
            keep_from += 1
        if keep_from:
            dropped = self._journal.drop_before(segments[keep_from].first_seq)
            self._figures.dropped.inc(dropped.records)
            logger.info("%d old events were dropped from the log", dropped.records)


# Records of the log that one request may read.
_SCAN = 100_000


def _show_kept(kept: Kept) -> RecordedEvent:
    return RecordedEvent(seq=kept.seq, t=kept.t, event=orjson.loads(kept.blob))


def _show_record(record: Record) -> RecordedEvent:
    return RecordedEvent(seq=record.seq, t=record.t, event=record.payload)


def _read_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        # Read, so that a failure whose caller went away is not reported as unhandled.
        task.exception()
