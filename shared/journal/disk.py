"""The few operating-system calls that durability hangs on, passed in so that tests can fail them.

A `Disk` is only a record of functions: the real ones by default. Everything in this package
that writes, syncs or truncates goes through it; reading does not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shared.errors import InsufficientStorage

Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Disk:
    """Calls on open file descriptors; each raises `OSError` as the real one does."""

    write: Callable[[int, Buffer], int] = os.write
    fdatasync: Callable[[int], None] = os.fdatasync
    fsync: Callable[[int], None] = os.fsync
    truncate: Callable[[int, int], None] = os.ftruncate


def now_us() -> int:
    """Wall-clock time in microseconds since 1970: the default clock of a journal."""
    return time.time_ns() // 1000


def write_fully(disk: Disk, fd: int, data: bytes) -> None:
    """Writes all of `data`, going on after short writes.

    Raises:
        OSError: a write failed, or took nothing; a prefix may be in the file then.
    """
    written = disk.write(fd, data)
    while written < len(data):
        more = disk.write(fd, memoryview(data)[written:])
        if more <= 0:
            raise OSError(errno.ENOSPC, "write took nothing")
        written += more


def sync_directory(disk: Disk, directory: Path) -> None:
    """Makes the names in `directory` durable: files made, renamed or removed in it."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        disk.fsync(fd)
    finally:
        os.close(fd)


def make_directory(disk: Disk, directory: Path) -> None:
    """Makes `directory` and its missing parents so that they survive a power cut."""
    missing: list[Path] = []
    while not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    for made in reversed(missing):
        with contextlib.suppress(FileExistsError):
            made.mkdir()
        sync_directory(disk, made.parent)


def out_of_storage(cause: BaseException) -> InsufficientStorage:
    """The error for callers of a journal that can no longer be written."""
    number = cause.errno if isinstance(cause, OSError) else None
    name = errno.errorcode.get(number or 0, type(cause).__name__)
    return InsufficientStorage(
        f"The log cannot be written ({name}), so it is read-only and this was not recorded. "
        "Make room or repair the disk, restart the daemon, then send it again.",
        details={"cause": name},
    )
