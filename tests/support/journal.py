"""Disks for journal tests: quick, failing at a chosen call, or held at a gate."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shared.journal import Disk, Journal, Record

# Never syncs: for tests of bytes, thousands of times.
QUICK = Disk(fdatasync=lambda fd: None, fsync=lambda fd: None)


@contextmanager
def memory_directory() -> Generator[Path]:
    """A folder in memory where there is one: thousands of small files, made and removed."""
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=parent) as made:
        yield Path(made)


class FaultyDisk:
    """Counts calls and fails from the n-th of one kind on.

    Args:
        kind: "write", "fdatasync", "fsync" or "truncate".
        at: the first failing call of that kind, counted from 1; 0 for none.
        code: its errno.
        short: a failing write leaves this many bytes first, in a call of its own.
        also: another kind that fails from the same moment on.
    """

    def __init__(
        self, kind: str = "", at: int = 0, code: int = errno.EIO, short: int = 0, also: str = ""
    ) -> None:
        self.kind, self.at, self.code, self.short, self.also = kind, at, code, short, also
        self.calls = {"write": 0, "fdatasync": 0, "fsync": 0, "truncate": 0}
        self.failed = 0
        # The size of each file when it was last synced, by inode.
        self.synced: dict[int, int] = {}
        self.disk = Disk(
            write=self._write,
            fdatasync=self._sync("fdatasync"),
            fsync=self._sync("fsync"),
            truncate=self._truncate,
        )

    def mend(self) -> None:
        """Everything works from now on."""
        self.at, self.also, self.failed = 0, "", 0

    def _fails(self, kind: str) -> bool:
        self.calls[kind] += 1
        due = kind == self.kind and self.at and self.calls[kind] >= self.at
        if due or (self.failed and kind == self.also):
            self.failed += 1
            return True
        return False

    def _write(self, fd: int, data: bytes | memoryview) -> int:
        if self._fails("write"):
            if self.failed == 1 and self.short:
                return os.write(fd, bytes(data)[: self.short])
            raise OSError(self.code, "injected")
        return os.write(fd, data)

    def _sync(self, kind: str) -> Callable[[int], None]:
        def sync(fd: int) -> None:
            if self._fails(kind):
                raise OSError(self.code, "injected")
            found = os.fstat(fd)
            self.synced[found.st_ino] = found.st_size

        return sync

    def _truncate(self, fd: int, size: int) -> None:
        if self._fails("truncate"):
            raise OSError(self.code, "injected")
        os.ftruncate(fd, size)


class GatedDisk:
    """Holds every fdatasync until the gate is opened; says when one is held."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.held = threading.Event()
        self.error: OSError | None = None
        self.disk = Disk(fdatasync=self._fdatasync, fsync=lambda fd: None)

    def _fdatasync(self, fd: int) -> None:
        self.held.set()
        assert self.gate.wait(10)
        if self.error is not None:
            raise self.error


def fill(directory: Path, count: int, **options: Any) -> list[Record]:
    """A closed journal of `count` small records; gives them as they are on disk."""
    options.setdefault("disk", QUICK)
    with Journal(directory, **options) as journal:
        for number in range(1, count + 1):
            journal.append_sync({"n": number})
        return list(journal.replay())


def segment_files(directory: Path) -> list[Path]:
    """The segment files, oldest first."""
    return sorted(directory.glob("0*.jsonl"))
