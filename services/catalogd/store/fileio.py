"""Iceberg metadata on local disk, written so that acknowledged means there after a crash.

A file appears under its name whole or not at all (temporary name, fsync, rename), and
`sync_directories` makes the names themselves durable: once per commit, right before the
pointer moves. What a failed commit wrote is removed again by `discard`.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile, OutputStream

from shared.errors import InsufficientStorage

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class SyncFailed(Exception):
    """The disk refused to make written data durable; nothing on it can be trusted further."""


class DurableFileIO(FileIO):
    """Reads and writes `file://` addresses and plain paths; one instance per commit.

    Several threads may write through it.
    """

    def __init__(self, properties: dict[str, str] | None = None) -> None:
        super().__init__(properties or {})
        self._lock = threading.Lock()
        self._open: set[WriteStream] = set()
        self._written: list[str] = []
        self._directories: set[str] = set()
        self._discarded = False

    def new_input(self, location: str) -> LocalInput:
        return LocalInput(location)

    def new_output(self, location: str) -> LocalOutput:
        return LocalOutput(location, self)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        address = location if isinstance(location, str) else location.location
        os.unlink(local_path(address))

    def note_opened(self, stream: WriteStream) -> bool:
        """Called by a stream that will write a file; False when the commit is off already."""
        with self._lock:
            if not self._discarded:
                self._open.add(stream)
            return not self._discarded

    def note_closed(self, stream: WriteStream, path: str | None) -> None:
        """Called by a stream that has put its file in place, or given up (no path)."""
        with self._lock:
            self._open.discard(stream)
            if path is not None and not self._discarded:
                self._written.append(path)
                self._directories.add(os.path.dirname(path))
                return
        # A thread that had not heard yet that the commit is off.
        if path is not None:
            Path(path).unlink(missing_ok=True)

    def list_places(self) -> list[str]:
        """Paths of all files written so far."""
        with self._lock:
            return list(self._written)

    def sync_directories(self) -> None:
        """Makes the names of all files written so far durable."""
        for directory in self._directories:
            sync_directory(directory)
        self._directories.clear()

    def discard(self) -> None:
        """Removes what was written; for a commit that certainly did not happen."""
        with self._lock:
            self._discarded = True
            unfinished = list(self._open)
        for stream in unfinished:
            stream.abandon()
        for path in self._written:
            Path(path).unlink(missing_ok=True)


class LocalInput(InputFile):
    """A file to read."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self._path = local_path(location)

    def __len__(self) -> int:
        return os.stat(self._path).st_size

    def exists(self) -> bool:
        return os.path.exists(self._path)

    def open(self, seekable: bool = True) -> InputStream:
        # The protocol names its parameters; nobody passes them by name.
        return open(self._path, "rb")  # pyright: ignore[reportReturnType]


class LocalOutput(OutputFile):
    """A file to write. Every name carries a uuid, so none is ever written twice."""

    def __init__(self, location: str, owner: DurableFileIO) -> None:
        super().__init__(location)
        self._path = local_path(location)
        self._owner = owner

    def __len__(self) -> int:
        return os.stat(self._path).st_size

    def exists(self) -> bool:
        return os.path.exists(self._path)

    def to_input_file(self) -> LocalInput:
        return LocalInput(self.location)

    def create(self, overwrite: bool = False) -> OutputStream:
        if not overwrite and self.exists():
            raise FileExistsError(errno.EEXIST, "exists already", self.location)
        make_durable_directory(os.path.dirname(self._path))
        return WriteStream(self._path, self._owner)


class WriteStream(OutputStream):
    """Collects a file under a temporary name; `close` makes it durable and names it."""

    def __init__(self, path: str, owner: DurableFileIO) -> None:
        self._path = path
        self._owner = owner
        self._temporary = f"{path}.tmp"
        self._file: BinaryIO = open(self._temporary, "wb")  # noqa: SIM115 (closed by close)
        if not owner.note_opened(self):
            # Whoever opens it may fail before it is able to close it: nothing may stay.
            self.abandon()
            raise OSError(errno.ECANCELED, "the commit is off", path)

    def write(self, b: bytes) -> int:
        return self._file.write(b)

    def tell(self) -> int:
        return self._file.tell()

    @property
    def closed(self) -> bool:
        """Asked by pyarrow, which writes Parquet through such a stream."""
        return self._file.closed

    def close(self) -> None:
        if self._file.closed:
            return
        try:
            with self._file:
                self._file.flush()
                sync_file(self._file.fileno())
            os.rename(self._temporary, self._path)
        except BaseException:
            self.abandon()
            raise
        self._owner.note_closed(self, self._path)

    def abandon(self) -> None:
        """Gives the file up; nothing of it stays."""
        Path(self._temporary).unlink(missing_ok=True)
        # What is buffered has nowhere to go; failing to flush it is no news.
        with suppress(OSError, ValueError):
            self._file.close()
        self._owner.note_closed(self, None)

    def __enter__(self) -> WriteStream:
        return self

    def __exit__(
        self,
        exctype: type[BaseException] | None,
        excinst: BaseException | None,
        exctb: TracebackType | None,
    ) -> None:
        self.close()


def local_path(location: str) -> str:
    """The path of a `file:` address, or of a plain path.

    Taken as it stands: addresses here carry no escapes, as Iceberg's other readers expect.
    """
    if location.startswith("file:"):
        path = location.removeprefix("file:")
        return path[2:] if path.startswith("//") else path
    if "://" in location:
        raise ValueError("not a local address")
    return location


def sync_file(fd: int) -> None:
    """fsync, with failures told apart.

    Raises:
        InsufficientStorage: the disk is full; freeing space helps.
        SyncFailed: the disk is broken.
    """
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full() from error
        raise SyncFailed from error


def make_durable_directory(directory: str) -> None:
    """Makes a directory with its parents, each named durably in the one above."""
    if os.path.isdir(directory):
        return
    parent = os.path.dirname(directory)
    make_durable_directory(parent)
    with suppress(FileExistsError):
        os.mkdir(directory)
    sync_directory(parent)


def sync_directory(directory: str) -> None:
    """Makes the names in a directory durable; failures as those of `sync_file`."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_file(fd)
    finally:
        os.close(fd)


def is_disk_full(error: OSError) -> bool:
    """Whether a failure goes away when space is freed."""
    return error.errno in _FULL


def disk_full() -> InsufficientStorage:
    """What a caller hears when a commit found no space."""
    return InsufficientStorage(
        "The disk of the catalogue's metadata is full; nothing was changed. Free space, then "
        "send the same request again."
    )
