"""Upserts: a table's rows with certain keys make way for others, in one snapshot.

Copy on write. Footers tell which files may hold one of the keys, the key columns of those
tell which do, and only these are read whole and written anew without the replaced rows. The
register names the snapshot that all of this was seen in. Where another write was faster, what
is known of the files that are still there stays true: files are never changed, so only new
ones have to be looked at.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from services.ingestd.core.job import Limits, Outcome, Part
from services.ingestd.core.merging import Merge, Step, find_names, group_by_size
from services.ingestd.core.options import Options
from services.ingestd.store.going import Going
from services.ingestd.store.parts import PartStore, StoredParts
from services.ingestd.store.tablefiles import TableFile, TableFiles
from services.ingestd.store.turns import Turns
from services.ingestd.store.workers import Workers
from shared.clients.catalogd import CatalogdClient
from shared.clients.storaged import StoragedClient
from shared.errors import Conflict, NotFound, Unavailable, Unprocessable
from shared.pool import BlockingPool
from shared.wire.catalogd import Files, IngestRecord, RegisterRequest, RegisterResponse

# How often an upsert is planned anew because others write; from the second time on writes of
# this daemon wait for it.
_ATTEMPTS = 8
# What one register may name.
_MOST_FILES = 9_000


class ColumnsChanged(Exception):
    """The table has other columns than the rows were converted to."""


@dataclass(slots=True)
class Upsert:
    """One upsert on its way.

    Attributes:
        dataset, uuid, options, ingest_id: what is to be done.
        outcome: its converted rows; `parts`: those as they are stored.
        fingerprint: of the table that they were converted for, "" for none.
        record: what is to be kept of it.
        folder: for files of the table.
    """

    dataset: str
    uuid: str
    options: Options
    ingest_id: str
    outcome: Outcome
    parts: StoredParts
    fingerprint: str
    record: IngestRecord
    folder: Path
    files: dict[str, TableFile] = field(default_factory=dict[str, TableFile])
    # What groups of files became.
    rewritten: dict[tuple[str, ...], list[str]] = field(
        default_factory=dict[tuple[str, ...], list[str]]
    )
    steps: int = 0


class Upserts:
    """Does the upserts of one daemon.

    Args:
        workers: read and write Parquet.
        parts: stores what they wrote.
        objects, pool: for fetching files of tables.
        catalog: knows them, and commits.
        gates: held by a write to a dataset that must not be overtaken any more.
        limits: of workers.
    """

    def __init__(
        self,
        workers: Workers,
        parts: PartStore,
        objects: StoragedClient,
        pool: BlockingPool,
        catalog: CatalogdClient,
        gates: Turns,
        limits: Limits,
    ) -> None:
        self._workers = workers
        self._parts = parts
        self._objects = objects
        self._pool = pool
        self._catalog = catalog
        self._gates = gates
        self._limits = limits
        # Two upserts at once would only plan against each other.
        self._turns = Turns()

    async def run(self, upsert: Upsert, going: Going) -> tuple[RegisterResponse, IngestRecord]:
        """Merges converted rows into their dataset.

        Raises:
            ColumnsChanged: they have to be converted to what the table is now.
            Conflict: the dataset was deleted meanwhile.
            Unavailable: others write all the time; nothing was changed.
        """
        track = going.track
        fetching = TableFiles(
            self._objects,
            self._pool,
            upsert.folder,
            lambda size: track.update(bytes_read=track.now.bytes_read + size),
        )
        async with self._turns.take(upsert.dataset):
            for attempt in range(_ATTEMPTS):
                async with self._gate(upsert.dataset, attempt):
                    done = await self._try(upsert, fetching, going)
                if done is not None:
                    return done
        raise Unavailable(
            f"Others write to dataset {upsert.dataset} without a pause, so the upsert could not "
            "be put in between; nothing was changed. Send it again when there is less to do.",
            headers={"Retry-After": "10"},
        )

    def _gate(self, dataset: str, attempt: int) -> AbstractAsyncContextManager[None]:
        return self._gates.take(dataset) if attempt else nullcontext()

    async def _try(
        self, upsert: Upsert, fetching: TableFiles, going: Going
    ) -> tuple[RegisterResponse, IngestRecord] | None:
        """One attempt on the table as it is now; None when it has changed meanwhile."""
        files = await going.insist(lambda: self._list(upsert))
        base = files.snapshot_id if files is not None else ""
        present = {file.uri: file for file in (files.files if files is not None else ())}
        going.track.enter("matching", bytes_read=0, bytes_total=None)
        fresh = [fetching.name(file) for uri, file in present.items() if uri not in upsert.files]
        if fresh:
            await self._match(upsert, fresh, fetching, going)
            upsert.files.update({file.uri: file for file in fresh})
        hit = {uri: upsert.files[uri] for uri in present if upsert.files[uri].matches}
        if len(hit) > _MOST_FILES:
            raise Unprocessable(
                f"The upsert's keys lie in {len(hit)} files, and one commit can rewrite "
                f"{_MOST_FILES}. Compact the dataset first, or send the rows in parts.",
                details={"files": len(hit)},
            )
        objects = await self._rewrite(upsert, hit, fetching, going)
        lists = tuple(file.matches for file in hit.values() if file.matches)
        updated = (await self._step("count", upsert, lists, going))["rows"] if lists else 0
        rows = upsert.outcome.rows_out
        record = upsert.record.model_copy(update={"inserted": rows - updated, "updated": updated})
        request = RegisterRequest(
            name=upsert.dataset,
            objects=[*upsert.parts.keys, *objects],
            mode="rewrite",
            removes=list(hit),
            base_snapshot=base,
            ingest_id=upsert.ingest_id,
            evolve=upsert.options.contract == "evolve",
            uuid=upsert.uuid,
            record=record,
        )
        await going.register_as(upsert.ingest_id)
        try:
            return await going.insist(partial(self._catalog.register, request)), record
        except Conflict as error:
            if not error.details.keys() & {"base_snapshot", "missing_count"}:
                raise
            going.unseal()
            return None

    async def _list(self, upsert: Upsert) -> Files | None:
        """The table's files, None when there is no table.

        Raises:
            ColumnsChanged: its columns are not what the rows were converted for.
        """
        try:
            table = await self._catalog.get_dataset(upsert.dataset)
            if table.fingerprint != upsert.fingerprint:
                raise ColumnsChanged
            return await self._catalog.list_files(upsert.dataset)
        except NotFound:
            if upsert.fingerprint:
                raise ColumnsChanged from None
            return None

    async def _match(
        self, upsert: Upsert, files: list[TableFile], fetching: TableFiles, going: Going
    ) -> None:
        """Finds out which of these files hold keys of the upsert."""
        await going.insist(lambda: fetching.fetch_footers(files))
        paths = tuple(str(file.path) for file in files)
        places: list[Any] = (await self._step("survey", upsert, paths, going))["files"]
        pairs = zip(files, places, strict=True)
        possible = [(file, ranges) for file, ranges in pairs if ranges is not None]
        if not possible:
            return
        some = [file for file, _ in possible]
        await going.insist(lambda: fetching.fetch_ranges(some, [ranges for _, ranges in possible]))
        paths = tuple(str(file.path) for file in some)
        matches = (await self._step("match", upsert, paths, going))["files"]
        for file, found in zip(some, matches, strict=True):
            file.matches = found
        await fetching.release([file for file in files if not file.matches])

    async def _rewrite(
        self, upsert: Upsert, hit: dict[str, TableFile], fetching: TableFiles, going: Going
    ) -> list[str]:
        """Keys of what the files become that hold rows to be replaced."""
        kept = {uris: keys for uris, keys in upsert.rewritten.items() if hit.keys() >= set(uris)}
        done = {uri for uris in kept for uri in uris}
        sizes = {uri: file.size for uri, file in hit.items() if uri not in done}
        upsert.rewritten = kept
        going.track.enter("rewriting", bytes_read=0, bytes_total=sum(sizes.values()))
        for uris in group_by_size(sizes, self._limits.part_bytes):
            some = [hit[uri] for uri in uris]
            await going.insist(partial(fetching.fetch_whole, some))
            paths = tuple(str(file.path) for file in some)
            made = await self._step("rewrite", upsert, paths, going)
            await fetching.release(some)
            parts = [Part(**one) for one in made["parts"]]
            upsert.rewritten[uris] = await self._parts.put(upsert.uuid, parts, going)
            for part in parts:
                await self._pool.run(Path(part.path).unlink, missing_ok=True)
        return [key for keys in upsert.rewritten.values() for key in keys]

    async def _step(
        self, step: Step, upsert: Upsert, files: Sequence[str], going: Going
    ) -> dict[str, Any]:
        upsert.steps += 1
        folder = upsert.folder / f"step-{upsert.steps}"
        folder.mkdir()
        order = Merge(
            step=step,
            folder=str(folder),
            ingest_id=upsert.ingest_id,
            key=find_names(upsert.options.key, upsert.outcome.columns),
            columns=upsert.outcome.columns,
            parts=tuple(part.path for part in upsert.outcome.parts),
            files=tuple(files),
            limits=self._limits,
        )

        async def work() -> dict[str, Any]:
            # A second try finds the folder as the first did.
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            return await self._workers.do(order.to_json(), going.track.hear, queued=True)

        return await going.insist(work)
