"""Reading segments past any damage.

A `Reader` gives each intact record of a segment exactly once and in order, however its
lines were damaged, doubled or shuffled, and says in a `Report` what it met. An orderly
segment is read as a stream. From the first line that is not the next record on, a segment
is read twice: once to find the records, once to give them in order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from shared.errors import Unavailable
from shared.journal.record import (
    GENESIS,
    MAX_SEQ,
    Record,
    decode_line,
    hash_line,
    peek_seq,
    salvage_line,
)
from shared.journal.segments import LISTED, Report, Segment, list_segments

_BLOCK = 1 << 20
# Close enough for `locate` to stop halving and let the reader walk.
_NEAR = 1 << 16

# Takes (segment name, offset, bytes, reason) of damage; gives whether it is kept safe.
Keep = Callable[[str, int, bytes, str], bool]


class _Line(NamedTuple):
    """Where an intact record lies in its segment; sorts by seq, then by place."""

    seq: int
    offset: int
    length: int


class Reader:
    """Reads segments one after the other, oldest first.

    After `read` was exhausted, for the segment just read:
        next_seq: one past the greatest seq read, never below the segment's first.
        clean_end: the offset behind the last whole line or intact unfinished record;
            what follows it is torn.
        unfinished: the last record lacks its newline.
        trailing_damage: damaged lines behind the greatest seq.
        orderly: nothing was damaged, doubled, missing or out of order.
        last_hash: what the next record of a chained journal must point to, if known.
    """

    def __init__(self, report: Report, *, keep: Keep | None = None, chained: bool = False) -> None:
        self.report = report
        self.next_seq = 1
        self.clean_end = 0
        self.unfinished = False
        self.trailing_damage = 0
        self.orderly = True
        self.last_hash: str | None = None
        self._keep = keep
        self._chained = chained
        self._linked = False

    def read(
        self, segment: Segment, upper: int, *, start: int = 1, skip: bool = False
    ) -> Iterator[Record]:
        """The segment's intact records with start <= seq < upper, in order of seq.

        Args:
            segment: read up to its `size` and no further.
            upper: the next segment's first seq; more than any seq for the newest.
            start: records below are checked and counted, not given.
            skip: records below need not be looked at, because the segment is known to
                be orderly: makes starting near its end cheap.
        """
        report = self.report
        first_seq, path, end = segment
        self.next_seq = first_seq
        self.clean_end = at = 0
        self.unfinished, self.trailing_damage, self.orderly = False, 0, True
        if first_seq == 1:
            self.last_hash = GENESIS
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if skip and start > first_seq:
                at = locate(fd, end, start)
                if at:
                    self.next_seq, self.last_hash = 0, None
            for offset, lines, whole in _read_lines(fd, at, end):
                for line in lines:
                    record = decode_line(line)
                    if record is not None and not self.next_seq:
                        self.next_seq = record.seq
                    if record is None or record.seq != self.next_seq or record.seq >= upper:
                        self.orderly = False
                        yield from self._read_sorted(fd, segment, upper, start, offset)
                        return
                    self.next_seq = record.seq + 1
                    report.records += 1
                    if self._chained:
                        self._follow(record, line)
                    offset += len(line) + 1
                    if record.seq >= start:
                        yield record
                if whole:
                    self.clean_end = offset
                else:
                    self.clean_end, self.unfinished = offset - 1, True
                    report.completed += 1
        finally:
            os.close(fd)
        self.next_seq = self.next_seq or start
        if upper <= MAX_SEQ:
            report.add_gap(self.next_seq, upper - 1)

    def _read_sorted(
        self, fd: int, segment: Segment, upper: int, start: int, at: int
    ) -> Iterator[Record]:
        """Goes on behind the first irregular line: finds all records, then gives them in order."""
        report = self.report
        found, damage = self._find_records(fd, segment, upper, at)
        found.sort()
        for seq, offset, length in found:
            line = os.pread(fd, length, offset)
            record = decode_line(line)
            if record is None:
                # It was intact a moment ago: the disk gives way under us.
                self._note(segment, offset, line, "damaged")
                continue
            if seq < self.next_seq:
                report.duplicates += 1
                self._quarantine(segment, offset, line, "duplicate")
                continue
            report.add_gap(self.next_seq, seq - 1)
            self.next_seq = seq + 1
            report.records += 1
            if self._chained:
                self._follow(record, line)
            if seq >= start:
                yield record
        behind = found[-1].offset if found else -1
        self.trailing_damage = sum(1 for offset in damage if offset > behind)
        if upper <= MAX_SEQ:
            report.add_gap(self.next_seq, upper - 1)

    def _find_records(
        self, fd: int, segment: Segment, upper: int, at: int
    ) -> tuple[list[_Line], list[int]]:
        """All intact records from `at` on, and the offsets of damaged whole lines."""
        report = self.report
        found: list[_Line] = []
        damage: list[int] = []
        for line_at, lines, whole in _read_lines(fd, at, segment.size):
            offset = line_at
            for line in lines:
                pieces = salvage_line(line)
                good = [p.record and segment.first_seq <= p.record.seq < upper for p in pieces]
                # Behind the last record of an unfinished line lies what a crash tore.
                torn = 0 if whole else next((n for n, ok in enumerate(good[::-1]) if ok), len(good))
                intact_end = offset
                for piece, is_good in zip(pieces[: len(pieces) - torn], good, strict=False):
                    intact_end = offset + piece.at + len(piece.data)
                    if piece.record and is_good:
                        found.append(_Line(piece.record.seq, offset + piece.at, len(piece.data)))
                    else:
                        reason = "foreign" if piece.record else "damaged"
                        self._note(segment, offset + piece.at, piece.data, reason)
                if whole and pieces and not any(good):
                    damage.append(offset)
                offset += len(line) + 1
                if whole:
                    self.clean_end = offset
                    continue
                self.clean_end = intact_end
                if intact_end > line_at:
                    self.unfinished = True
                    report.completed += 1
                if torn:
                    report.torn += 1
                    report.torn_bytes += segment.size - intact_end
        return found, damage

    def _follow(self, record: Record, line: bytes) -> None:
        """Checks the link of a record to the one before, and remembers its own hash."""
        link = record.prev_hash
        if (link is None and self._linked) or (link and self.last_hash not in (None, link)):
            self.report.chain_breaks += 1
            if len(self.report.broken_at) < LISTED:
                self.report.broken_at.append(record.seq)
        self._linked = self._linked or link is not None
        self.last_hash = hash_line(line)

    def _note(self, segment: Segment, offset: int, data: bytes, reason: str) -> None:
        self.report.damaged += 1
        self.report.damaged_bytes += len(data)
        self._quarantine(segment, offset, data, reason)

    def _quarantine(self, segment: Segment, offset: int, data: bytes, reason: str) -> None:
        if self._keep and not self._keep(segment.path.name, offset, data, reason):
            self.report.unsaved += 1


def read_segments(
    segments: Sequence[Segment], reader: Reader, start: int | None, orderly: set[int]
) -> Iterator[Record]:
    """The intact records from `start` on, out of segments that follow one another.

    Args:
        segments: oldest first.
        reader: keeps the report.
        start: the first seq wanted; None for the oldest there is. Wanted records older
            than the oldest segment are reported as a gap.
        orderly: first seqs of the segments known to be orderly; kept up to date.

    Raises:
        Unavailable: the disk fails to read.
    """
    if start is not None and segments:
        reader.report.add_gap(max(start, 1), segments[0].first_seq - 1)
    wanted = start or 1
    for number, segment in enumerate(segments, 1):
        upper = segments[number].first_seq if number < len(segments) else MAX_SEQ + 1
        if upper <= wanted:
            continue
        known = segment.first_seq in orderly
        try:
            yield from reader.read(segment, upper, start=wanted, skip=known)
        except FileNotFoundError:
            # Dropped while we read: the records are gone, and the report says so.
            reader.report.add_gap(max(wanted, segment.first_seq), upper - 1)
            continue
        except OSError:
            raise Unavailable(
                "The log cannot be read: the disk reports an error. Check the disk; "
                "the records before and behind the bad place are not lost."
            ) from None
        if not reader.orderly:
            orderly.discard(segment.first_seq)
        elif not known:
            orderly.add(segment.first_seq)


def replay_directory(
    directory: Path,
    start: int | None = None,
    *,
    chained: bool = False,
    report: Report | None = None,
) -> Iterator[Record]:
    """Streams the records of a log that may be open elsewhere, without touching it.

    For tools beside a running daemon. It takes no lock and mends nothing; the last records
    may be ones that are not durable yet, and a last line may be seen half written.

    Raises:
        Unavailable: there is no such directory, or the disk fails to read.
    """
    try:
        segments = list_segments(directory)
    except OSError:
        raise Unavailable("There is no readable log in that directory.") from None
    reader = Reader(report or Report(), chained=chained)
    return read_segments(segments, reader, start, set())


def locate(fd: int, end: int, start: int) -> int:
    """An offset where a line begins, at or not far before the record `start`.

    Halves the file by the seqs that lines claim; right for orderly segments only.
    """
    low, high = 0, end
    while high - low > _NEAR:
        middle = (low + high) // 2
        newline = os.pread(fd, _NEAR, middle).find(b"\n")
        at = middle + newline + 1
        seq = peek_seq(os.pread(fd, 64, at)) if newline >= 0 and at < high else None
        if seq is None or seq > start:
            high = middle
        else:
            low = at
    return low


def _read_lines(fd: int, at: int, end: int) -> Iterator[tuple[int, list[bytes], bool]]:
    """The lines from offset `at` to `end`, in batches: (offset of the first, lines, whole).

    `whole` is false for the last batch if it is a line without its newline.
    """
    parts: list[bytes] = []
    line_at = at
    while at < end:
        block = os.pread(fd, min(_BLOCK, end - at), at)
        if not block:
            break
        at += len(block)
        parts.append(block)
        if b"\n" in block:
            *lines, rest = b"".join(parts).split(b"\n")
            parts = [rest] if rest else []
            yield line_at, lines, True
            line_at = at - len(rest)
    if parts:
        yield line_at, [b"".join(parts)], False
