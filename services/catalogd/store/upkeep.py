"""What catalogd does by itself: merging small files, and collecting what nobody names.

Within limits: one dataset at a time, a bounded part of it a round, one catalogd of several at a
time, and only where something has changed. A dataset at rest costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

from services.catalogd.store.figures import Figures
from services.catalogd.store.marks import UPKEEP
from services.catalogd.store.orphans import Orphans
from services.catalogd.store.pointers import Pointer
from shared.errors import LakehouseError, NotFound
from shared.sections.data import CatalogdSection
from shared.wire.catalogd import Collected, Compacted

logger = logging.getLogger("lakehouse.catalogd.upkeep")

MiB = 1024 * 1024
# The first collection after a start comes no later than this, and a failed one is tried again
# then. Seconds.
SOON_S = 600.0
# A dataset whose files are on average smaller than this part of the target is looked at.
_SMALL = 0.5


class Upkeep:
    """The loop of one catalogd.

    Args:
        section: intervals and limits.
        orphans: the catalogue's database.
        list_pointers: all datasets, in a thread.
        compact: one round of a dataset.
        collect: one round.
        figures: where failures are counted.
    """

    def __init__(
        self,
        section: CatalogdSection,
        orphans: Orphans,
        list_pointers: Callable[[], Awaitable[list[Pointer]]],
        compact: Callable[[str], Awaitable[Compacted]],
        collect: Callable[[], Awaitable[Collected]],
        figures: Figures,
    ) -> None:
        self._section = section
        self._orphans = orphans
        self._list_pointers = list_pointers
        self._compact = compact
        self._collect = collect
        self._figures = figures
        self._holder = str(uuid4())
        self._task: asyncio.Task[None] | None = None
        # Datasets in which there was nothing to merge, by the metadata they had then.
        self._at_rest: dict[str, str] = {}
        self._next_collection = 0.0

    def start(self) -> None:
        """Begins; does nothing where it is switched off."""
        if self._section.upkeep:
            soon = min(SOON_S, self._section.collect_interval_s)
            self._next_collection = time.monotonic() + soon
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Ends it, in the middle of a merge too."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._section.upkeep_interval_s)
            try:
                await self.run_once()
            except LakehouseError as error:
                # A peer or the disk is away: the next round comes.
                self._figures.upkeep.labels("failed").inc()
                logger.warning("Upkeep was put off: %s", error.message)
            except Exception:
                self._figures.upkeep.labels("failed").inc()
                logger.exception("Upkeep failed; the next round comes")

    async def run_once(self) -> None:
        """One round: at most one dataset's files, and a collection when it is due."""
        pointers = await self._list_pointers()
        chosen = self._choose(pointers)
        if chosen is not None and await asyncio.to_thread(self._take_turn):
            try:
                await self._compact_one(chosen)
            finally:
                await asyncio.to_thread(self._orphans.drop_leases, self._holder)
        if time.monotonic() >= self._next_collection:
            self._next_collection = time.monotonic() + min(SOON_S, self._section.collect_interval_s)
            if pointers or await asyncio.to_thread(self._orphans.has_dropped):
                await self._collect()
            self._next_collection = time.monotonic() + self._section.collect_interval_s

    async def _compact_one(self, pointer: Pointer) -> None:
        try:
            done = await self._compact(pointer.name)
        except NotFound:
            return  # deleted meanwhile
        except LakehouseError:
            self._at_rest[pointer.name] = pointer.location or ""
            raise
        if done.status == "unchanged":
            self._at_rest[pointer.name] = pointer.location or ""

    def _choose(self, pointers: list[Pointer]) -> Pointer | None:
        """The dataset with the most files among those whose files are small."""
        section = self._section
        names = {pointer.name for pointer in pointers}
        self._at_rest = {name: at for name, at in self._at_rest.items() if name in names}
        best: tuple[int, Pointer] | None = None
        for pointer in pointers:
            if pointer.description is None or self._at_rest.get(pointer.name) == pointer.location:
                continue
            shown = json.loads(pointer.description)
            files, size = shown["files"], shown["bytes"]
            small = size < files * section.compact_target_mb * MiB * _SMALL
            if files >= section.compact_min_files and small:
                best = max(best or (0, pointer), (files, pointer), key=lambda one: one[0])
        return best[1] if best else None

    def _take_turn(self) -> bool:
        now = time.time_ns() // 1_000_000
        return self._orphans.take_lease(UPKEEP, self._holder, now, now + 900_000)
