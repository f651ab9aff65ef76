"""The catalogue as the routes see it: every call awaits, nothing blocks the loop.

Reads and commits have pools of their own, so that no read waits for a commit; commits to
one dataset come one at a time.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from services.catalogd.core.addresses import find_key
from services.catalogd.core.ingests import Order
from services.catalogd.store.database import sqlite_uri
from services.catalogd.store.figures import Figures
from services.catalogd.store.lanes import Lanes
from services.catalogd.store.orphans import Orphans
from services.catalogd.store.pointers import Pointer, Pointers, require_dataset
from services.catalogd.store.questions import Questions
from services.catalogd.store.upkeep import Upkeep
from shared import context
from shared.clients.storaged import StoragedClient
from shared.config import Config
from shared.errors import LakehouseError, NotFound
from shared.lockfile import DirectoryLock
from shared.pool import BlockingPool
from shared.wire import catalogd as wire
from shared.wire.storaged import ObjectInfo

if TYPE_CHECKING:
    from services.catalogd.store.collecting import Collection
    from services.catalogd.store.compacting import Compaction
    from services.catalogd.store.parquet import ParquetFile
    from services.catalogd.store.rooms import Rooms

# Footers read in one turn of a thread.
READ_AT_ONCE = 64

# A merge lasts minutes; what is left of one after this is a dead process's. Seconds.
_STALE_S = 86_400.0

T = TypeVar("T")


class Catalogue:
    """All datasets of one catalogd.

    Args:
        config: sections `catalogd` and `fleet` are read.
        objects: the client of storaged.
        figures: where commits are counted.
    """

    def __init__(self, config: Config, objects: StoragedClient, figures: Figures) -> None:
        section = config.catalogd
        directory = config.data_dir("catalogd")
        self._keep = section.keep_snapshots
        self._patience_s = section.commit_patience_s
        self._objects = objects
        self._questions = Questions(objects)
        self._figures = figures
        # In a bucket the metadata lies beside the data, for engines anywhere.
        self._address = config.storage.address
        self._folder = f"file://{config.data_dir('storaged') / 'objects'}/"
        own = f"{self._address}_catalog" if self._address else f"file://{directory / 'warehouse'}"
        self._warehouse = section.warehouse or own
        self._loop: asyncio.AbstractEventLoop | None = None
        uri = section.database_uri.get_secret_value()
        self._pointers = Pointers(uri or sqlite_uri(directory / "catalogue.db"))
        # A server database is shared by several catalogd; a file in our folder is ours alone.
        self._lock = None if uri else DirectoryLock(directory)
        queue = section.max_concurrency + section.max_queue
        self._reads = BlockingPool("catalogd-read", section.read_threads, queue)
        self._commits = BlockingPool("catalogd-commit", section.commit_threads, queue)
        self._lanes = Lanes()
        self._loading = threading.Lock()
        self._rooms: Rooms | None = None
        self._orphans = Orphans(self._pointers)
        self._compaction: Compaction | None = None
        self._collection: Collection | None = None
        self._section = section
        self._work = directory / "merging"
        self._upkeep = Upkeep(
            section,
            self._orphans,
            lambda: self._reads.run(self._pointers.list_pointers),
            lambda name: self.compact(name, by_itself=True),
            lambda: self.collect(None),
            figures,
        )

    async def open(self) -> None:
        """Takes the data directory and makes the database ready.

        Raises:
            Unavailable: another process has the data directory.
        """
        if self._lock is not None:
            self._lock.acquire()
        self._loop = asyncio.get_running_loop()
        await self._reads.run(self._pointers.create_tables)
        await self._reads.run(self._resume)
        await self._count()
        self._upkeep.start()

    async def close(self) -> None:
        """Waits for commits under way, then lets go of everything."""
        await self._upkeep.stop()
        await asyncio.to_thread(self._commits.close)
        await asyncio.to_thread(self._reads.close)
        self._pointers.close()
        if self._lock is not None:
            self._lock.release()

    async def check(self) -> dict[str, str]:
        """Whether the database can be written and storaged be reached."""
        try:
            await self._reads.run(self._check_database)
            database = "ok"
        except LakehouseError as error:
            database = error.message
        return {"database": database, "storaged": await self._objects.check()}

    async def register(self, request: wire.RegisterRequest) -> wire.RegisterResponse:
        """Makes objects part of a dataset; see `Registrar.register`.

        Raises:
            Unprocessable: an object is missing, named twice, or cannot be part of a dataset.
            Conflict: the columns do not fit, or the dataset's identity is another by now.
        """
        # Before any object is asked for: what is removed from then on, the commit will notice.
        since, same = await self._reads.run(self._begin, request.name, request.ingest_id)
        if same is not None:
            self._figures.observe(same.status, 0.0)
            return same
        infos = await self._questions.describe(request.objects)
        removes = await self._questions.locate(request.name, request.removes)
        order = Order(
            name=request.name,
            mode=request.mode,
            evolve=request.evolve,
            ingest_id=request.ingest_id,
            uuid=request.uuid,
            record=request.record,
            objects=tuple((info.key, info.etag) for info in infos),
            removes=tuple(sorted(removes)),
            base=request.base_snapshot,
            since=since,
        )
        files: list[ParquetFile] = []
        for start in range(0, len(infos), READ_AT_ONCE):
            # In parts, so that a long list neither keeps a thread nor outlives its caller.
            part = infos[start : start + READ_AT_ONCE]
            files += await self._reads.run(self._read_objects, part)
        answer = await self._commit(
            request.name, lambda rooms, patience: rooms.registrar.register(order, files, patience)
        )
        if answer.status == "created":
            await self._count()
        return answer

    async def roll_back(self, name: str, reference: str) -> wire.RolledBack:
        """Makes a dataset what it was; see `Versions.roll_back`."""
        return await self._commit(
            name, lambda rooms, patience: rooms.versions.roll_back(name, reference, patience)
        )

    async def set_tag(self, name: str, tag: str, reference: str | None) -> wire.Tagged:
        """Names a snapshot; see `Versions.set_tag`."""
        return await self._commit(
            name, lambda rooms, patience: rooms.versions.set_tag(name, tag, reference, patience)
        )

    async def remove_tag(self, name: str, tag: str) -> wire.TagDeleted:
        """Takes a name of a snapshot away; see `Versions.remove_tag`."""
        return await self._commit(
            name, lambda rooms, patience: rooms.versions.remove_tag(name, tag, patience)
        )

    async def expire(self, name: str, keep: int | None) -> wire.Expired:
        """Lets old snapshots go; see `Versions.expire`."""
        return await self._commit(
            name, lambda rooms, patience: rooms.versions.expire(name, keep, patience)
        )

    async def list_datasets(self) -> wire.DatasetList:
        """All datasets by name."""
        return await self._reads.run(self._list)

    async def get_dataset(self, name: str) -> wire.Dataset:
        """One dataset as its current snapshot shows it."""
        return await self._reads.run(self._get, name)

    async def list_names(self) -> list[str]:
        """Names of all datasets, sorted."""
        return sorted(one.name for one in await self._reads.run(self._pointers.list_pointers))

    async def load_result(self, name: str) -> bytes:
        """A dataset's metadata as the Iceberg REST protocol's LoadTableResult."""
        return await self._reads.run(lambda: self._load().reader.load_result(name))

    async def list_files(self, name: str, at: str | None) -> wire.Files:
        """The files of one snapshot; see `Reader.list_files`."""
        return await self._reads.run(lambda: self._load().reader.list_files(name, at))

    async def list_snapshots(self, name: str) -> wire.Snapshots:
        """Every retained snapshot, oldest first."""
        return await self._reads.run(lambda: self._load().reader.list_snapshots(name))

    async def delete_dataset(self, name: str) -> wire.DatasetDeleted:
        """Removes a dataset, its ingests and its identity; its objects stay for collection."""
        deleted = await self._commits.run(self._delete, name)
        await self._count()
        return deleted

    async def reserve_identity(self, name: str) -> wire.Identity:
        """The uuid of a name, reserved now when it is new."""
        return await self._reads.run(self._reserve, name)

    async def find_ingest(self, name: str, ingest_id: str) -> wire.IngestFound:
        """An ingest that the dataset holds.

        Raises:
            NotFound: it holds none of this id.
        """
        return await self._reads.run(self._find_ingest, name, ingest_id)

    async def compact(
        self, name: str, target_mb: int | None = None, *, by_itself: bool = False
    ) -> wire.Compacted:
        """Merges small files of a dataset, as much as one round may; see `Compaction`."""
        rooms = await self._reads.run(self._load)
        if self._compaction is None:
            from services.catalogd.store.compacting import Compaction

            self._compaction = Compaction(
                self._section, self._work, self._address, self._objects, self._figures
            )
        since = await self._reads.run(self._pointers.read_epoch)
        return await self._compaction.run(
            name,
            rooms,
            self._reads.run,
            self._commit,
            since,
            target_mb=target_mb,
            by_itself=by_itself,
        )

    async def collect(self, grace_s: float | None) -> wire.Collected:
        """Removes files that no retained snapshot names, as many as one round may."""
        rooms = await self._reads.run(self._load)
        if self._collection is None:
            from services.catalogd.store.collecting import Collection

            self._collection = Collection(
                self._warehouse,
                bool(self._address),
                self._objects,
                self._orphans,
                self._figures,
                # Longer than any register can take.
                int((self._section.request_timeout_s + self._patience_s + 600) * 1000),
            )
        grace = self._section.collect_grace_s if grace_s is None else grace_s
        return await self._collection.run(rooms.collector, self._reads.run, grace)

    async def _commit(self, name: str, work: Callable[[Rooms, float], T]) -> T:
        """Has a commit done in its dataset's turn, within the caller's patience."""
        left = context.remaining_s()
        patience = self._patience_s if left is None else min(left, self._patience_s)
        return await self._lanes.run(
            name, lambda: self._commits.run(lambda: work(self._load(), patience))
        )

    def _load(self) -> Rooms:
        with self._loading:
            if self._rooms is None:
                # Half a second and 20 MiB, so not before a dataset is touched.
                from services.catalogd.store.rooms import build_rooms

                assert self._loop is not None, "open() has not run"
                storage = (self._address, self._objects, self._loop) if self._address else None
                self._rooms = build_rooms(
                    self._pointers,
                    self._warehouse,
                    self._keep,
                    self._figures,
                    storage,
                    lambda uri: find_key(uri, self._address, self._folder),
                )
            return self._rooms

    async def _count(self) -> None:
        self._figures.datasets.set(await self._reads.run(self._pointers.count_datasets))

    def _resume(self) -> None:
        """Ends what the one before us died over: at once where nobody else can be at it."""
        if self._lock is not None:
            self._orphans.drop_leases()
            self._orphans.end_taking()
            shutil.rmtree(self._work, ignore_errors=True)
        elif self._work.is_dir():
            for folder in self._work.iterdir():
                with suppress(FileNotFoundError):  # another's, done just now
                    if time.time() - folder.stat().st_mtime > _STALE_S:
                        shutil.rmtree(folder, ignore_errors=True)

    def _check_database(self) -> None:
        self._pointers.check_writable()
        if self._rooms is not None:
            self._rooms.commits.check_disk()

    def _begin(self, name: str, ingest_id: str | None) -> tuple[int, wire.RegisterResponse | None]:
        since = self._pointers.read_epoch()
        return since, None if ingest_id is None else self._find_same(name, ingest_id)

    def _find_same(self, name: str, ingest_id: str) -> wire.RegisterResponse | None:
        pointer = self._pointers.read_pointer(name)
        if pointer is None or pointer.location is None:
            return None
        uuid = pointer.uuid or self._load().reader.describe(name).uuid
        found = self._pointers.find_ingest(uuid, ingest_id)
        return None if found is None else self._load().reader.show_unchanged(name, found)

    def _read_objects(self, infos: list[ObjectInfo]) -> list[ParquetFile]:
        return self._load().registrar.read_objects(infos)

    def _list(self) -> wire.DatasetList:
        pointers = self._pointers.list_pointers()
        self._figures.datasets.set(len(pointers))
        shown: list[wire.Dataset] = []
        for pointer in pointers:
            # One that another process deletes meanwhile is left out.
            with suppress(NotFound):
                shown.append(self._describe(pointer))
        return wire.DatasetList(datasets=shown)

    def _get(self, name: str) -> wire.Dataset:
        return self._describe(require_dataset(name, self._pointers.read_pointer(name)))

    def _describe(self, pointer: Pointer) -> wire.Dataset:
        if pointer.description is None:
            return self._load().reader.describe(pointer.name)
        return wire.Dataset.model_validate_json(pointer.description)

    def _delete(self, name: str) -> wire.DatasetDeleted:
        dropped = require_dataset(name, self._pointers.drop(name, time.time_ns() // 1_000_000))
        uuid = dropped.uuid or self._load().reader.read_uuid(dropped)
        return wire.DatasetDeleted(dataset=name, uuid=uuid)

    def _reserve(self, name: str) -> wire.Identity:
        pointer = self._pointers.read_pointer(name)
        if pointer is None:
            return wire.Identity(dataset=name, uuid=self._pointers.reserve_uuid(name, str(uuid4())))
        uuid = pointer.uuid or self._load().reader.describe(name).uuid
        return wire.Identity(dataset=name, uuid=uuid)

    def _find_ingest(self, name: str, ingest_id: str) -> wire.IngestFound:
        uuid = self._get(name).uuid
        found = self._pointers.find_ingest(uuid, ingest_id)
        if found is None:
            raise NotFound(
                f"Dataset {name} holds no ingest of this id. Send it to make it so.",
                details={"dataset": name, "ingest_id": ingest_id},
            )
        return self._load().reader.show_ingest(name, found)
