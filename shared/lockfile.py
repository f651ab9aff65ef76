"""One writer per data directory: an advisory lock that dies with its process."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from shared.errors import Unavailable

LOCK_NAME = ".lock"


class DirectoryLock:
    """An exclusive `flock` on a directory's lock file.

    Take it after the fork: the lock belongs to the open file, and a child that inherited
    one would share it with its parent. The kernel lets go when the process dies, however
    it dies, so a leftover file never blocks a restart.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._fd: int | None = None

    def acquire(self) -> DirectoryLock:
        """Takes the lock, making the directory if need be.

        Raises:
            Unavailable: another process holds it.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise Unavailable(
                f"The data directory of this daemon is in use by process {holder}. "
                "Stop that process, or give this one another data_dir.",
                details={"holder_pid": holder},
            ) from None
        self._fd = fd
        with contextlib.suppress(OSError):
            # A courtesy to whoever is refused; on a full disk the lock holds without it.
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode("ascii"), 0)
        return self

    def release(self) -> None:
        """Lets go; calling it twice is harmless."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def holder(self) -> int | None:
        """Process id of whoever holds the lock now, None when nobody does."""
        try:
            fd = os.open(self.directory / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return int(os.pread(fd, 32, 0) or b"0")
        finally:
            os.close(fd)
        return None

    def __enter__(self) -> DirectoryLock:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
