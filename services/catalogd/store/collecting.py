"""Collection as a whole: what storage holds and no dataset names is removed after its grace.

The order makes it safe: what is live is read first and what lies there second, so that nothing
counts as an orphan that a commit in between named; files are marked, then what changed since is
read again, and only then are they removed (`marks` says how commits see to the rest).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import datetime
from uuid import uuid4

from services.catalogd.core.collecting import (
    DATA_PREFIX,
    METADATA_PREFIX,
    OBJECT,
    Place,
    choose_taken,
    find_owner,
    name_object,
)
from services.catalogd.store.collection import Collector, Live
from services.catalogd.store.compacting import Reads
from services.catalogd.store.figures import Figures
from services.catalogd.store.marks import COLLECTION
from services.catalogd.store.orphans import Orphans
from services.catalogd.store.rooms import now_ms
from shared.clients.storaged import StoragedClient
from shared.errors import Unavailable
from shared.wire.catalogd import Collected

# How long the right to collect lasts unless it is renewed, milliseconds.
LEASE_MS = 120_000
# Files of one round: of those looked at, those removed, those removed at a time.
MOST_SEEN = 50_000
MOST_TAKEN = 5_000
_AT_ONCE = 250
# Removals at once.
_REMOVING = 8


class Collection:
    """Removes orphans, one round at a time.

    Args:
        warehouse: where metadata lies.
        bucket: whether it lies in the bucket, beside the data.
        objects: the client of storaged.
        orphans: the catalogue's database.
        figures: where what was removed is counted.
        remembered_ms: how long what was removed is remembered; longer than any commit takes.
    """

    def __init__(
        self,
        warehouse: str,
        bucket: bool,
        objects: StoragedClient,
        orphans: Orphans,
        figures: Figures,
        remembered_ms: int,
    ) -> None:
        self._warehouse = warehouse
        self._bucket = bucket
        self._objects = objects
        self._orphans = orphans
        self._figures = figures
        self._remembered_ms = remembered_ms
        self._holder = str(uuid4())
        self._turn = asyncio.Lock()

    async def run(self, collector: Collector, reads: Reads, grace_s: float) -> Collected:
        """One round; `busy` when another catalogd is at it."""
        async with self._turn:
            if not await reads(self._renew):
                return Collected(status="busy")
            try:
                return await self._collect(collector, reads, int(grace_s * 1000))
            finally:
                await reads(lambda: self._orphans.drop_leases(self._holder))

    async def _collect(self, collector: Collector, reads: Reads, grace_ms: int) -> Collected:
        # Marks of a round that died: what it removed is gone, the rest is found again.
        await reads(self._orphans.end_taking)
        # The identities first: a dataset made after this is none of this round's business.
        reserved, dropped = await reads(self._orphans.list_uuids)
        uuids = reserved | dropped
        live = await reads(collector.scan)
        found: dict[str, Place] = {}
        complete = True
        async for place in self._list_orphans(collector, reads, uuids, live):
            if len(found) >= MOST_SEEN:
                complete = False
                break
            found[place.name] = place
        await self._drop_rejects(collector, reads, found)
        since = await reads(lambda: self._orphans.note_seen(found, now_ms(), forget=complete))
        ripe = choose_taken(
            ((place, since[place.name]) for place in found.values()),
            now_ms(),
            grace_ms,
            MOST_TAKEN,
        )
        totals = [0, 0, 0]
        for start in range(0, len(ripe), _AT_ONCE):
            removed = await self._remove(collector, reads, live, ripe[start : start + _AT_ONCE])
            totals = [one + other for one, other in zip(totals, removed, strict=True)]
        if not self._bucket:
            await reads(lambda: collector.remove_folders(self._warehouse, dropped))
        await reads(lambda: self._orphans.forget_taken(now_ms() - self._remembered_ms))
        left = await reads(self._orphans.count)
        self._figures.upkeep.labels("collect").inc()
        self._figures.orphans.set(left)
        return Collected(
            status="done",
            removed_objects=totals[0],
            removed_metadata=totals[1],
            removed_bytes=totals[2],
            orphans=left,
        )

    async def _remove(
        self,
        collector: Collector,
        reads: Reads,
        live: Live,
        places: list[Place],
    ) -> tuple[int, int, int]:
        """Removes orphans that still are none's; gives objects, metadata files, bytes."""
        if not await reads(self._renew):
            raise Unavailable("Another catalogd has taken collection over.")
        await reads(lambda: self._orphans.begin_taking([p.name for p in places], now_ms()))
        # Every commit sees the marks from here on; those before it are read now.
        fresh = await reads(lambda: collector.scan(live))
        rejected = {p.uuid for p in places if p.rejected}
        rejects = await reads(lambda: collector.list_rejects(rejected))
        spared = {
            place.name
            for place in places
            if place.uri in fresh.digests or place.name.removeprefix(OBJECT) in rejects
        }
        if spared:
            await reads(lambda: self._orphans.spare(sorted(spared)))
        gone = [place for place in places if place.name not in spared]
        objects = [place for place in gone if place.name.startswith(OBJECT)]
        files = [place for place in gone if not place.name.startswith(OBJECT)]
        waiting = iter(objects)

        async def remove() -> None:
            for place in waiting:
                await self._objects.delete_object(place.name.removeprefix(OBJECT))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(_REMOVING, len(objects))):
                    group.create_task(remove())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        await reads(lambda: collector.remove_files(files))
        await reads(self._orphans.end_taking)
        metadata = len(files) + sum(
            place.name.startswith(OBJECT + METADATA_PREFIX) for place in objects
        )
        size = sum(place.size for place in gone)
        self._figures.collected_files.labels("object").inc(len(gone) - metadata)
        self._figures.collected_files.labels("metadata").inc(metadata)
        self._figures.collected_bytes.inc(size)
        return len(gone) - metadata, metadata, size

    async def _list_orphans(
        self, collector: Collector, reads: Reads, uuids: set[str], live: Live
    ) -> AsyncIterator[Place]:
        for prefix in (DATA_PREFIX, *((METADATA_PREFIX,) if self._bucket else ())):
            cursor: str | None = None
            while True:
                page = await self._objects.list_objects(prefix, cursor=cursor)
                for info in page.objects:
                    owner = find_owner(info.key)
                    if owner is None or owner[0] not in uuids or info.uri in live.digests:
                        continue
                    changed = datetime.fromisoformat(info.last_modified)
                    yield Place(
                        name=name_object(info.key),
                        uri=info.uri,
                        changed_ms=int(changed.timestamp() * 1000),
                        size=info.size,
                        uuid=owner[0],
                        rejected=owner[1],
                    )
                cursor = page.next_cursor
                if cursor is None:
                    break
                await reads(self._renew)
        if not self._bucket:
            files = collector.list_metadata_files(self._warehouse, uuids)
            # Filtered in the thread: of the files of many datasets few are orphans.
            orphans = (place for place in files if place.uri not in live.digests)
            for place in await reads(lambda: list(itertools.islice(orphans, MOST_SEEN + 1))):
                yield place

    async def _drop_rejects(
        self, collector: Collector, reads: Reads, found: dict[str, Place]
    ) -> None:
        """Takes those out that hold rejected rows of an ingest that is known."""
        owners = {place.uuid for place in found.values() if place.rejected}
        if not owners:
            return
        for key in await reads(lambda: collector.list_rejects(owners)):
            found.pop(name_object(key), None)

    def _renew(self) -> bool:
        now = now_ms()
        return self._orphans.take_lease(COLLECTION, self._holder, now, now + LEASE_MS)
