"""Jobs: accepted durably, run in turn, followed, cancelled, gone on with after a restart.

Jobs of one dataset run one after the other, in the order in which they were accepted;
datasets take turns, so that nobody's hundred files keep another's one waiting. What a job
does can be repeated (`ingest`), so a process that died in the middle begins it anew and it is
done once.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import orjson

from services.ingestd.core.options import options_from
from services.ingestd.store.figures import Figures
from services.ingestd.store.ingest import Ingests, Work
from services.ingestd.store.joblog import JobFile, JobLog, JobRow
from services.ingestd.store.running import (
    RunningJob,
    now_us,
    result_of,
    show_job,
    stream_events,
)
from services.ingestd.store.sources import read_object
from services.ingestd.store.spool import Received, Spool, Upload, source_name
from shared import context
from shared.clients.storaged import StoragedClient
from shared.errors import (
    BY_CODE,
    Conflict,
    Internal,
    LakehouseError,
    NotFound,
    RateLimited,
    Timeout,
)
from shared.sections.data import IngestdSection
from shared.wire.ingestd import IngestJob, IngestJobs, IngestResult, JobFailure

logger = logging.getLogger("lakehouse.ingestd.jobs")


class Jobs:
    """All jobs of one daemon.

    Args:
        section: limits.
        folder: of their journal.
        spool: where their bodies lie.
        ingests: does the work.
        objects: for sources in storage.
        figures: where jobs are counted.
    """

    def __init__(
        self,
        section: IngestdSection,
        folder: Path,
        spool: Spool,
        ingests: Ingests,
        objects: StoragedClient,
        figures: Figures,
    ) -> None:
        self._section = section
        self._folder = folder
        self._spool = spool
        self._ingests = ingests
        self._objects = objects
        self._figures = figures
        self._log = JobLog(folder, section.keep_jobs)
        # Versions of events begin anew with the process.
        self._epoch = f"{time.time_ns() // 1_000_000:x}"
        self._alive: dict[str, RunningJob] = {}
        self._waiting: dict[str, deque[RunningJob]] = {}
        self._busy: set[str] = set()
        # When a dataset had its last turn.
        self._served: dict[str, int] = {}
        self._turn = 0
        self._receiving = 0
        self._closing = False

    # --- start and stop

    async def open(self) -> None:
        """Reads what is kept, removes what is not, and goes on with what has not ended."""
        await self._log.open()
        rows = list(self._log.unfinished())
        self._spool.clear({self._folder.name, *(row.folder for row in rows)})
        for row in rows:
            row.status = "queued"
            self._enqueue(row)

    async def close(self) -> None:
        """Stops what runs; it goes on at the next start."""
        self._closing = True
        tasks = [job.task for job in self._alive.values() if job.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._log.close()

    def check(self) -> str:
        """ "ok", or why no job can be accepted."""
        return self._log.check()

    # --- accepting

    @contextmanager
    def place(self) -> Generator[None]:
        """A place in the queue, while the request is received that needs it.

        Raises:
            RateLimited: there is none.
        """
        if len(self._alive) + self._receiving >= self._section.job_queue:
            raise RateLimited(
                f"{len(self._alive)} jobs wait or run already. Try again when some have ended: "
                "GET /ingest/jobs lists them.",
                headers={"Retry-After": "10"},
            )
        self._receiving += 1
        try:
            yield
        finally:
            self._receiving -= 1

    def find_key(self, key: str) -> JobRow | None:
        """The job that was made under an `Idempotency-Key`."""
        found = [row for row in self._log.rows.values() if row.idempotency_key == key]
        return found[-1] if found else None

    async def accept(self, row: JobRow) -> RunningJob:
        """Takes a job on; it is durable on return.

        Raises:
            InsufficientStorage: it cannot be made so.
        """
        row.number = self._log.last_number = self._log.last_number + 1
        await self._log.accept(row)
        return self._enqueue(self._log.rows[row.id])

    # --- asking

    async def get(self, job_id: str, wait_s: float) -> IngestJob:
        """A job as it stands, or as it ended within `wait_s` seconds.

        Raises:
            NotFound: there is none, or it is no longer kept.
        """
        row, alive = self._find(job_id)
        if alive is not None:
            await alive.wait(wait_s)
        return show_job(row, alive)

    def show(self, row: JobRow) -> IngestJob:
        """A job as it stands."""
        return show_job(row, self._alive.get(row.id))

    async def answer(self, row: JobRow, wait_s: float) -> IngestResult | None:
        """What a job came to within `wait_s` seconds; None when it has not ended.

        Raises:
            LakehouseError: it failed.
        """
        alive = self._alive.get(row.id)
        if alive is not None:
            await alive.wait(wait_s)
        if row.status == "failed":
            failure = JobFailure.model_validate_json(row.end)
            raise BY_CODE.get(failure.code, Internal)(failure.message, details=failure.details)
        return result_of(row) if row.status == "done" else None

    def list(
        self, limit: int, before: int | None, status: str | None, dataset: str | None
    ) -> IngestJobs:
        """Jobs, newest first."""
        found = [
            row
            for row in self._log.rows.values()
            if (before is None or row.number < before)
            and status in (None, row.status)
            and dataset in (None, row.dataset)
        ]
        found.sort(key=lambda row: -row.number)
        more = len(found) > limit
        found = found[:limit]
        return IngestJobs(
            jobs=[show_job(row, self._alive.get(row.id), brief=True) for row in found],
            next_cursor=str(found[-1].number) if more else None,
        )

    def watch(self, job_id: str, last_id: str) -> AsyncGenerator[bytes]:
        """A job's progress as server-sent events.

        Raises:
            NotFound: there is none; before the first event.
        """
        row, alive = self._find(job_id)
        return stream_events(row, alive, self._epoch, last_id)

    async def cancel(self, job_id: str) -> IngestJob:
        """Ends a job that waits or runs: its worker is killed, its body removed.

        Raises:
            NotFound: there is none.
            Conflict: it is being registered, or has ended otherwise.
        """
        row, alive = self._find(job_id)
        if alive is None:
            if row.status != "cancelled":
                raise Conflict(
                    f"Job {job_id} is {row.status}; there is nothing to cancel.",
                    details={"job_id": job_id, "status": row.status},
                )
            return show_job(row)
        alive.check_open()
        alive.cancelling = True
        if alive.task is None:
            self._waiting[row.dataset].remove(alive)
            if not self._waiting[row.dataset]:
                del self._waiting[row.dataset]
            self._begin(alive)
        elif alive.under_way:
            alive.task.cancel()
        # A task that was not begun looks for itself.
        await alive.ended.wait()
        if row.status != "cancelled":
            raise Conflict(
                f"Job {job_id} was {row.status} before it could be cancelled.",
                details={"job_id": job_id, "status": row.status},
            )
        return show_job(row)

    # --- inside

    def _find(self, job_id: str) -> tuple[JobRow, RunningJob | None]:
        row = self._log.rows.get(job_id)
        if row is None:
            raise NotFound(
                f"There is no job {job_id!r}; of those that have ended the last "
                f"{self._section.keep_jobs} are kept. GET /ingest/jobs lists them.",
                details={"job_id": job_id},
            )
        return row, self._alive.get(job_id)

    def _enqueue(self, row: JobRow) -> RunningJob:
        job = RunningJob(row, self._log, self._section.job_patience_s)
        self._alive[row.id] = job
        self._waiting.setdefault(row.dataset, deque()).append(job)
        self._pump()
        return job

    def _pump(self) -> None:
        """Begins what may begin: of the datasets that wait, the one served longest ago."""
        while len(self._busy) < self._section.job_workers and not self._closing:
            waiting = [one for one in self._waiting if one not in self._busy]
            if not waiting:
                break
            dataset = min(waiting, key=lambda name: self._served.get(name, 0))
            job = self._waiting[dataset].popleft()
            self._served[dataset] = self._turn = self._turn + 1
            if not self._waiting[dataset]:
                del self._waiting[dataset]
            self._busy.add(dataset)
            job.has_turn = True
            self._begin(job)
        for dataset in self._served.keys() - self._waiting.keys() - self._busy:
            del self._served[dataset]
        running = sum(job.task is not None for job in self._alive.values())
        self._figures.jobs(running=running, waiting=len(self._alive) - running)

    def _begin(self, job: RunningJob) -> None:
        # In a context of its own: the deadline is the request's and not the job's.
        job.task = asyncio.create_task(self._run(job), context=contextvars.Context())

    async def _run(self, job: RunningJob) -> None:
        row = job.row
        job.under_way = True
        context.request_id.set(row.request_id)
        try:
            status, end = await self._work(job)
        except asyncio.CancelledError:
            if not job.cancelling:
                # The daemon stops; the next one goes on.
                return
            status, end = "cancelled", b""
        finally:
            if job.has_turn:
                self._busy.discard(row.dataset)
        await asyncio.shield(asyncio.ensure_future(self._end(job, status, end)))

    async def _work(self, job: RunningJob) -> tuple[str, bytes]:
        """Does the job; gives its status and what it came to."""
        row = job.row
        if job.cancelling:
            return "cancelled", b""
        job.start()
        try:
            with self._ingests.account(row.dataset) as account:
                async with asyncio.timeout(self._section.job_timeout_s):
                    folder = await self._spool.make(row.folder)
                    received = await self._receive(job, folder)
                    if row.sources[0].object is not None:
                        account.received(received.size)
                    work = Work(row.dataset, row.uuid, options_from(row.options))
                    result = account.done(await self._ingests.run(work, received, folder, job))
            return "done", result.model_dump_json(by_alias=True).encode()
        except TimeoutError:
            seconds = self._section.job_timeout_s
            failure: LakehouseError = Timeout(f"The job did not finish within {seconds:g} s.")
        except LakehouseError as error:
            failure = error
        except Exception:
            logger.exception("Job %s failed", row.id)
            failure = Internal("The job failed. The log of ingestd has the details.")
        return "failed", orjson.dumps(
            {
                "code": failure.code,
                "status": failure.status,
                "message": failure.message,
                "details": failure.details,
            },
            default=str,
        )

    async def _receive(self, job: RunningJob, folder: Path) -> Received:
        """The job's files: the bodies that came with the request, or the objects it named."""
        sources = job.row.sources
        if sources[0].object is None:
            found: list[Upload] = []
            for number, one in enumerate(sources):
                path = folder / source_name(number)
                if not path.is_file() or path.stat().st_size != one.size:
                    raise Internal("A file that was received is no longer there. Send it again.")
                found.append(Upload(path, one.size, one.sha256, one.name))
            return Received(tuple(found))
        for number in range(len(sources)):
            (folder / source_name(number)).unlink(missing_ok=True)
        job.track.enter("fetching", bytes_read=0, bytes_total=job.row.size)
        before = 0
        fetched: list[Upload] = []
        for number, one in enumerate(sources):
            fetched.append(await job.insist(partial(self._fetch, job, folder, number, one, before)))
            before += one.size
        return Received(tuple(fetched))

    async def _fetch(
        self, job: RunningJob, folder: Path, number: int, source: JobFile, before: int
    ) -> Upload:
        """One object, after so many bytes of those before it."""
        (folder / source_name(number)).unlink(missing_ok=True)
        pieces = read_object(
            self._objects,
            source.object or "",
            etag=source.etag,
            told=lambda size: job.track.update(bytes_read=before + size),
        )
        return await self._spool.receive(pieces, folder, number, source.name)

    async def _end(self, job: RunningJob, status: str, end: bytes) -> None:
        row = job.row
        row.finished_us = now_us()
        job.track.enter(status)
        row.progress = job.track.now.to_json()
        row.status, row.end = status, end
        try:
            await self._log.end(row)
        except LakehouseError as error:
            # What it did stands; after a restart it is found to be done already.
            logger.error("The end of job %s could not be noted: %s", row.id, error.message)
        await self._spool.remove(self._spool.at(row.folder))
        self._alive.pop(row.id, None)
        self._figures.job_ended(status)
        job.finish()
        self._pump()
