"""Bodies on their way to a worker: written to disk and hashed while they are received."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.ingestd.core.bundle import combine_digests
from shared.errors import InsufficientStorage
from shared.lockfile import LOCK_NAME
from shared.pool import BlockingPool

# Pieces are gathered to this size: a hand-over to a thread costs more than a few KiB.
PIECE = 1024 * 1024
# A body in its folder; of several the later ones are numbered.
SOURCE = "source"
_PREFIX = "ingest-"


@dataclass(frozen=True, slots=True)
class Upload:
    """A received file: where it lies, its bytes and its SHA-256 in hex; "" for no name."""

    path: Path
    size: int
    sha256: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Received:
    """The files of one ingest, in their order."""

    files: tuple[Upload, ...]

    @property
    def size(self) -> int:
        """Bytes of all."""
        return sum(one.size for one in self.files)

    @property
    def sha256(self) -> str:
        """What names them all."""
        return combine_digests([one.sha256 for one in self.files])


def source_name(number: int) -> str:
    """What the body of this place is called in its folder."""
    return f"{SOURCE}-{number}" if number else SOURCE


def is_source(name: str) -> bool:
    """Whether a name in an ingest's folder is that of a body."""
    return name == SOURCE or name.startswith(f"{SOURCE}-")


class Spool:
    """Folders for ingests under way; nothing in them outlives its ingest.

    A job's folder outlives the process: its body was acknowledged.

    Args:
        root: the daemon's data directory.
        pool: for writing and removing; with room for every request at once.
    """

    def __init__(self, root: Path, pool: BlockingPool) -> None:
        self._root = root
        self._pool = pool
        self._handed_on: set[str] = set()

    def clear(self, keep: Collection[str] = ()) -> None:
        """Removes what a process that died left behind. Call with the directory locked.

        Args:
            keep: names of folders that are still needed. Of an ingest's folder the bodies alone
                are: what was being made of them is made again.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        for entry in self._root.iterdir():
            if entry.name in keep:
                for made in entry.iterdir() if entry.name.startswith(_PREFIX) else ():
                    if not is_source(made.name):
                        _remove(made)
            elif entry.name != LOCK_NAME:
                _remove(entry)

    @asynccontextmanager
    async def folder(self) -> AsyncGenerator[Path]:
        """A folder for one ingest, removed afterwards unless it was handed on (`hand_on`).

        Raises:
            InsufficientStorage: the disk is full.
        """
        try:
            path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._root))
        except OSError as error:
            raise explain_write(error) from error
        try:
            yield path
        finally:
            if path.name in self._handed_on:
                self._handed_on.discard(path.name)
            else:
                await self.remove(path)

    def hand_on(self, folder: Path) -> None:
        """Leaves a folder to whoever removes it later."""
        self._handed_on.add(folder.name)

    def at(self, name: str) -> Path:
        """The folder of this name."""
        return self._root / name

    async def make(self, name: str) -> Path:
        """A folder of this name, empty but for bodies that were received.

        Raises:
            InsufficientStorage: the disk is full.
        """
        try:
            await self._pool.run(self._make, name)
        except OSError as error:
            raise explain_write(error) from error
        return self._root / name

    def _make(self, name: str) -> None:
        folder = self._root / name
        folder.mkdir(exist_ok=True)
        for made in folder.iterdir():
            if not is_source(made.name):
                _remove(made)

    async def sync(self, folder: Path) -> None:
        """Makes received bodies durable, and their folder's name.

        Raises:
            InsufficientStorage: the disk is full.
        """

        def sync() -> None:
            for path in (*folder.iterdir(), folder, self._root):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)

        try:
            await self._pool.run(sync)
        except OSError as error:
            raise explain_write(error) from error

    async def remove(self, folder: Path) -> None:
        """Removes a folder with all in it; what is under way when the caller leaves is ended."""
        await self._pool.run(shutil.rmtree, folder, ignore_errors=True)

    async def receive_files(self, pieces: AsyncIterator[str | bytes], folder: Path) -> Received:
        """Writes bodies to disk.

        Args:
            pieces: the name of each, then its bytes.

        Raises:
            InsufficientStorage: the disk is full.
        """
        uploads: list[Upload] = []
        names: list[str] = []
        async for first in pieces:
            names.append(str(first))
            break
        while names:
            name = names.pop()
            one = _read_one(pieces, names)
            uploads.append(await self.receive(one, folder, len(uploads), name))
        return Received(tuple(uploads))

    async def receive(
        self, pieces: AsyncIterator[bytes], folder: Path, number: int = 0, name: str = ""
    ) -> Upload:
        """Writes a body to disk.

        Args:
            number: its place among the bodies of its folder.
            name: what it is called.

        Raises:
            InsufficientStorage: the disk is full.
        """
        path = folder / source_name(number)
        digest = hashlib.sha256()
        size = 0
        held = bytearray()
        writing: asyncio.Task[None] | None = None
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

        def write(data: bytes) -> None:
            digest.update(data)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]

        try:
            async for piece in pieces:
                held += piece
                if len(held) >= PIECE:
                    # The next piece is received while this one is written.
                    if writing is not None:
                        await writing
                    size += len(held)
                    writing = asyncio.create_task(self._pool.run(write, bytes(held)))
                    held.clear()
            if writing is not None:
                await writing
                writing = None
            size += len(held)
            await self._pool.run(write, bytes(held))
        except OSError as error:
            raise explain_write(error) from error
        finally:
            if writing is not None:
                with contextlib.suppress(Exception, asyncio.CancelledError):
                    await writing
            os.close(fd)
        return Upload(path, size, digest.hexdigest(), name)


async def _read_one(
    pieces: AsyncIterator[str | bytes], following: list[str]
) -> AsyncGenerator[bytes]:
    """The bytes up to the next name, which goes into `following`."""
    async for piece in pieces:
        if isinstance(piece, str):
            following.append(piece)
            return
        yield piece


async def name_body(pieces: AsyncIterator[bytes], name: str = "") -> AsyncGenerator[str | bytes]:
    """One body as a stream of files has it."""
    yield name
    async for piece in pieces:
        yield piece


def explain_write(error: OSError) -> Exception:
    """A full disk as the caller is told of it; any other failure as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InsufficientStorage(
            "The disk that ingestd works on is full. Free some space there, then send the file "
            "again."
        )
    return error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
