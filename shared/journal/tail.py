"""The end of the log on disk: the one segment that grows, and when it gives way to the next.

Only the writer thread calls `stage` and `flush`. The other methods may be called from any
thread; they see what is durable, never what is on its way.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

from shared.journal.disk import Disk, sync_directory, write_fully
from shared.journal.record import encode_line, hash_line
from shared.journal.segments import Segment, segment_path

# How fast the running mean of sync times forgets.
_SMOOTHING = 0.2


class Snapshot(NamedTuple):
    """What is durable at one instant: the segments, oldest first, and the greatest seq."""

    segments: list[Segment]
    last_seq: int


class Tail:
    """Stages records, writes and syncs them together, and rotates segments.

    Args:
        directory: holds the segments.
        segments: those that exist, oldest first; the last one will grow.
        next_seq: of the next record.
        last_hash: what it points to, in a chained journal; otherwise None.
        segment_bytes: a segment is closed before it would grow past this; one record that
            is larger alone gets a segment of its own.

    After any call raised, the tail must not be staged or flushed again.
    """

    def __init__(
        self,
        directory: Path,
        segments: list[Segment],
        next_seq: int,
        last_hash: str | None,
        *,
        segment_bytes: int,
        disk: Disk,
    ) -> None:
        self.next_seq = next_seq
        self.durable_seq = next_seq - 1
        self.sync_s = 0.0
        self.syncs = 0
        self.bytes_written = 0
        # Segments whose lines are known to lie in order, by first seq.
        self.orderly: set[int] = set()
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._disk = disk
        self._link = last_hash
        self._lines: list[bytes] = []
        self._staged = 0
        self._state = threading.Lock()
        self._segments = segments
        self._size = segments[-1].size if segments else 0
        self._fd = -1

    def open(self) -> None:
        """Opens the newest segment for appending, if there is one.

        Raises:
            OSError: it cannot be written.
        """
        if self._segments:
            path = self._segments[-1].path
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def close(self) -> None:
        """Lets go of the file; nothing is staged at this point or it is given up."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def stage(self, blob: bytes, t: int) -> None:
        """Takes one encoded payload for the next flush, which may be this very call's.

        Raises:
            OSError: the segment was full, and writing it out or starting the next failed.
        """
        line = encode_line(self.next_seq, t, blob, self._link)
        filled = self._size + self._staged
        if self._fd < 0 or (filled and filled + len(line) > self._segment_bytes):
            self.rotate()
        if self._link is not None:
            self._link = hash_line(line[:-1])
        self._lines.append(line)
        self._staged += len(line)
        self.next_seq += 1

    def flush(self) -> None:
        """Makes all that is staged durable. Only then do `durable_seq` and replays move on.

        Raises:
            OSError: write or sync failed. The file is cut back to what is durable, so that
                what failed does not come back at the next start, if the disk lets us; the
                sync is not tried again, because the kernel reports a lost page only once.
        """
        if not self._lines:
            return
        data = b"".join(self._lines)
        self._lines.clear()
        self._staged = 0
        try:
            write_fully(self._disk, self._fd, data)
            started = time.perf_counter()
            self._disk.fdatasync(self._fd)
        except BaseException:
            with contextlib.suppress(OSError):
                self._disk.truncate(self._fd, self._size)
            raise
        took = time.perf_counter() - started
        self.sync_s += (took - self.sync_s) * (_SMOOTHING if self.syncs else 1.0)
        self.syncs += 1
        self.bytes_written += len(data)
        with self._state:
            self._size += len(data)
            self.durable_seq = self.next_seq - 1

    def rotate(self) -> None:
        """Flushes and starts the segment of `next_seq`: file and name durable before use.

        Nothing happens while the newest segment is empty.

        Raises:
            OSError: as `flush`, or the new file cannot be made.
        """
        self.flush()
        if self._fd >= 0 and not self._size:
            return
        path = segment_path(self._directory, self.next_seq)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(path, flags, 0o644)
        try:
            self._disk.fsync(fd)
            sync_directory(self._disk, self._directory)
        except BaseException:
            os.close(fd)
            raise
        self.close()
        self.orderly.add(self.next_seq)
        with self._state:
            self._seal()
            self._segments.append(Segment(self.next_seq, path, 0))
            self._size, self._fd = 0, fd

    def take_snapshot(self) -> Snapshot:
        """The segments as far as they are durable, and the greatest durable seq."""
        with self._state:
            self._seal()
            return Snapshot(list(self._segments), self.durable_seq)

    def forget_before(self, seq: int) -> list[Segment]:
        """Takes the oldest segments whose records all lie below `seq` off the list.

        The newest segment always stays. The caller removes the files.
        """
        with self._state:
            # A chain hangs on the last record, so one that only an old segment holds stays.
            keep = 2 if self._link is not None and not self._size else 1
            gone = 0
            while gone + keep < len(self._segments) and self._segments[gone + 1].first_seq <= seq:
                gone += 1
            dropped = self._segments[:gone]
            del self._segments[:gone]
            return dropped

    def _seal(self) -> None:
        """Writes the size of the growing segment into the list."""
        if self._segments:
            self._segments[-1] = self._segments[-1]._replace(size=self._size)
