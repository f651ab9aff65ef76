"""What opening does: read the newest segment, set torn bytes aside, find where to go on."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import NamedTuple

from shared.errors import InsufficientStorage, Unavailable
from shared.journal.checkpoint import list_checkpoints, remove_partial
from shared.journal.disk import Disk, out_of_storage, sync_directory, write_fully
from shared.journal.quarantine import PIECE_BYTES, Quarantine
from shared.journal.reader import Reader, read_segments
from shared.journal.record import GENESIS
from shared.journal.segments import Report, Segment, list_segments


class Recovered(NamedTuple):
    """Where an opened journal goes on.

    Attributes:
        segments: oldest first; the last one's size is where the next record goes.
        next_seq: past every seq that was seen, named by a segment or in a checkpoint.
        last_hash: what the next record of a chained journal points to; None if unchained.
        report: of the newest segment, before it was mended.
        failure: why the journal must not be written, if the end could not be mended.
    """

    segments: list[Segment]
    next_seq: int
    last_hash: str | None
    report: Report
    failure: InsufficientStorage | None


def recover(directory: Path, quarantine: Quarantine, disk: Disk, *, chained: bool) -> Recovered:
    """Mends the end of a log and says where it goes on. The caller holds the lock.

    Damaged whole lines stay where they are and count as one seq each when they stand at
    the end: a seq that may have been acknowledged is not given out again.

    Raises:
        Unavailable: the disk fails to read.
    """
    report = Report()
    failure: InsufficientStorage | None = None
    try:
        segments = list_segments(directory)
        next_seq = max((seq for seq, _ in list_checkpoints(directory)), default=0) + 1
        remove_partial(directory)
        last_hash = None
        if segments:
            reader = Reader(report, keep=quarantine.try_keep, chained=chained)
            _exhaust(segments[-1:], reader)
            next_seq = max(next_seq, reader.next_seq + reader.trailing_damage)
            failure = _mend(segments[-1], reader, quarantine, disk)
            # What could not be mended is left out: the readable part ends before it.
            mended = reader.unfinished and failure is None
            segments[-1] = segments[-1]._replace(size=reader.clean_end + mended)
            last_hash = reader.last_hash if report.records else None
            if chained and last_hash is None:
                last_hash = _find_last_hash(segments[:-1])
    except OSError:
        raise Unavailable("The log cannot be read. Check its disk, then restart.") from None
    link = (last_hash or GENESIS) if chained else None
    return Recovered(segments, next_seq, link, report, failure)


def _exhaust(segments: list[Segment], reader: Reader) -> None:
    deque(read_segments(segments, reader, None, set()), maxlen=0)


def _mend(
    newest: Segment, reader: Reader, quarantine: Quarantine, disk: Disk
) -> InsufficientStorage | None:
    """Moves the torn end to the quarantine, ends an unfinished record, syncs the segment.

    The sync matters even when nothing was torn: the process before may have died between
    its write and its sync, and what is read from here on must not vanish later.
    """
    try:
        fd = os.open(newest.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        try:
            if reader.clean_end < newest.size:
                for at in range(reader.clean_end, newest.size, PIECE_BYTES):
                    data = os.pread(fd, min(PIECE_BYTES, newest.size - at), at)
                    quarantine.keep(newest.path.name, at, data, "torn")
                quarantine.sync()
                disk.truncate(fd, reader.clean_end)
            if reader.unfinished:
                write_fully(disk, fd, b"\n")
            disk.fdatasync(fd)
        finally:
            os.close(fd)
        sync_directory(disk, newest.path.parent)
    except OSError as error:
        return out_of_storage(error)
    return None


def _find_last_hash(segments: list[Segment]) -> str | None:
    """The hash of the newest record in sealed segments, whatever is damaged behind it."""
    for segment in reversed(segments):
        reader = Reader(Report(), chained=True)
        _exhaust([segment], reader)
        if reader.report.records:
            return reader.last_hash
    return None
