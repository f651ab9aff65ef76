"""One index and all that keeps it: journal, writer, background building, snapshots.

Writes of many callers are gathered: one sync of the journal and one new view for all that
came meanwhile, in the order in which they came.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.vectord.core.records import Delete, Upsert, Write, encode_write
from services.vectord.core.snapshots import is_due, label_of
from services.vectord.store.figures import Figures
from services.vectord.store.files import Damaged
from services.vectord.store.graph import Stopped
from services.vectord.store.index import VectorIndex, View
from services.vectord.store.loading import JOURNAL, SNAPSHOTS, Definition
from services.vectord.store.pools import Pools
from services.vectord.store.recovery import recover
from services.vectord.store.remote import Remote
from services.vectord.store.snapshot import prune_snapshots, write_snapshot
from shared.config import VectordSection
from shared.errors import InsufficientStorage, LakehouseError, RateLimited, Unavailable
from shared.filters.language import Filter
from shared.heap import return_freed_memory
from shared.journal import Journal
from shared.wire.vectord import IndexInfo

logger = logging.getLogger("lakehouse.vectord")

# How often an index is looked at for what is due, and the wait after a failure. Seconds.
_LOOK_S = 0.5
_RETRY_S = 5.0
# Without writes for so long, an index counts as idle. Seconds.
_IDLE_S = 2.0
# How long a stop may take to store a last snapshot; the journal has everything anyway. Seconds.
_LAST_SNAPSHOT_S = 5.0
# Callers who may wait to write; and items that one sync may cover.
_MAX_WAITING = 512
_GROUP_ITEMS = 20_000


@dataclass(slots=True)
class _Job:
    work: Write | Filter
    done: asyncio.Future[int]

    @property
    def size(self) -> int:
        return len(self.work.ids) if isinstance(self.work, Upsert | Delete) else 1


class Keeper:
    """One index: loads it, writes to it, and looks after it until `close`."""

    def __init__(
        self,
        definition: Definition,
        folder: Path,
        section: VectordSection,
        remote: Remote,
        pools: Pools,
        figures: Figures,
        now: Callable[[], str],
    ) -> None:
        self.definition = definition
        self.spec = definition.spec
        self.folder = folder
        self.problems: list[str] = []
        self.failure: str | None = None
        self.index: VectorIndex | None = None
        self._section = section
        self._remote = remote
        self._pools = pools
        self._figures = figures
        self._now = now
        self._journal = Journal(
            folder / JOURNAL,
            max_record_bytes=64 << 20,
            max_pending_bytes=max(512 << 20, 4 * section.max_body_bytes),
        )
        self._jobs: list[_Job] = []
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = self._writing = False
        self._wrote_at = self._stored_at = time.monotonic()
        self._store_took = 0.0
        self._stored_seqs: list[int] = []
        # Whether what is stored may be damaged and should be stored anew.
        self._suspect = False

    # --- state

    @property
    def status(self) -> str:
        """loading, ready or failed."""
        return "failed" if self.failure else "ready" if self.index else "loading"

    def opened(self) -> VectorIndex:
        """The index, when it can be used.

        Raises:
            Unavailable: it is being loaded, or could not be.
        """
        if self.failure:
            raise Unavailable(
                f"Index {self.spec.name!r} could not be loaded: {self.failure}. Its files are "
                "kept; restore them and restart, or delete the index and fill it again."
            )
        if self.index is None:
            raise Unavailable(
                f"Index {self.spec.name!r} is being loaded. Try again shortly.",
                headers={"Retry-After": "1"},
            )
        return self.index

    def view(self) -> View:
        """The index as it is now; it never changes under its reader."""
        return self.opened().view

    def describe(self) -> IndexInfo:
        """The index for its users."""
        stated = self.spec.model_dump()
        if self.index is None or self.failure:
            problems = [*self.problems, *([self.failure] if self.failure else [])]
            return IndexInfo.model_validate({**stated, "status": self.status, "problems": problems})
        view = self.index.view
        return IndexInfo(
            **stated,
            status="ready",
            count=view.live,
            deleted_rows=view.rows - view.live,
            delta_rows=view.rows - view.graph_rows,
            segments=1 if view.graph else 0,
            memory_bytes=view.memory_bytes,
            seq=view.seq,
            stored_seq=max(self._stored_seqs, default=0),
            created_at=self.definition.created_at,
            problems=self.problems,
        )

    def journal_failure(self) -> str | None:
        """Why nothing can be written any more; None if it can."""
        if self.index is None:
            return None
        failure = self._journal.failure
        return failure.message if failure else None

    # --- loading

    def start(self) -> None:
        """Begins loading; the index serves as soon as that is done."""
        self._tasks.append(asyncio.get_running_loop().create_task(self._load()))

    async def _load(self) -> None:
        try:
            await self._restore()
        except (Damaged, LakehouseError, OSError) as error:
            self.failure = getattr(error, "message", None) or (
                "its files cannot be read" if isinstance(error, OSError) else str(error)
            )
            self._figures.problems.inc()
            logger.error("Index %s is not served: %s", self.spec.name, self.failure)
            return
        for problem in self.problems:
            self._figures.problems.inc()
            logger.error("Index %s: %s", self.spec.name, problem)
        loop = asyncio.get_running_loop()
        self._tasks += [loop.create_task(self._write_jobs()), loop.create_task(self._tend())]

    async def _restore(self) -> None:
        found = await recover(
            self.definition, self.folder, self._journal, self._remote, self._pools, self._figures
        )
        self.definition, self.problems = found.definition, found.problems
        self._suspect, self._stored_seqs = found.suspect, found.stored_seqs
        self.index = found.index
        logger.info("Index %s loaded: %d items", self.spec.name, found.index.view.live)

    # --- writing

    async def write(self, work: Write | Filter) -> int:
        """Makes a write durable and visible; gives how many items it wrote or removed.

        A filter stands for the deletion of what it keeps. A caller who goes away does not
        stop a write that has begun.

        Raises:
            InsufficientStorage: it could not be made durable.
            RateLimited: too many wait to write to this index.
        """
        self.opened()
        if self._stopping:
            raise Unavailable("The daemon is stopping. Try again shortly.")
        if len(self._jobs) >= _MAX_WAITING:
            raise RateLimited(
                f"Too many writes wait for index {self.spec.name!r}. Try again shortly.",
                headers={"Retry-After": "1"},
            )
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._jobs.append(_Job(work, done))
        self._wake.set()
        return await asyncio.shield(done)

    async def _write_jobs(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while jobs := self._take_jobs():
                self._writing = True
                try:
                    counts = await self._write_group(jobs)
                except LakehouseError as error:
                    if len(jobs) > 1 and error.status < 500:
                        # One of them cannot be written; the others are not to suffer for it.
                        await self._write_each(jobs)
                    else:
                        _settle_jobs(jobs, error)
                except Exception as error:
                    # Durable records may not have been applied: only a reload is sure to.
                    self.failure = "a write was not applied; restart the daemon to reload it"
                    logger.exception("Index %s: %s", self.spec.name, self.failure)
                    _settle_jobs([*jobs, *self._jobs], error)
                    return
                else:
                    for job, count in zip(jobs, counts, strict=True):
                        _settle_job(job, count)
                finally:
                    self._writing = False

    async def _write_each(self, jobs: Sequence[_Job]) -> None:
        for job in jobs:
            try:
                _settle_job(job, (await self._write_group([job]))[0])
            except LakehouseError as error:
                _settle_jobs([job], error)

    def _take_jobs(self) -> list[_Job]:
        """The next jobs that one sync may cover; a deletion by filter stands alone."""
        taken: list[_Job] = []
        items = 0
        while self._jobs:
            job = self._jobs[0]
            alone = not isinstance(job.work, Upsert | Delete)
            if taken and (alone or items + job.size > _GROUP_ITEMS):
                break
            taken.append(self._jobs.pop(0))
            items += job.size
            if alone:
                break
        return taken

    async def _write_group(self, jobs: Sequence[_Job]) -> list[int]:
        index = self.opened()
        pool = self._pools.write
        works = [job.work for job in jobs]
        writes = [w for w in works if isinstance(w, Upsert | Delete)]
        if len(writes) < len(works):
            chosen = await pool.run(_choose_ids, index.view, works[0])  # pyright: ignore[reportArgumentType]
            if not chosen:
                return [0]
            writes = [Delete(chosen)]
        await pool.run(index.reserve, sum(len(w.ids) for w in writes if isinstance(w, Upsert)))
        payloads = [await pool.run(encode_write, write) for write in writes]
        seqs = await self._journal.append_many([part for parts in payloads for part in parts])
        numbered: list[tuple[int, Write]] = []
        last = self.definition.base_seq + seqs.start - 1
        for write, parts in zip(writes, payloads, strict=True):
            last += len(parts)
            numbered.append((last, write))
        counts = await pool.run(index.apply, numbered)
        self._wrote_at = time.monotonic()
        for write, count in zip(writes, counts, strict=True):
            figure = self._figures.written if isinstance(write, Upsert) else self._figures.deleted
            figure.inc(count)
        return counts

    # --- looking after it

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                if not await self._settle():
                    await self._store_if_due()
            except Stopped:
                return
            except (LakehouseError, OSError) as error:
                self._figures.failures.inc()
                reason = error.message if isinstance(error, LakehouseError) else "disk or memory"
                logger.warning("Index %s: put off: %s", self.spec.name, reason)
                await asyncio.sleep(_RETRY_S)

    async def _settle(self) -> bool:
        index, section = self.opened(), self._section
        idle = time.monotonic() - self._wrote_at > _IDLE_S
        merge, fraction = section.merge_rows, section.compact_dead_fraction
        if not index.is_unsettled(merge, fraction, idle=idle):
            return False
        did = await self._pools.build.run(
            self._pools.as_background,
            lambda: index.settle(
                merge,
                fraction,
                idle=idle,
                folder=self.folder,
                threads=section.build_threads,
                stopping=lambda: self._stopping,
            ),
        )
        if did:
            self._figures.builds.inc()
            # A table and a graph were let go, in blocks too small for the C library to return.
            # Not in the background: whoever holds the heap must not be slow.
            await self._pools.load.run(return_freed_memory)
        return did

    async def _store_if_due(self) -> None:
        view = self.opened().view
        if is_due(
            stored=None if self._suspect else self.definition.stored,
            current=label_of(view.seq, view.graph_rows),
            since_s=time.monotonic() - self._stored_at,
            interval_s=self._section.snapshot_interval_s,
            last_took_s=self._store_took,
        ):
            await self._store(view)

    async def _store(self, view: View) -> None:
        """Takes a snapshot, stores it, and drops what the journal no longer needs to hold."""
        began = time.monotonic()
        folder = self.folder / SNAPSHOTS
        manifest = await self._pools.build.run(
            write_snapshot, folder, self.definition.uid, self.spec, view, self._now()
        )
        await self._remote.store(folder / manifest.label, manifest)
        definition = self.definition.model_copy(update={"stored": manifest.label})
        await self._pools.build.run(definition.write, self.folder)
        self.definition = definition
        self._suspect = False
        self._figures.snapshots.inc()
        self._stored_seqs = [manifest.seq]
        kept = await self._remote.prune(self.spec.name, definition.uid)
        await self._pools.build.run(prune_snapshots, folder, kept)
        self._stored_at = time.monotonic()
        self._store_took = self._stored_at - began
        if len(kept) > 1:
            # The older of two snapshots can still be brought up to date from the journal.
            covered = int(kept[-1].partition("-")[0]) - definition.base_seq
            await self._pools.build.run(self._journal.drop_before, covered + 1)

    async def close(self, *, store: bool = True) -> None:
        """Ends writing, stores a last snapshot if there is news and time, and lets go."""
        self._stopping = True
        while (self._jobs or self._writing) and self.index is not None and not self.failure:
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        index = self.index
        if index is not None and not self.failure:
            view = index.view
            stored_seq = (self.definition.stored or "").partition("-")[0]
            if store and (not stored_seq or int(stored_seq) < view.seq):
                with contextlib.suppress(LakehouseError, OSError, TimeoutError):
                    async with asyncio.timeout(_LAST_SNAPSHOT_S):
                        await self._store(view)
        self.index = None
        if index is not None:
            await self._pools.load.run(index.close)
        await self._journal.aclose()


def _choose_ids(view: View, given: Filter) -> list[str]:
    import numpy as np

    rows = np.flatnonzero(view.alive & view.columns.mask(given, view.rows))
    return [view.table.ids[row] for row in rows.tolist()]


def _settle_job(job: _Job, count: int) -> None:
    if not job.done.done():
        job.done.set_result(count)


def _settle_jobs(jobs: Sequence[_Job], error: BaseException) -> None:
    shown = error if isinstance(error, LakehouseError) else None
    for job in jobs:
        if not job.done.done():
            job.done.set_exception(
                shown or InsufficientStorage("The write may not have been applied. Try again.")
            )
            # Read, so that a caller who went away leaves no warning.
            job.done.exception()
