"""Files of a table, fetched from storaged as far as an upsert has to see them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.ingestd.core.merging import TAIL, footer_length
from services.ingestd.store.spool import PIECE, explain_write
from shared.clients.storaged import ByteRange, StoragedClient
from shared.errors import Unprocessable
from shared.pool import BlockingPool
from shared.wire.catalogd import DataFile

# Files up to this size are fetched whole: a request costs more than their bytes.
WHOLE = 256 * 1024
# Fetched of the end of others; most footers are in it.
_END = 64 * 1024
# Files fetched at once.
_AT_ONCE = 4


@dataclass(slots=True)
class TableFile:
    """One file of the table.

    Attributes:
        key, size: of its object.
        path: where its bytes are, in their places; what was not fetched is a gap.
        complete: whether there are no gaps.
        matches: the list of the upsert's rows whose key it holds; None for none.
    """

    key: str
    uri: str
    size: int
    path: Path
    complete: bool = False
    matches: str | None = None


class TableFiles:
    """Fetches for one upsert.

    Args:
        objects: where they lie.
        pool: for writing them.
        folder: for the local ones; the caller removes it.
        told: gets the number of bytes of each piece that came.
    """

    def __init__(
        self,
        objects: StoragedClient,
        pool: BlockingPool,
        folder: Path,
        told: Callable[[int], None],
    ) -> None:
        self._objects = objects
        self._pool = pool
        self._folder = folder
        self._told = told
        self._made = 0

    def name(self, file: DataFile) -> TableFile:
        """A file of the table, nothing of it fetched.

        Raises:
            Unprocessable: its address does not tell which object of storaged it is.
        """
        if file.key is None:
            raise Unprocessable(
                "A file of the dataset cannot be fetched from storaged by its address, so its rows "
                "cannot be replaced. Ingest them into another dataset, and upsert there.",
                details={"uri": file.uri},
            )
        self._made += 1
        path = self._folder / f"table-{self._made}.parquet"
        return TableFile(file.key, file.uri, file.size, path)

    async def fetch_footers(self, files: Sequence[TableFile]) -> None:
        """Fetches the footers of files, and all of small ones."""
        await self._each(files, self._fetch_footer)

    async def fetch_ranges(
        self, files: Sequence[TableFile], ranges: Sequence[Sequence[Sequence[int]]]
    ) -> None:
        """Fetches parts of files: for each its (start, length)s."""
        wanted = dict(zip((file.key for file in files), ranges, strict=True))

        async def fetch(file: TableFile) -> None:
            if not file.complete:
                for start, length in wanted[file.key]:
                    await self._fetch(file, (start, start + length - 1), start)

        await self._each(files, fetch)

    async def fetch_whole(self, files: Sequence[TableFile]) -> None:
        """Fetches files whole, one after the other."""
        for file in files:
            if not file.complete:
                await self._fetch(file, None, 0)
                file.complete = True

    async def release(self, files: Sequence[TableFile]) -> None:
        """Gives the room of files back; they can be fetched again."""
        for file in files:
            await self._pool.run(file.path.unlink, missing_ok=True)
            file.complete = False

    async def _fetch_footer(self, file: TableFile) -> None:
        if file.size <= WHOLE:
            await self._fetch(file, None, 0)
            file.complete = True
            return
        tail = await self._fetch(file, (-_END, None), file.size - _END)
        length = footer_length(tail[-TAIL:])
        if length is None or length > file.size:
            raise Unprocessable(
                f"The object {file.key!r} of the dataset is no Parquet file, or an encrypted one.",
                details={"object": file.key},
            )
        if length > len(tail):
            await self._fetch(file, (-length, None), file.size - length)

    async def _each(self, files: Sequence[TableFile], fetch: Callable[[TableFile], object]) -> None:
        waiting = iter(files)

        async def work() -> None:
            for file in waiting:
                await fetch(file)  # type: ignore[misc]

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(_AT_ONCE, len(files))):
                    group.create_task(work())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _fetch(self, file: TableFile, wanted: ByteRange | None, at: int) -> bytes:
        """Fetches bytes into their place; gives the last of them, as far as a footer's end."""
        async with self._objects.get_object(file.key, wanted) as body:
            if body.info.size != file.size:
                raise Unprocessable(
                    f"The object {file.key!r} is not the one that the dataset was made of: it has "
                    f"{body.info.size} bytes, not {file.size}. Restore it from a backup.",
                    details={"object": file.key},
                )
            return await self._write(file, body.__aiter__(), at)

    async def _write(self, file: TableFile, pieces: AsyncIterator[bytes], at: int) -> bytes:
        last = b""
        try:
            fd = os.open(file.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(fd, file.size)
                held = bytearray()
                async for piece in pieces:
                    held += piece
                    self._told(len(piece))
                    if len(held) >= PIECE:
                        await self._pool.run(write_at, fd, bytes(held), at)
                        at, last = at + len(held), bytes(held[-_END:])
                        held.clear()
                await self._pool.run(write_at, fd, bytes(held), at)
                return (last + held)[-_END:]
            finally:
                os.close(fd)
        except OSError as error:
            raise explain_write(error) from error


def write_at(fd: int, data: bytes, at: int) -> None:
    """Writes all of `data` at a place of a file."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written
