"""One ingest from its files to the answer: spooled, named, converted, stored, registered.

Every step can be repeated. Objects are named by their content and an ingest by its input,
so a process that dies anywhere leaves at most objects that no table names (catalogd
collects them), and the same request again brings the work to its end exactly once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from services.ingestd.core.bundle import Bundle, BundleFile, find_repeated
from services.ingestd.core.job import Job, Limits, Outcome
from services.ingestd.core.options import Options, make_ingest_id
from services.ingestd.store.account import Account
from services.ingestd.store.figures import Figures
from services.ingestd.store.going import Going
from services.ingestd.store.parts import PartStore
from services.ingestd.store.spool import Received, Spool
from services.ingestd.store.turns import Turns
from services.ingestd.store.upserts import ColumnsChanged, Upsert, Upserts
from services.ingestd.store.workers import Workers
from shared.clients.catalogd import CatalogdClient
from shared.clients.storaged import StoragedClient
from shared.errors import Conflict, NotFound, Unavailable
from shared.pool import BlockingPool
from shared.sections.data import IngestdSection
from shared.telling import RunTeller
from shared.wire.catalogd import (
    Dataset,
    FileCount,
    IngestFound,
    IngestRecord,
    RegisterRequest,
    RegisterResponse,
)
from shared.wire.ingestd import IngestResult

MiB = 1024 * 1024
# How often a conversion is done anew because the table changed under it.
_ATTEMPTS = 3


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
        pool: for writing files of tables that an upsert reads.
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
        pool: BlockingPool,
        teller: RunTeller | None = None,
    ) -> None:
        self._teller = teller
        self._spool = spool
        self._workers = workers
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
        # Held by an upsert that others were faster than: further writes wait for it.
        self._gates = Turns()
        self._parts = PartStore(objects)
        self._upserts = Upserts(
            workers, self._parts, objects, pool, catalog, self._gates, self._limits
        )

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
        self, work: Work, received: Received, folder: Path, going: Going | None = None
    ) -> IngestResult:
        """Ingests what was received, one file or several as one.

        Args:
            work: into what, and how.
            received: the files.
            folder: for what is made of it; the caller removes it.
            going: what is told of it; a request's when there is none.

        Raises:
            LakehouseError: it cannot be done; nothing was registered.
        """
        going = going or Going()
        async with self._inputs.take(f"{work.uuid}/{received.sha256}"):
            found = await self._find_own(work, going)
            if found is not None:
                return repeat(work.dataset, found, duplicate=False)
            ingest_id, found = await going.insist(lambda: self._name(work, received))
            if found is not None:
                return repeat(work.dataset, found)
            return await self._ingest(work, ingest_id, received, folder, going)

    async def _find_own(self, work: Work, going: Going) -> IngestFound | None:
        """What this very job registered before its process died."""
        named = going.named
        if named is None:
            return None
        return await going.insist(lambda: self._catalog.find_ingest(work.dataset, named))

    async def _name(self, work: Work, received: Received) -> tuple[str, IngestFound | None]:
        """The ingest's id, and what came of it if it was done before.

        An ingest whose rows a later replace took away, or an upsert's a later upsert, is not in
        the table any more; sending its input again means to have them again, under the next
        id in line.
        """
        repetition = 0
        while True:
            ingest_id = make_ingest_id(received.sha256, work.options, work.uuid, repetition)
            found = await self._catalog.find_ingest(work.dataset, ingest_id)
            if found is None or not found.superseded:
                return ingest_id, found
            repetition += 1

    async def _ingest(
        self, work: Work, ingest_id: str, received: Received, folder: Path, going: Going
    ) -> IngestResult:
        attempt = 0
        while True:
            table = await going.insist(lambda: self._describe(work.dataset))
            made = folder / f"work-{attempt}"
            made.mkdir()
            job = self._plan(work, ingest_id, received, made, table)
            outcome = await self._convert(job, going)
            parts = await self._parts.put_outcome(work.uuid, outcome, going)
            record = IngestRecord(
                rows_in=outcome.rows_in,
                rows_out=outcome.rows_out,
                rejects=parts.rejects,
                source_bytes=received.size,
                source_sha256=received.sha256,
                warnings=[*find_same_bytes(received), *outcome.warnings],
                files=[FileCount(**asdict(one)) for one in outcome.files],
            )
            upsert = Upsert(
                work.dataset,
                work.uuid,
                work.options,
                ingest_id,
                outcome,
                parts,
                fingerprint_of(table),
                record,
                made,
            )
            register = self._upserts.run if work.options.key else self._register
            try:
                response, record = await register(upsert, going)
            except (Conflict, ColumnsChanged) as error:
                attempt += 1
                going.unseal()
                now = await going.insist(lambda: self._describe(work.dataset))
                same = fingerprint_of(now) == fingerprint_of(table)
                # What lay there already, of an attempt that died long ago, was just collected.
                collected = isinstance(error, Conflict) and "collected" in error.details
                if attempt == _ATTEMPTS or (same and isinstance(error, Conflict) and not collected):
                    raise error if isinstance(error, Conflict) else _restless(work) from None
                # Another write changed the table meanwhile; convert to what it is now.
                await self._spool.remove(made)
                continue
            self._figures.stored(outcome)
            return answer(ingest_id, response, record, own=going.queued)

    def _plan(
        self, work: Work, ingest_id: str, received: Received, made: Path, table: Dataset | None
    ) -> Job | Bundle:
        """What a worker is asked to do."""
        columns = None if table is None else columns_of(table)
        files = received.files
        if len(files) > 1:
            return Bundle(
                files=tuple(BundleFile(one.name, str(one.path), one.size) for one in files),
                folder=str(made),
                ingest_id=ingest_id,
                options=work.options,
                table=columns,
                limits=self._limits,
            )
        return Job(
            source=str(files[0].path),
            folder=str(made),
            ingest_id=ingest_id,
            options=work.options,
            table=columns,
            limits=self._limits,
        )

    async def _register(self, write: Upsert, going: Going) -> tuple[RegisterResponse, IngestRecord]:
        """Adds converted rows to their dataset, or puts them in place of all others."""
        request = RegisterRequest(
            name=write.dataset,
            objects=write.parts.keys,
            mode="replace" if write.options.mode == "replace" else "append",
            ingest_id=write.ingest_id,
            evolve=write.options.contract == "evolve",
            uuid=write.uuid,
            record=write.record,
        )
        await going.register_as(write.ingest_id)
        async with self._gates.take(write.dataset):
            response = await going.insist(partial(self._catalog.register, request))
        return response, write.record

    async def _convert(self, job: Job | Bundle, going: Going) -> Outcome:
        return await going.insist(
            lambda: self._workers.convert(job, going.track.hear, queued=going.queued)
        )

    async def _describe(self, dataset: str) -> Dataset | None:
        try:
            return await self._catalog.get_dataset(dataset)
        except NotFound:
            return None


def _restless(work: Work) -> Unavailable:
    return Unavailable(
        f"Others change the columns of dataset {work.dataset} without a pause; nothing was "
        "changed. Send the same request again.",
        headers={"Retry-After": "5"},
    )


def find_same_bytes(received: Received) -> list[str]:
    """Warnings of files that were sent twice."""
    files = received.files
    return find_repeated([one.sha256 for one in files], [one.name for one in files])


def columns_of(table: Dataset) -> tuple[tuple[str, str], ...]:
    """Name and type of a table's columns."""
    return tuple((column.name, column.type) for column in table.columns)


def fingerprint_of(table: Dataset | None) -> str:
    """What tells whether a table's columns changed."""
    return "" if table is None else table.fingerprint


def answer(
    ingest_id: str, response: RegisterResponse, record: IngestRecord, *, own: bool = False
) -> IngestResult:
    """The answer to an ingest that was just registered.

    Where another process registered the same ingest first, its record is the true one. `own`:
    it insisted, so what was registered already is what it registered itself.
    """
    duplicate = response.status == "unchanged" and not own
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
        inserted=record.inserted,
        updated=record.updated,
        files=record.files,
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
        inserted=record.inserted,
        updated=record.updated,
        files=record.files,
        duplicate=duplicate,
    )
