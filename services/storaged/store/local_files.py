"""The open files of the local backend: an upload on its way in, a version being read."""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from services.storaged.core.objects import StoredObject
from services.storaged.core.uploads import UploadPlan
from services.storaged.store.tags import Tag

if TYPE_CHECKING:
    from services.storaged.store.local import LocalBackend

# How many bytes of an upload pass between two looks at the free space.
SPACE_CHECK_BYTES = 64 * 1024 * 1024


class LocalUpload:
    """An upload under way: a file in staging."""

    def __init__(self, backend: LocalBackend, key: str, plan: UploadPlan, path: str) -> None:
        self._backend = backend
        self._key = key
        self._plan = plan
        self._path = path
        self._digest = hashlib.sha256()
        self._size = 0
        # A block may still be on its way to the disk when the upload is given up.
        self._lock = threading.Lock()
        self._fd: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)

    def write(self, block: bytes) -> None:
        """Adds a block at the end."""
        with self._lock, self._backend.disk_errors():
            if self._fd is None:
                return
            left = memoryview(block)
            while left:
                left = left[os.write(self._fd, left) :]
            self._digest.update(block)
            before, self._size = self._size, self._size + len(block)
            if before // SPACE_CHECK_BYTES != self._size // SPACE_CHECK_BYTES:
                self._backend.check_space(0)

    def commit(self) -> tuple[StoredObject, bool]:
        """Syncs the file with its tag and publishes it."""
        with self._lock:
            assert self._fd is not None, "a discarded upload cannot be committed"
            try:
                self._plan.check_received(self._size, self._digest.digest())
                with self._backend.disk_errors():
                    tag = self._seal(self._fd)
                    created = self._backend.publish(self._path, self._key, self._plan.condition)
            except BaseException:
                self._backend.tags.drop(os.fstat(self._fd))
                raise
            finally:
                self._clear()
        return self._backend.describe(self._key, tag), created

    def discard(self) -> None:
        """Removes what has come so far."""
        with self._lock:
            self._clear()

    def _seal(self, fd: int) -> Tag:
        now = self._backend.clock_ns()
        # Set by us, as the tag has to name it before the last sync.
        os.utime(fd, ns=(now, now))
        tag = Tag(self._size, now, self._digest.digest(), self._plan.content_type)
        self._backend.tags.write(fd, tag)
        os.fsync(fd)
        return tag

    def _clear(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            with suppress(FileNotFoundError):
                os.unlink(self._path)


class LocalReader:
    """One version of an object: its file stays readable after the key has another."""

    def __init__(self, stored: StoredObject, fd: int) -> None:
        self.stored = stored
        self._fd: int | None = fd
        self._lock = threading.Lock()

    def expect(self, offset: int, length: int) -> None:
        """Nothing to prepare: the kernel reads ahead by itself."""

    def read(self, offset: int, size: int) -> bytes:
        """Bytes from the page cache or the disk."""
        with self._lock:
            return os.pread(self._fd, size, offset) if self._fd is not None else b""

    def close(self) -> None:
        """Closes the file once no read is under way."""
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None


def open_file(path: str) -> int | None:
    """A descriptor for reading, or None when there is no such file."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
