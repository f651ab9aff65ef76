"""One ingest from body to answer: spooled, named, converted, stored, registered.

Every step can be repeated. Objects are named by their content and an ingest by its input,
so a process that dies anywhere leaves at most objects that no table names (catalogd
collects them), and the same request again brings the work to its end exactly once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.ingestd.core.job import Job, Limits, Outcome, Part
from services.ingestd.core.options import Options, make_ingest_id
from services.ingestd.store.figures import Figures
from services.ingestd.store.spool import Spool, Upload
from services.ingestd.store.workers import Workers
from shared.clients.catalogd import CatalogdClient
from shared.clients.storaged import StoragedClient
from shared.errors import Conflict, LakehouseError, NotFound, PreconditionFailed
from shared.sections.data import IngestdSection
from shared.telling import RunTeller, judge_failure, since
from shared.wire.catalogd import (
    Dataset,
    IngestFound,
    IngestRecord,
    RegisterRequest,
    RegisterResponse,
    Rejects,
)
from shared.wire.ingestd import IngestResult

MiB = 1024 * 1024
# How often a conversion is done anew because the table changed under it.
_ATTEMPTS = 3
# Parts sent to storaged at once.
_UPLOADS = 2


class Ingests:
    """Does the ingests of one daemon.

    Args:
        section: limits.
        spool: for bodies.
        workers: for conversions.
        objects: stores parts.
        catalog: knows datasets.
        figures: where ingests are counted.
        teller: told how each went.
    """

    def __init__(
        self,
        section: IngestdSection,
        spool: Spool,
        workers: Workers,
        objects: StoragedClient,
        catalog: CatalogdClient,
        figures: Figures,
        teller: RunTeller | None = None,
    ) -> None:
        self._teller = teller
        self._spool = spool
        self._workers = workers
        self._objects = objects
        self._catalog = catalog
        self._figures = figures
        self._limits = Limits(
            part_bytes=section.part_mb * MiB,
            row_group_rows=section.row_group_rows,
            record_bytes=section.max_record_mb * MiB,
            columns=section.max_columns,
            memory_bytes=section.worker_memory_mb * MiB,
            threads=section.worker_threads,
            unpacked_bytes=section.max_unpacked_mb * MiB,
            unpack_ratio=section.max_unpack_ratio,
        )
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    async def run(
        self, dataset: str, options: Options, pieces: AsyncIterator[bytes]
    ) -> IngestResult:
        """Ingests one file.

        Args:
            dataset: its name, checked.
            options: how.
            pieces: the file's bytes.

        Raises:
            LakehouseError: it cannot be done; nothing was registered.
        """
        outcome, status, begun = "gone", "cancelled", time.perf_counter()
        result: IngestResult | None = None
        try:
            result = await self._run(dataset, options, pieces)
            outcome, status = "duplicate" if result.duplicate else "done", "ok"
            return result
        except LakehouseError as error:
            status, outcome = judge_failure(error)
            raise
        finally:
            self._figures.ended(outcome)
            if self._teller is not None:
                self._teller.tell(
                    "ingest",
                    since(begun),
                    status=status,
                    error=None if result is not None else outcome,
                    task_signature=f"ingest:{dataset}"[:200],
                    attributes=_describe(result),
                )

    async def _run(
        self, dataset: str, options: Options, pieces: AsyncIterator[bytes]
    ) -> IngestResult:
        # First, so that a catalogue that is down is told before gigabytes are received.
        identity = await self._catalog.reserve_identity(dataset)
        self._workers.warm()
        async with self._spool.folder() as folder:
            upload = await self._spool.receive(pieces, folder)
            self._figures.received(upload.size)
            async with self._alone(f"{identity.uuid}/{upload.sha256}"):
                ingest_id, found = await self._name(dataset, identity.uuid, options, upload)
                if found is not None:
                    return repeat(dataset, found)
                return await self._ingest(
                    dataset, identity.uuid, ingest_id, options, upload, folder
                )

    async def _name(
        self, dataset: str, uuid: str, options: Options, upload: Upload
    ) -> tuple[str, IngestFound | None]:
        """The ingest's id, and what came of it if it was done before.

        An ingest whose rows a later replace took away is not in the table any more; sending
        its input again means to have them again, under the next id in line.
        """
        repetition = 0
        while True:
            ingest_id = make_ingest_id(upload.sha256, options, uuid, repetition)
            found = await self._catalog.find_ingest(dataset, ingest_id)
            if found is None or not found.superseded:
                return ingest_id, found
            repetition += 1

    async def _ingest(
        self,
        dataset: str,
        uuid: str,
        ingest_id: str,
        options: Options,
        upload: Upload,
        folder: Path,
    ) -> IngestResult:
        attempt = 0
        while True:
            table = await self._describe(dataset)
            work = folder / f"work-{attempt}"
            work.mkdir()
            job = Job(
                source=str(upload.path),
                folder=str(work),
                ingest_id=ingest_id,
                options=options,
                table=None if table is None else columns_of(table),
                limits=self._limits,
            )
            outcome = await self._workers.convert(job)
            keys, rejects = await self._store(uuid, outcome)
            record = IngestRecord(
                rows_in=outcome.rows_in,
                rows_out=outcome.rows_out,
                rejects=rejects,
                source_bytes=upload.size,
                source_sha256=upload.sha256,
                warnings=list(outcome.warnings),
            )
            request = RegisterRequest(
                name=dataset,
                objects=keys,
                mode=options.mode,
                ingest_id=ingest_id,
                evolve=options.contract == "evolve",
                uuid=uuid,
                record=record,
            )
            try:
                response = await self._catalog.register(request)
            except Conflict:
                attempt += 1
                now = await self._describe(dataset)
                if attempt == _ATTEMPTS or fingerprint_of(now) == fingerprint_of(table):
                    raise
                # Another write changed the table meanwhile; convert to what it is now.
                await self._spool.remove(work)
                continue
            self._figures.stored(outcome)
            return answer(ingest_id, response, record)

    async def _describe(self, dataset: str) -> Dataset | None:
        try:
            return await self._catalog.get_dataset(dataset)
        except NotFound:
            return None

    async def _store(self, uuid: str, outcome: Outcome) -> tuple[list[str], Rejects]:
        """Puts parts and rejects into storaged; gives the parts' keys."""
        keyed = [
            (f"datasets/{uuid}/{part.sha256}-{number}.parquet", part)
            for number, part in enumerate(outcome.parts)
        ]
        rejects = Rejects(count=outcome.rejects)
        wanted = list(keyed)
        if outcome.sidecar is not None:
            key = f"datasets/{uuid}/rejects/{outcome.sidecar.sha256}.parquet"
            rejects = Rejects(count=outcome.rejects, object=key)
            wanted.append((key, outcome.sidecar))
        limit = asyncio.Semaphore(_UPLOADS)

        async def put(key: str, part: Part) -> None:
            async with limit:
                # The key names the content: what is under it already is the same.
                with contextlib.suppress(PreconditionFailed):
                    await self._objects.put_object(key, Path(part.path), if_none_match=True)

        tasks = [asyncio.create_task(put(key, part)) for key, part in wanted]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return [key for key, _ in keyed], rejects

    @asynccontextmanager
    async def _alone(self, name: str) -> AsyncGenerator[None]:
        """Lets the same input into the same dataset once at a time: the second finds the first."""
        lock, users = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(name)
            if users > 1:
                self._locks[name] = (lock, users - 1)


