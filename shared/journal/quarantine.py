"""Where damaged bytes go: copied once, never thrown away.

One file beside the segments, `quarantine.jsonl`. Each line says which bytes of which
segment it holds and why, with the bytes in base64:

    {"segment":"...","offset":n,"length":n,"crc":"...","reason":"torn","t":...,"data":"..."}

The journal never reads it back except to know what is in it already; it is there for the
person who repairs. Nothing deletes it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import orjson

from shared.journal.disk import Disk, sync_directory, write_fully

FILE_NAME = "quarantine.jsonl"
# Larger damage is kept in pieces of this many bytes, so that no line gets out of hand.
PIECE_BYTES = 1 << 20

_Key = tuple[str, int, int, str]


class Quarantine:
    """The quarantine file of one journal; safe to use from several threads."""

    def __init__(self, directory: Path, disk: Disk, clock: Callable[[], int]) -> None:
        self.path = directory / FILE_NAME
        self.kept = 0
        self._disk = disk
        self._clock = clock
        self._lock = threading.Lock()
        self._known: set[_Key] | None = None
        # A copy made by an earlier process may never have been synced.
        self._unsynced = True

    def keep(self, segment: str, offset: int, data: bytes, reason: str) -> None:
        """Copies damaged bytes, unless the same ones from the same place are kept already.

        Call `sync` before the place they came from goes away.

        Raises:
            OSError: the file cannot be written; nothing counts as kept then.
        """
        with self._lock:
            known = self._load()
            fresh: dict[_Key, bytes] = {}
            for at in range(0, len(data), PIECE_BYTES):
                piece = data[at : at + PIECE_BYTES]
                key = (segment, offset + at, len(piece), f"{crc32(piece):08x}")
                if key not in known:
                    fresh[key] = self._line(key, piece, reason)
            if fresh:
                self._append(b"".join(fresh.values()))
                known.update(fresh)
                self.kept += 1

    def try_keep(self, segment: str, offset: int, data: bytes, reason: str) -> bool:
        """`keep` for damage that stays in its place anyway; whether it could be copied."""
        try:
            self.keep(segment, offset, data, reason)
        except OSError:
            return False
        return True

    def sync(self) -> None:
        """Makes all copies durable.

        Raises:
            OSError: the disk cannot; what they were copied from must stay.
        """
        with self._lock:
            if self._unsynced and self.path.exists():
                fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    self._disk.fdatasync(fd)
                finally:
                    os.close(fd)
                sync_directory(self._disk, self.path.parent)
                self._unsynced = False

    def _line(self, key: _Key, piece: bytes, reason: str) -> bytes:
        segment, offset, length, crc = key
        entry = {
            "segment": segment,
            "offset": offset,
            "length": length,
            "crc": crc,
            "reason": reason,
            "t": self._clock(),
            "data": base64.b64encode(piece).decode("ascii"),
        }
        return orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)

    def _append(self, lines: bytes) -> None:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(fd).st_size
            # An entry torn by a crash must not swallow the next one.
            glue = b"\n" if size and os.pread(fd, 1, size - 1) != b"\n" else b""
            try:
                self._unsynced = True
                write_fully(self._disk, fd, glue + lines)
            except OSError:
                with contextlib.suppress(OSError):
                    self._disk.truncate(fd, size)
                raise
        finally:
            os.close(fd)

    def _load(self) -> set[_Key]:
        if self._known is None:
            self._known = set()
            with contextlib.suppress(FileNotFoundError), self.path.open("rb") as lines:
                for line in lines:
                    # A torn entry is no entry: what it held is copied again.
                    with contextlib.suppress(ValueError, KeyError, TypeError):
                        entry = orjson.loads(line)
                        self._known.add(
                            (entry["segment"], entry["offset"], entry["length"], entry["crc"])
                        )
        return self._known
