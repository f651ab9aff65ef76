"""What comes in: answered at once, or taken on as a job where it is large or that is preferred."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from services.ingestd.core.options import Options
from services.ingestd.core.prefer import Preference
from services.ingestd.store.ingest import Ingests, Work
from services.ingestd.store.joblog import JobRow
from services.ingestd.store.jobs import Jobs
from services.ingestd.store.running import now_us
from services.ingestd.store.sources import no_object, read_object
from services.ingestd.store.spool import Spool, Upload
from services.ingestd.store.turns import Turns
from shared import context
from shared.clients.storaged import StoragedClient
from shared.errors import NotFound, Unprocessable
from shared.sections.data import IngestdSection
from shared.wire.ingestd import IngestResult

MiB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to ingest.

    Attributes:
        dataset, options: what is to be done.
        prefer: how it is to be answered.
        key: its `Idempotency-Key`, if it has one.
        declared: bytes of the body, where the request says so.
    """

    dataset: str
    options: Options
    prefer: Preference
    key: str | None = None
    declared: int | None = None


class Intake:
    """Receives for one daemon.

    Args:
        section: from which size on a file is a job.
        spool: for bodies.
        ingests: does what is answered at once.
        jobs: takes on the rest.
        objects: for sources in storage.
    """

    def __init__(
        self,
        section: IngestdSection,
        spool: Spool,
        ingests: Ingests,
        jobs: Jobs,
        objects: StoragedClient,
    ) -> None:
        self._most = section.job_from_mb * MiB
        self._spool = spool
        self._ingests = ingests
        self._jobs = jobs
        self._objects = objects
        self._keys = Turns()

    async def take_body(self, asked: Asked, pieces: AsyncIterator[bytes]) -> IngestResult | JobRow:
        """Ingests a body, or takes the job on.

        Raises:
            LakehouseError: it cannot be done; nothing is left of it.
        """
        with ExitStack() as stack:
            account = stack.enter_context(self._ingests.account(asked.dataset))
            background = asked.prefer.background or (asked.declared or 0) > self._most
            if background:
                # Before the body is received for nothing.
                stack.enter_context(self._jobs.place())
            uuid = await self._ingests.begin(asked.dataset)
            work = Work(asked.dataset, uuid, asked.options)
            async with self._turn(asked), self._spool.folder() as folder:
                upload = await self._spool.receive(pieces, folder)
                account.received(upload.size)
                row = self._find(asked, upload.sha256)
                if row is None and not background and upload.size <= self._most:
                    return account.done(await self._ingests.run(work, upload, folder))
                if row is None:
                    if not background:
                        stack.enter_context(self._jobs.place())
                    row = await self._accept(_describe(asked, work, upload, folder), folder)
            account.dismiss()
            return row

    async def take_object(self, asked: Asked, key: str) -> IngestResult | JobRow:
        """Ingests an object that lies in storage, or takes the job on.

        Raises:
            NotFound: there is none under the key.
            LakehouseError: it cannot be done; nothing is left of it.
        """
        try:
            info = await self._objects.head_object(key)
        except NotFound as error:
            raise no_object(key) from error
        if not asked.prefer.background and info.size <= self._most:
            return await self.take_body(asked, read_object(self._objects, key))
        async with self._turn(asked):
            row = self._find(asked, "", key)
            if row is not None:
                return row
            with self._jobs.place():
                work = Work(asked.dataset, await self._ingests.begin(asked.dataset), asked.options)
                row = _describe(asked, work)
                row.object, row.etag, row.size = key, info.etag, info.size
                return await self._accept(row, None)

    def _turn(self, asked: Asked) -> AbstractAsyncContextManager[None]:
        """Requests of one key come one at a time: the second finds the first's job."""
        return self._keys.take(asked.key) if asked.key else nullcontext()

    def _find(self, asked: Asked, sha256: str, key: str | None = None) -> JobRow | None:
        """The job that the same request made before.

        Raises:
            Unprocessable: another request made it.
        """
        row = self._jobs.find_key(asked.key) if asked.key else None
        if row is None:
            return None
        same = (row.dataset, row.options, row.object) == (
            asked.dataset,
            _plain(asked.options),
            key,
        )
        if not same or row.sha256 != sha256:
            raise Unprocessable(
                f"The Idempotency-Key {asked.key!r} belongs to job {row.id}, which ingests "
                "something else. Use another key for another request.",
                details={"job_id": row.id},
            )
        return row

    async def _accept(self, row: JobRow, folder: Path | None) -> JobRow:
        if folder is not None:
            self._spool.hand_on(folder)

        async def accept() -> JobRow:
            try:
                if folder is not None:
                    await self._spool.sync(folder)
                return (await self._jobs.accept(row)).row
            except BaseException:
                if folder is not None:
                    await self._spool.remove(folder)
                raise

        # A client that leaves now does not know; the job is either there whole or not at all.
        return await asyncio.shield(asyncio.ensure_future(accept()))


def _describe(
    asked: Asked, work: Work, upload: Upload | None = None, folder: Path | None = None
) -> JobRow:
    job_id = f"j{secrets.token_hex(8)}"
    return JobRow(
        id=job_id,
        number=0,
        dataset=work.dataset,
        uuid=work.uuid,
        options=_plain(asked.options),
        folder=folder.name if folder is not None else f"ingest-{job_id}",
        size=upload.size if upload is not None else 0,
        sha256=upload.sha256 if upload is not None else "",
        object=None,
        etag=None,
        idempotency_key=asked.key,
        request_id=context.request_id.get(),
        created_us=now_us(),
    )


def _plain(options: Options) -> dict[str, object]:
    """Options as they come back from the journal: its lists were tuples."""
    return orjson.loads(orjson.dumps(asdict(options)))
