"""One ingest from body to answer: spooled, named, converted, stored, registered.

Every step can be repeated. Objects are named by their content and an ingest by its input,
so a process that dies anywhere leaves at most objects that no table names (catalogd
collects them), and the same request again brings the work to its end exactly once.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from services.ingestd.core.job import Job, Limits, Outcome, Part
from services.ingestd.core.options import Options, make_ingest_id
from services.ingestd.store.account import Account
from services.ingestd.store.figures import Figures
from services.ingestd.store.going import Going
from services.ingestd.store.spool import Spool, Upload
from services.ingestd.store.turns import Turns
from services.ingestd.store.workers import Workers
from shared.clients.catalogd import CatalogdClient
from shared.clients.storaged import StoragedClient
from shared.errors import Conflict, NotFound, PreconditionFailed
from shared.sections.data import IngestdSection
from shared.telling import RunTeller
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


@dataclass(frozen=True, slots=True)
class Work:
    """What an ingest is asked to do: the dataset, its uuid when it began, and how."""

    dataset: str
    uuid: str
    options: Options


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
        # The same input into the same dataset once at a time: the second finds the first.
        self._inputs = Turns()

    async def begin(self, dataset: str) -> str:
        """The dataset's uuid; a worker is started meanwhile.

        First of all, so that a catalogue that is down is told before gigabytes are received.
        """
        identity = await self._catalog.reserve_identity(dataset)
        self._workers.warm()
        return identity.uuid

    def account(self, dataset: str) -> Account:
        """Counts and tells of one ingest, from here to its end."""
        return Account(dataset, self._figures, self._teller)

    async def run(
        self, work: Work, upload: Upload, folder: Path, going: Going | None = None
    ) -> IngestResult:
        """Ingests one file that was received.

        Args:
            work: into what, and how.
            upload: the file.
            folder: for what is made of it; the caller removes it.
            going: what is told of it; a request's when there is none.

        Raises:
            LakehouseError: it cannot be done; nothing was registered.
        """
        going = going or Going()
        async with self._inputs.take(f"{work.uuid}/{upload.sha256}"):
            found = await self._find_own(work, going)
            if found is not None:
                return repeat(work.dataset, found, duplicate=False)
            ingest_id, found = await going.insist(lambda: self._name(work, upload))
            if found is not None:
                return repeat(work.dataset, found)
            return await self._ingest(work, ingest_id, upload, folder, going)

    async def _find_own(self, work: Work, going: Going) -> IngestFound | None:
        """What this very job registered before its process died."""
        named = going.named
        if named is None:
            return None
        return await going.insist(lambda: self._catalog.find_ingest(work.dataset, named))

    async def _name(self, work: Work, upload: Upload) -> tuple[str, IngestFound | None]:
        """The ingest's id, and what came of it if it was done before.

        An ingest whose rows a later replace took away is not in the table any more; sending
        its input again means to have them again, under the next id in line.
        """
        repetition = 0
        while True:
            ingest_id = make_ingest_id(upload.sha256, work.options, work.uuid, repetition)
            found = await self._catalog.find_ingest(work.dataset, ingest_id)
            if found is None or not found.superseded:
                return ingest_id, found
            repetition += 1

    async def _ingest(
        self, work: Work, ingest_id: str, upload: Upload, folder: Path, going: Going
    ) -> IngestResult:
        attempt = 0
        options = work.options
        while True:
            table = await going.insist(lambda: self._describe(work.dataset))
            made = folder / f"work-{attempt}"
            made.mkdir()
            job = Job(
                source=str(upload.path),
                folder=str(made),
                ingest_id=ingest_id,
                options=options,
                table=None if table is None else columns_of(table),
                limits=self._limits,
            )
            outcome = await self._convert(job, going)
            keys, rejects = await self._store(work.uuid, outcome, going)
            record = IngestRecord(
                rows_in=outcome.rows_in,
                rows_out=outcome.rows_out,
                rejects=rejects,
                source_bytes=upload.size,
                source_sha256=upload.sha256,
                warnings=list(outcome.warnings),
            )
            request = RegisterRequest(
                name=work.dataset,
                objects=keys,
                mode=options.mode,
                ingest_id=ingest_id,
                evolve=options.contract == "evolve",
                uuid=work.uuid,
                record=record,
            )
            await going.register_as(ingest_id)
            try:
                response = await going.insist(partial(self._catalog.register, request))
            except Conflict:
                attempt += 1
                going.unseal()
                now = await going.insist(lambda: self._describe(work.dataset))
                if attempt == _ATTEMPTS or fingerprint_of(now) == fingerprint_of(table):
                    raise
                # Another write changed the table meanwhile; convert to what it is now.
                await self._spool.remove(made)
                continue
            self._figures.stored(outcome)
            return answer(ingest_id, response, record)

    async def _convert(self, job: Job, going: Going) -> Outcome:
        return await going.insist(
            lambda: self._workers.convert(job, going.track.hear, queued=going.queued)
        )

    async def _describe(self, dataset: str) -> Dataset | None:
        try:
            return await self._catalog.get_dataset(dataset)
        except NotFound:
            return None

    async def _store(self, uuid: str, outcome: Outcome, going: Going) -> tuple[list[str], Rejects]:
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
        track = going.track
        track.enter(
            "storing",
            rows=outcome.rows_out,
            rejects=outcome.rejects,
            parts_stored=0,
            parts_total=len(wanted),
        )

        async def put(key: str, part: Part) -> None:
            async with limit:
                # The key names the content: what is under it already is the same.
                with contextlib.suppress(PreconditionFailed):
                    await going.insist(
                        lambda: self._objects.put_object(key, Path(part.path), if_none_match=True)
                    )
            track.update(parts_stored=track.now.parts_stored + 1)

        tasks = [asyncio.create_task(put(key, part)) for key, part in wanted]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return [key for key, _ in keyed], rejects


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


def repeat(dataset: str, found: IngestFound, *, duplicate: bool = True) -> IngestResult:
    """The answer to an ingest that was done before, by another request unless told so."""
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
        duplicate=duplicate,
    )
