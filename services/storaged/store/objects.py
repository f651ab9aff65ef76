"""Objects as streams: the asynchronous side of a backend.

Bodies pass in blocks through the daemon's one pool of threads. A block is written and
hashed while the next one is received, and read while the one before is sent, so that
neither the disk nor the network waits for the other. Whatever ends a request, its upload
or open file is let go in the pool, by a task of its own that no cancellation reaches.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from services.storaged.core.caps import Cap, choose_cap
from services.storaged.core.conditions import WriteCondition
from services.storaged.core.listing import ListQuery
from services.storaged.core.objects import StoredObject
from services.storaged.core.reads import ReadPlan
from services.storaged.core.uploads import UploadPlan
from services.storaged.store.backend import Backend, ObjectPage, Reader, Replaced, Upload
from services.storaged.store.figures import Figures
from shared.errors import LakehouseError
from shared.pool import BlockingPool

# What goes through the pool at once: large enough that the hand-over does not matter,
# small enough that many bodies fit into memory. Bytes.
BLOCK = 1024 * 1024

# How often a key is opened that changes all the time.
OPENINGS = 10

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OpenObject:
    """An answer to a read: its plan, the body's first block, and where the rest comes from.

    `reader` is None when the first block is all.
    """

    plan: ReadPlan
    first: bytes
    reader: Reader | None


class ObjectStore:
    """What the routes call.

    Args:
        backend: where the objects lie.
        pool: threads for it; must queue several calls for each request at once.
        caps: largest size in bytes by prefix of the key.
        default_cap: largest size elsewhere.
        figures: counted here.
    """

    def __init__(
        self,
        backend: Backend,
        pool: BlockingPool,
        *,
        caps: Mapping[str, int],
        default_cap: int,
        figures: Figures,
    ) -> None:
        self.backend = backend
        self.pool = pool
        self.caps = caps
        self.default_cap = default_cap
        self.figures = figures
        self._leaving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Starts the backend."""
        await self.pool.run(self.backend.start)

    async def stop(self) -> None:
        """Lets what is under way end, then the backend."""
        while self._leaving:
            await asyncio.wait(set(self._leaving))
        await self.pool.run(self.backend.stop)
        self.pool.close()

    async def put(
        self, key: str, plan: UploadPlan, body: AsyncIterator[bytes]
    ) -> tuple[StoredObject, bool]:
        """Stores a body; true when the key was free before.

        Raises:
            TooLarge, PreconditionFailed, InsufficientStorage, Invalid: nothing is stored.
        """
        try:
            cap = choose_cap(key, self.caps, self.default_cap)
            if plan.length is None or plan.length > BLOCK:
                stored, created = await self._put_stream(key, plan, cap, body)
            else:
                cap.check(plan.length)
                content = b"".join([piece async for piece in body])
                self.figures.bytes_in.inc(len(content))
                stored, created = await self.pool.run(self._put_block, key, plan, content)
        except LakehouseError as error:
            self.figures.count_refused(error.code)
            raise
        (self.figures.created if created else self.figures.replaced).inc()
        return stored, created

    async def open(self, key: str, choose: Callable[[StoredObject], ReadPlan]) -> OpenObject:
        """Opens an object and reads the first block of what `choose` makes of it.

        Raises:
            NotFound: there is none; and what `choose` raises.
        """
        opening = asyncio.ensure_future(self.pool.run(self._open_first, key, choose))
        return await self._claim(opening, self.leave)

    async def read_blocks(self, opened: OpenObject) -> AsyncGenerator[bytes]:
        """The body in blocks, each read while the one before is being sent."""
        self.figures.bytes_out.inc(len(opened.first))
        offset = opened.plan.offset + len(opened.first)
        end = opened.plan.offset + opened.plan.length
        coming: asyncio.Future[bytes] | None = None
        block = opened.first
        try:
            while True:
                coming = None
                if offset < end and opened.reader is not None:
                    size = min(BLOCK, end - offset)
                    coming = asyncio.ensure_future(self.pool.run(opened.reader.read, offset, size))
                yield block
                if coming is None:
                    return
                block = await coming
                offset += len(block)
                self.figures.bytes_out.inc(len(block))
        finally:
            if coming is not None:
                _forget(coming)

    async def delete(self, key: str, condition: WriteCondition) -> bool:
        """Removes an object; false when there was none.

        Raises:
            PreconditionFailed: the condition does not hold.
        """
        deleted = await self.pool.run(self.backend.delete, key, condition)
        if deleted:
            self.figures.deleted.inc()
        return deleted

    async def list(self, query: ListQuery) -> ObjectPage:
        """One page of objects in byte order of their keys."""
        return await self.pool.run(self.backend.list, query)

    async def check(self) -> dict[str, str]:
        """For `/ready`."""
        return await self.pool.run(self.backend.check)

    def leave(self, opened: OpenObject) -> None:
        """Closes what is open in the pool, without waiting for it."""
        if opened.reader is not None:
            self._run_apart(opened.reader.close)

    async def _put_stream(
        self, key: str, plan: UploadPlan, cap: Cap, body: AsyncIterator[bytes]
    ) -> tuple[StoredObject, bool]:
        cap.check(plan.length or 0)
        beginning = asyncio.ensure_future(self.pool.run(self.backend.begin, key, plan))
        upload = await self._claim(beginning, self._abandon)
        writing: asyncio.Future[None] | None = None
        try:
            received = 0
            async for block in gather_blocks(body, BLOCK):
                received += len(block)
                self.figures.bytes_in.inc(len(block))
                cap.check(received)
                if writing is not None:
                    await writing
                writing = asyncio.ensure_future(self.pool.run(upload.write, block))
            if writing is not None:
                await writing
            return await self.pool.run(upload.commit)
        except BaseException as error:
            if writing is not None:
                _forget(writing)
            discarding = self._run_apart(upload.discard)
            if not isinstance(error, asyncio.CancelledError):
                # Who is told of the refusal finds nothing left.
                await asyncio.shield(discarding)
            raise

    def _put_block(self, key: str, plan: UploadPlan, content: bytes) -> tuple[StoredObject, bool]:
        upload = self.backend.begin(key, plan)
        try:
            upload.write(content)
            return upload.commit()
        finally:
            upload.discard()

    def _open_first(self, key: str, choose: Callable[[StoredObject], ReadPlan]) -> OpenObject:
        for _ in range(OPENINGS - 1):
            # A key that changes between being opened and read is opened again.
            with suppress(Replaced):
                return self._open_once(key, choose)
        return self._open_once(key, choose)

    def _open_once(self, key: str, choose: Callable[[StoredObject], ReadPlan]) -> OpenObject:
        reader = self.backend.open(key)
        keep = False
        try:
            plan = choose(reader.stored)
            reader.expect(plan.offset, plan.length)
            first = reader.read(plan.offset, min(BLOCK, plan.length)) if plan.length else b""
            keep = len(first) < plan.length
        finally:
            if not keep:
                reader.close()
        return OpenObject(plan, first, reader if keep else None)

    async def _claim(self, work: asyncio.Future[T], dispose: Callable[[T], None]) -> T:
        """Awaits what must be disposed of if this caller goes away before it is there."""
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(
                lambda done: (
                    None if done.cancelled() or done.exception() else dispose(done.result())
                )
            )
            raise

    def _abandon(self, upload: Upload) -> None:
        self._run_apart(upload.discard)

    def _run_apart(self, fn: Callable[[], None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self.pool.run(fn))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return task


async def gather_blocks(body: AsyncIterator[bytes], size: int) -> AsyncGenerator[bytes]:
    """Joins pieces into blocks of at least `size` bytes; the last one may be smaller."""
    pieces: list[bytes] = []
    held = 0
    async for piece in body:
        pieces.append(piece)
        held += len(piece)
        if held >= size:
            yield b"".join(pieces)
            pieces, held = [], 0
    if held:
        yield b"".join(pieces)


def _forget(future: asyncio.Future[T]) -> None:
    """Marks a result nobody waits for as read, so that its failure is not reported."""
    future.add_done_callback(lambda done: None if done.cancelled() else done.exception())