def columns_of(table: Dataset) -> tuple[tuple[str, str], ...]:
    """Name and type of a table's columns."""
    return tuple((column.name, column.type) for column in table.columns)


def fingerprint_of(table: Dataset | None) -> str:
    """What tells whether a table's columns changed."""
    return "" if table is None else table.fingerprint


def answer(ingest_id: str, response: RegisterResponse, record: IngestRecord) -> IngestResult:
    """The answer to an ingest that was just registered.

    Where another process registered the same ingest first, its record is the true one.
    """
    duplicate = response.status == "unchanged"
    if duplicate and response.record is not None:
        record = response.record
    return IngestResult(
        dataset=response.dataset,
        snapshot_id=response.snapshot_id,
        ingest_id=ingest_id,
        rows_in=record.rows_in,
        rows_out=record.rows_out,
        rejects=record.rejects,
        schema=response.columns,
        warnings=record.warnings,
        duplicate=duplicate,
    )


def repeat(dataset: str, found: IngestFound) -> IngestResult:
    """The answer to an ingest that was done before."""
    record = found.record or IngestRecord(rows_in=0, rows_out=0)
    return IngestResult(
        dataset=dataset,
        snapshot_id=found.snapshot_id,
        ingest_id=found.ingest_id,
        rows_in=record.rows_in,
        rows_out=record.rows_out,
        rejects=record.rejects,
        schema=found.columns,
        warnings=record.warnings,
        duplicate=True,
    )


def _describe(result: IngestResult | None) -> dict[str, Any]:
    if result is None:
        return {}
    return {
        "rows_in": result.rows_in,
        "rows_out": result.rows_out,
        "rejects": result.rejects.count,
        "duplicate": result.duplicate,
    }
