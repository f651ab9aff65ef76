"""The journal as its users see it: open, append, replay, checkpoint, drop, close."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from shared.errors import InsufficientStorage, Internal, Invalid, Unavailable
from shared.journal.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    list_checkpoints,
    write_checkpoint,
)
from shared.journal.disk import Disk, make_directory, now_us, out_of_storage, sync_directory
from shared.journal.quarantine import Quarantine
from shared.journal.reader import Reader, read_segments
from shared.journal.record import Record, encode_payload
from shared.journal.recovery import recover
from shared.journal.segments import Report, Segment
from shared.journal.tail import Tail
from shared.journal.writer import GroupWriter, Ticket
from shared.lockfile import DirectoryLock

# Two checkpoints are kept, so that one of them may be damaged.
_CHECKPOINTS_KEPT = 2


class Dropped(NamedTuple):
    """What `drop_before` removed: segments, the seqs they covered, their bytes."""

    segments: int
    records: int
    bytes: int


@dataclass(frozen=True, slots=True)
class JournalStats:
    """Figures of an open journal, for metrics. Counts are since it was opened.

    Attributes:
        first_seq: the oldest seq that may still be read; last_seq: the newest durable one.
        segments, bytes: on disk now.
        appended: records acknowledged; groups: syncs they took; bytes_written: their lines.
        sync_s: running mean of one sync, in seconds.
        pending_records, pending_bytes: waiting now.
        refused: records turned away because the queue was full.
        dropped_segments, dropped_records: removed on request.
        quarantined: runs of damaged bytes copied to the quarantine.
        read_only: why nothing can be appended any more; None if it can.
    """

    first_seq: int
    last_seq: int
    segments: int
    bytes: int
    appended: int
    groups: int
    bytes_written: int
    sync_s: float
    pending_records: int
    pending_bytes: int
    refused: int
    dropped_segments: int
    dropped_records: int
    quarantined: int
    read_only: str | None


class Journal:
    """One append-only log in a directory of its own. See the package for what it promises.

    Args:
        directory: made if missing; nobody else writes in it.
        chained: each record carries the hash of the one before (lineage).
        segment_bytes: a new segment file starts before one would grow past this.
        max_record_bytes: of one encoded payload; more is TooLarge.
        max_pending_records, max_pending_bytes: what may wait for the disk; more is
            RateLimited at once. A call that waited instead would hold its payload in
            memory outside any bound and use up its caller's deadline.
        clock: microseconds since 1970, read once a group.
        disk: the calls that durability hangs on, for tests.

    Making one touches nothing; `open` does, after the fork.
    """

    def __init__(
        self,
        directory: Path,
        *,
        chained: bool = False,
        segment_bytes: int = 64 << 20,
        max_record_bytes: int = 8 << 20,
        max_pending_records: int = 1 << 16,
        max_pending_bytes: int = 64 << 20,
        clock: Callable[[], int] = now_us,
        disk: Disk | None = None,
    ) -> None:
        self.directory = directory
        self.chained = chained
        self._segment_bytes = segment_bytes
        self._max_record_bytes = max_record_bytes
        self._max_pending = max_pending_records, max_pending_bytes
        self._clock = clock
        self._disk = disk or Disk()
        self._lock = DirectoryLock(directory)
        # What the last `open` found.
        self.recovery = Report()
        self._pid = 0
        self._dropped_segments = self._dropped_records = 0
        self._quarantine = Quarantine(directory, self._disk, clock)
        self._tail: Tail | None = None
        self._writer: GroupWriter | None = None

    # --- opening and closing

    def open(self) -> Report:
        """Takes the lock, mends the end of the log, and gives what was found there.

        Only the newest segment is read, so that opening takes as long for ten million
        records as for ten thousand; `replay` checks the older ones as it goes. A disk that
        is full or fails to write leaves the journal open and read-only (`failure` says
        why): what is in it can still be read.

        Raises:
            Unavailable: another process has it open, or the disk cannot be read.
            InsufficientStorage: there is no room for the directory or its lock file.
        """
        if self._tail is not None:
            raise Internal("This log is open already.")
        try:
            make_directory(self._disk, self.directory)
            self._lock.acquire()
        except OSError as error:
            raise out_of_storage(error) from None
        try:
            found = recover(self.directory, self._quarantine, self._disk, chained=self.chained)
        except BaseException:
            self._lock.release()
            raise
        self._tail = Tail(
            self.directory,
            found.segments,
            found.next_seq,
            found.last_hash,
            segment_bytes=self._segment_bytes,
            disk=self._disk,
        )
        records, size = self._max_pending
        self._writer = GroupWriter(self._tail, self._clock, max_records=records, max_bytes=size)
        try:
            if found.failure is None:
                self._tail.open()
        except OSError as error:
            found = found._replace(failure=out_of_storage(error))
        self._writer.failure = found.failure
        self._pid = os.getpid()
        self.recovery = found.report
        return found.report

    def close(self) -> None:
        """Writes what waits, acknowledges it, and lets go. Calling it twice is harmless.

        Blocks for a few syncs. In a forked child it does nothing: the log is the parent's.
        """
        if self._writer is None or self._tail is None or self._pid != os.getpid():
            return
        self._writer.close()
        self._tail.close()
        self._lock.release()
        self._writer = self._tail = None

    async def aclose(self) -> None:
        """`close` without blocking the event loop."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Journal:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Journal:
        await asyncio.to_thread(self.open)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # --- appending

    async def append(self, payload: dict[str, Any]) -> int:
        """Appends one record and gives its seq when it is durable.

        A caller that is cancelled while it waits does not know whether its record was
        written; others are not touched by it.

        Raises:
            InsufficientStorage: it could not be made durable, and nothing can be from now on.
            Invalid, TooLarge: it is no JSON object, or too large.
            RateLimited: too much waits for the disk already.
            Unavailable: the journal is not open.
        """
        blob = encode_payload(payload, self._max_record_bytes)
        return await self._opened()[1].enqueue([blob], len(blob))

    async def append_many(self, payloads: Iterable[dict[str, Any]]) -> range:
        """Appends records that follow one another, and gives their seqs.

        All are durable on return. They are not one transaction: after a crash in the
        middle the first ones may be there without the others. Errors as of `append`;
        when one payload is refused, none is written.
        """
        blobs, size = self._encode(payloads)
        first = await self._opened()[1].enqueue(blobs, size) if blobs else self.last_seq + 1
        return range(first, first + len(blobs))

    def append_sync(self, payload: dict[str, Any]) -> int:
        """`append` for threads: blocks until the record is durable."""
        blob = encode_payload(payload, self._max_record_bytes)
        return self._submit_sync(Ticket([blob], len(blob)))

    def append_many_sync(self, payloads: Iterable[dict[str, Any]]) -> range:
        """`append_many` for threads."""
        blobs, size = self._encode(payloads)
        first = self._submit_sync(Ticket(blobs, size)) if blobs else self.last_seq + 1
        return range(first, first + len(blobs))

    # --- reading

    @property
    def last_seq(self) -> int:
        """The greatest durable seq; 0 if there never was a record."""
        return self._opened()[0].durable_seq

    @property
    def failure(self) -> InsufficientStorage | None:
        """Why the journal is read-only, if it is: for a daemon's readiness."""
        return self._opened()[1].failure

    def replay(self, start: int | None = None, *, report: Report | None = None) -> Iterator[Record]:
        """Streams the records from seq `start` on (None: the oldest kept), in order.

        It ends with the last record that was durable when it was called, and may run
        beside appends, in any thread; memory stays flat. Damage is skipped, copied to the
        quarantine once, and counted in `report`; it never raises.

        Raises:
            Unavailable: the disk fails to read.
        """
        tail, _ = self._opened()
        reader = Reader(report or Report(), keep=self._quarantine.try_keep, chained=self.chained)
        return read_segments(tail.take_snapshot().segments, reader, start, tail.orderly)

    def segments(self) -> list[Segment]:
        """The segments, oldest first, as far as they are durable; the last one grows."""
        return self._opened()[0].take_snapshot().segments

    def stats(self) -> JournalStats:
        """Figures for metrics."""
        tail, writer = self._opened()
        segments, last_seq = tail.take_snapshot()
        return JournalStats(
            first_seq=segments[0].first_seq if segments else last_seq + 1,
            last_seq=last_seq,
            segments=len(segments),
            bytes=sum(segment.size for segment in segments),
            appended=writer.appended,
            groups=writer.groups,
            bytes_written=tail.bytes_written,
            sync_s=tail.sync_s,
            pending_records=writer.pending_records,
            pending_bytes=writer.pending_bytes,
            refused=writer.refused,
            dropped_segments=self._dropped_segments,
            dropped_records=self._dropped_records,
            quarantined=self._quarantine.kept,
            read_only=writer.failure.message if writer.failure else None,
        )

    # --- checkpoints and retention (these block; call them from a pool)

    def write_checkpoint(self, seq: int, chunks: Iterable[bytes]) -> Checkpoint:
        """Stores the caller's state as of record `seq`, durably. The newest two are kept.

        One at a time; appends go on beside it.

        Raises:
            Invalid: `seq` is not durable yet, or older than the newest checkpoint.
            InsufficientStorage: there is no room; the log itself goes on.
        """
        tail, _ = self._opened()
        newest = max((kept for kept, _ in list_checkpoints(self.directory)), default=0)
        if not newest <= seq <= tail.durable_seq:
            raise Invalid(
                f"A checkpoint at {seq} must lie between the newest one, {newest}, "
                f"and the last durable record, {tail.durable_seq}."
            )
        try:
            made = write_checkpoint(self.directory, seq, self._clock(), chunks, self._disk)
            for _, path in list_checkpoints(self.directory)[:-_CHECKPOINTS_KEPT]:
                path.unlink()
        except OSError as error:
            raise InsufficientStorage(
                "The checkpoint cannot be written. Make room; the log is not affected.",
                details=out_of_storage(error).details,
            ) from None
        return made

    def latest_checkpoint(self) -> Checkpoint | None:
        """The newest intact checkpoint: load it, then replay from its seq + 1."""
        self._opened()
        return latest_checkpoint(self.directory)

    def drop_before(self, seq: int, *, seal: bool = False) -> Dropped:
        """Removes whole segments that hold only records below `seq`. They are gone for good.

        Args:
            seal: first end the newest segment, so that all below `seq` can go; without,
                up to one segment of such records stays.

        Raises:
            InsufficientStorage: the quarantine could not be synced, or sealing failed.
        """
        tail, _ = self._opened()
        if seal and seq > tail.durable_seq:
            self._submit_sync(Ticket([], 0, seal=True))
        gone = tail.forget_before(seq)
        if not gone:
            return Dropped(0, 0, 0)
        try:
            self._quarantine.sync()
            for segment in gone:
                # Oldest first: a crash in between leaves no hole.
                segment.path.unlink(missing_ok=True)
            sync_directory(self._disk, self.directory)
        except OSError as error:
            raise out_of_storage(error) from None
        oldest = tail.take_snapshot().segments[0]
        records = oldest.first_seq - gone[0].first_seq
        self._dropped_segments += len(gone)
        self._dropped_records += records
        return Dropped(len(gone), records, sum(segment.size for segment in gone))

    def compact(self, seq: int, chunks: Iterable[bytes]) -> Dropped:
        """Writes a checkpoint at `seq`, then drops what the checkpoint before it covers.

        The log since the older of two checkpoints stays, so that the state can be rebuilt
        even when the newer one is damaged. Errors as of `write_checkpoint`.
        """
        before = self.latest_checkpoint()
        self.write_checkpoint(seq, chunks)
        if before is None:
            return Dropped(0, 0, 0)
        return self.drop_before(min(before.seq, seq) + 1)

    # --- inside

    def _opened(self) -> tuple[Tail, GroupWriter]:
        if self._tail is None or self._writer is None:
            raise Unavailable("The log is not open: the daemon is starting or stopping.")
        if self._pid != os.getpid():
            # Its lock, file offset and thread are the parent's.
            raise Internal("This log was opened before a fork. Open one in each process.")
        return self._tail, self._writer

    def _encode(self, payloads: Iterable[dict[str, Any]]) -> tuple[list[bytes], int]:
        limit = self._max_record_bytes
        blobs = [encode_payload(payload, limit) for payload in payloads]
        return blobs, sum(map(len, blobs))

    def _submit_sync(self, ticket: Ticket) -> int:
        _, writer = self._opened()
        writer.submit(ticket)
        ticket.wait()
        return ticket.first_seq
