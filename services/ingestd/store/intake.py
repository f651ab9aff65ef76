"""What comes in: answered at once, or taken on as a job where it is large or that is preferred."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, aclosing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from services.ingestd.core.naming import shorten_name
from services.ingestd.core.options import Options
from services.ingestd.core.prefer import Preference
from services.ingestd.core.reference import Reference
from services.ingestd.store.ingest import Ingests, Work
from services.ingestd.store.joblog import JobFile, JobRow
from services.ingestd.store.jobs import Jobs
from services.ingestd.store.running import now_us
from services.ingestd.store.sources import find_objects, read_objects
from services.ingestd.store.spool import Spool
from services.ingestd.store.turns import Turns
from shared import context
from shared.clients.storaged import StoragedClient
from shared.errors import Unprocessable
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
        section: from which size on files are a job, and how many there may be.
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
        self._most_files = section.max_files
        self._spool = spool
        self._ingests = ingests
        self._jobs = jobs
        self._objects = objects
        self._keys = Turns()

    async def take_files(
        self, asked: Asked, pieces: AsyncIterator[str | bytes]
    ) -> IngestResult | JobRow:
        """Ingests files, or takes the job on.

        Args:
            asked: the request.
            pieces: the name of each file, then its bytes.

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
                received = await self._spool.receive_files(pieces, folder)
                account.received(received.size)
                row = self._find(asked, received.sha256)
                if row is None and not background and received.size <= self._most:
                    return account.done(await self._ingests.run(work, received, folder))
                if row is None:
                    if not background:
                        stack.enter_context(self._jobs.place())
                    files = [JobFile(one.name, one.size, one.sha256) for one in received.files]
                    row = _describe(asked, work, files, received.sha256)
                    row.folder = folder.name
                    row = await self._accept(row, folder)
            account.dismiss()
            return row

    async def take_objects(self, asked: Asked, reference: Reference) -> IngestResult | JobRow:
        """Ingests objects that lie in storage, or takes the job on.

        Raises:
            NotFound: there is none under a key, or none under the prefix.
            LakehouseError: it cannot be done; nothing is left of it.
        """
        infos = await find_objects(self._objects, reference, self._most_files)
        size = sum(info.size for info in infos)
        if not asked.prefer.background and size <= self._most:
            async with aclosing(read_objects(self._objects, infos)) as pieces:
                return await self.take_files(asked, pieces)
        async with self._turn(asked):
            row = self._find(asked, "", reference)
            if row is not None:
                return row
            with self._jobs.place():
                work = Work(asked.dataset, await self._ingests.begin(asked.dataset), asked.options)
                files = [
                    JobFile(shorten_name(one.key), one.size, "", one.key, one.etag) for one in infos
                ]
                return await self._accept(_describe(asked, work, files, "", reference), None)

    def _turn(self, asked: Asked) -> AbstractAsyncContextManager[None]:
        """Requests of one key come one at a time: the second finds the first's job."""
        return self._keys.take(asked.key) if asked.key else nullcontext()

    def _find(self, asked: Asked, sha256: str, reference: Reference | None = None) -> JobRow | None:
        """The job that the same request made before.

        Raises:
            Unprocessable: another request made it.
        """
        row = self._jobs.find_key(asked.key) if asked.key else None
        if row is None:
            return None
        # What a prefix stood for when the job was accepted is what it stays.
        by_prefix = reference is not None and reference.prefix is not None
        keys = () if reference is None or by_prefix else reference.keys
        found = tuple(one.object for one in row.sources if one.object is not None)
        same = (row.dataset, row.options, row.object) == (
            asked.dataset,
            _plain(asked.options),
            None if reference is None else reference.name,
        )
        if not same or row.sha256 != sha256 or (not by_prefix and keys != found):
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
    asked: Asked,
    work: Work,
    files: Sequence[JobFile],
    sha256: str,
    reference: Reference | None = None,
) -> JobRow:
    """A job as it is accepted.

    Args:
        sha256: of all files; "" where they are objects.
        reference: how these were named.
    """
    job_id = f"j{secrets.token_hex(8)}"
    several = len(files) > 1 or (reference is not None and reference.prefix is not None)
    return JobRow(
        id=job_id,
        number=0,
        dataset=work.dataset,
        uuid=work.uuid,
        options=_plain(asked.options),
        folder=f"ingest-{job_id}",
        size=sum(one.size for one in files),
        sha256=sha256,
        object=None if reference is None else reference.name,
        etag=None if several else files[0].etag,
        idempotency_key=asked.key,
        request_id=context.request_id.get(),
        created_us=now_us(),
        files=tuple(files) if several else (),
    )


def _plain(options: Options) -> dict[str, object]:
    """Options as they come back from the journal: its lists were tuples."""
    return orjson.loads(orjson.dumps(asdict(options)))
