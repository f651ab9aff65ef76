"""All indexes of this daemon: made, found again, searched, deleted.

Nothing heavy is imported before the first index exists, so that a daemon without any costs
its neighbours little.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from services.vectord.core.spec import check_same
from services.vectord.store.figures import Figures
from services.vectord.store.files import Damaged, sync_folder, write_file
from services.vectord.store.pools import Pools
from services.vectord.store.remote import Remote
from shared.clients.storaged import StoragedClient
from shared.config import Config
from shared.errors import LakehouseError, NotFound, Unavailable
from shared.lockfile import DirectoryLock
from shared.wire.vectord import IndexDeleted, IndexInfo, IndexList, IndexSpec

if TYPE_CHECKING:
    from services.vectord.store.keeper import Keeper
    from services.vectord.store.loading import Definition

logger = logging.getLogger("lakehouse.vectord")

# Written once storage was searched for indexes: from then on this directory knows them all.
_KNOWN = "known"
_RETRY_S = 1.0


class Registry:
    """The indexes by name, and the directory that they lie in.

    Args:
        config: section `vectord` and the data directory.
        client: storaged, where snapshots go.
        figures: where things are counted.
        now: the time as RFC 3339.
    """

    def __init__(
        self, config: Config, client: StoragedClient, figures: Figures, now: Callable[[], str]
    ) -> None:
        self.section = config.vectord
        self.pools = Pools(config.vectord)
        self.figures = figures
        self._client = client
        self._remote = Remote(client)
        self._now = now
        self._root = config.data_dir("vectord")
        self._indexes = self._root / "indexes"
        self._deleted = self._root / "deleted"
        self._lock = DirectoryLock(self._root)
        self._keepers: dict[str, Keeper] = {}
        self._changing = asyncio.Lock()
        self._searched = False
        self._damaged: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    # --- start and stop

    async def open(self) -> None:
        """Takes the directory and begins to load what is in it, and in storage.

        Raises:
            Unavailable: another process has the directory.
        """
        self._lock.acquire()
        self._indexes.mkdir(exist_ok=True)
        self._deleted.mkdir(exist_ok=True)
        gone = {path.name for path in self._deleted.iterdir()}
        for folder in sorted(self._indexes.iterdir()):
            begun = not ((folder / "index.json").exists() or (folder / "journal").exists())
            if folder.name in gone or begun:
                # A deletion, or a creation that nobody was told of, was cut short.
                shutil.rmtree(folder, ignore_errors=True)
                continue
            await self._open_folder(folder)
        self._searched = (self._root / _KNOWN).exists()
        if not self._searched:
            self._spawn(self._find_stored())
        for uid in gone:
            self._spawn(self._purge(uid))

    async def _open_folder(self, folder: Path) -> None:
        loading = await _load_heavy("loading")
        try:
            definition: Definition = loading.read_definition(folder)
        except Damaged as error:
            self._damaged.append(folder.name)
            self.figures.problems.inc()
            logger.error("An index folder cannot be used: %s: %s", folder.name, error)
            return
        await self._keep(definition, folder)

    async def _keep(self, definition: Definition, folder: Path) -> Keeper:
        keeper_module = await _load_heavy("keeper")
        keeper: Keeper = keeper_module.Keeper(
            definition, folder, self.section, self._remote, self.pools, self.figures, self._now
        )
        self._keepers[definition.spec.name] = keeper
        keeper.start()
        return keeper

    async def _find_stored(self) -> None:
        """Takes up the indexes that storage holds and this directory does not know."""
        while True:
            try:
                found = await self._remote.list_labels()
                async with self._changing:
                    gone = {path.name for path in self._deleted.iterdir()}
                    for (name, uid), labels in sorted(found.items()):
                        if uid not in gone and name not in self._keepers:
                            await self._adopt(name, uid, labels)
                    (self._root / _KNOWN).touch()
                    self._searched = True
            except LakehouseError as error:
                logger.warning("vectord waits for storaged: %s", error.message)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def _adopt(self, name: str, uid: str, labels: Sequence[str]) -> None:
        loading = await _load_heavy("loading")
        for label in labels:
            with contextlib.suppress(Damaged):
                manifest = await self._remote.fetch_manifest(name, uid, label)
                folder = self._indexes / uid
                folder.mkdir(exist_ok=True)
                definition: Definition = loading.Definition(
                    uid=uid, spec=manifest.spec, created_at=manifest.created_at, stored=labels[0]
                )
                definition.write(folder)
                await self._keep(definition, folder)
                return
        self.figures.problems.inc()
        self._damaged.append(name)
        logger.error("Index %s is in storage, but none of its manifests can be read", name)

    async def close(self) -> None:
        """Ends every index's work and lets go of the directory."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(keeper.close() for keeper in self._keepers.values()))
        self._keepers.clear()
        await self._client.aclose()
        await asyncio.to_thread(self.pools.close)
        self._lock.release()

    async def check(self) -> dict[str, str]:
        """What must be there for this daemon to do its work, for `/ready`."""
        checks = {"storaged": await self._client.check(), "journal": "ok", "indexes": "ok"}
        keepers = self._keepers.values()
        failures = [why for k in keepers if (why := k.journal_failure())]
        if failures:
            checks["journal"] = failures[0]
        if not self._searched:
            checks["indexes"] = "storage has not been searched for indexes yet"
        for status in ("loading", "failed"):
            names = [k.spec.name for k in keepers if k.status == status]
            if names:
                checks["indexes"] = f"{status}: {', '.join(names[:10])}"
        if self._damaged:
            checks["indexes"] = f"cannot be read: {', '.join(self._damaged[:10])}"
        for keeper in keepers:
            # Told for people; the index itself was mended and serves.
            for number, problem in enumerate(keeper.problems[:5], start=1):
                checks[f"index {keeper.spec.name} was mended ({number}): {problem}"] = "ok"
        for status in ("loading", "ready", "failed"):
            self.figures.indexes.labels(status).set(sum(k.status == status for k in keepers))
        return checks

    # --- indexes

    async def create(self, spec: IndexSpec) -> tuple[IndexInfo, bool]:
        """Makes an index; gives it and whether it is new.

        Raises:
            Conflict: one of this name is made of something else.
            Unavailable: it is not known yet whether storage holds one of this name.
        """
        async with self._changing:
            existing = self._keepers.get(spec.name)
            if existing is not None:
                check_same(existing.spec, spec)
                return existing.describe(), False
            self._check_searched()
            loading = await _load_heavy("loading")
            uid = secrets.token_hex(8)
            folder = self._indexes / uid
            folder.mkdir()
            definition = loading.Definition(uid=uid, spec=spec, created_at=self._now())
            await self.pools.load.run(_write_new, definition, folder)
            keeper = await self._keep(definition, folder)
        await _until_loaded(keeper)
        return keeper.describe(), True

    def list(self) -> IndexList:
        """All indexes by name."""
        names = sorted(self._keepers)
        return IndexList(indexes=[self._keepers[name].describe() for name in names])

    def find(self, name: str) -> Keeper:
        """One index.

        Raises:
            NotFound: there is none of this name.
            Unavailable: it is not known yet whether storage holds one.
        """
        keeper = self._keepers.get(name)
        if keeper is None:
            self._check_searched()
            raise NotFound(
                f"There is no index {name!r}. GET /vectors/indexes lists them; "
                "POST /vectors/indexes makes one.",
                details={"index": name},
            )
        return keeper

    async def delete(self, name: str) -> IndexDeleted:
        """Removes an index with its items; its snapshots in storage follow."""
        async with self._changing:
            if name not in self._keepers:
                self._check_searched()
                return IndexDeleted(name=name, deleted=False)
            keeper = self._keepers[name]
            uid = keeper.definition.uid
            # From here on it is gone, whatever happens.
            await self.pools.load.run(write_file, self._deleted / uid, name.encode("ascii"))
            del self._keepers[name]
            await keeper.close(store=False)
            await self.pools.load.run(shutil.rmtree, self._indexes / uid, True)
        self._spawn(self._purge(uid))
        return IndexDeleted(name=name, deleted=True)

    async def _purge(self, uid: str) -> None:
        """Removes a deleted index from storage, however long that takes."""
        marker = self._deleted / uid
        name = await asyncio.to_thread(marker.read_text, "ascii")
        while True:
            try:
                await self._remote.prune(name, uid, keep=0)
            except LakehouseError:
                await asyncio.sleep(_RETRY_S)
            else:
                # The marker is needed only while something of it could be found again.
                await asyncio.to_thread(marker.unlink, True)
                return

    def _check_searched(self) -> None:
        if not self._searched:
            raise Unavailable(
                "Storage has not been searched for indexes yet; storaged may still be starting. "
                "Try again shortly.",
                headers={"Retry-After": "1"},
            )

    def _spawn(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)  # pyright: ignore
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _write_new(definition: Definition, folder: Path) -> None:
    definition.write(folder)
    sync_folder(folder.parent)


async def _until_loaded(keeper: Keeper) -> None:
    while keeper.status == "loading":
        await asyncio.sleep(0.002)


async def _load_heavy(module: str):
    """A module of this room that brings numpy and the like with it, on first use."""
    return await asyncio.to_thread(importlib.import_module, f"services.vectord.store.{module}")
