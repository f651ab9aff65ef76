"""Worker processes: started by exec when needed, kept warm a while, killed when in doubt.

A conversion has a worker to itself. If whoever waits for it goes away, or its deadline
passes, the worker is killed, for nothing else stops native code; the next conversion gets
another. A worker that dies by itself fails its own conversion and no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from typing import Any

from services.ingestd.core.bundle import Bundle
from services.ingestd.core.job import Job, Outcome
from services.ingestd.store.figures import Figures
from shared.daemons import ROOT
from shared.errors import BY_CODE, Internal, LakehouseError, RateLimited, Unavailable
from shared.sections.data import IngestdSection

logger = logging.getLogger("lakehouse.ingestd.workers")

# Told of a worker's stages and figures as they come.
Hear = Callable[[dict[str, Any]], None]

# Nothing of the daemon's environment is a worker's business. Times are in UTC; large blocks
# come from the heap, where they are used again, and not from the kernel each time.
ENVIRONMENT = {
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # Arrow's own allocator sets a GiB aside at its first use, which the worker's limit counts.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
# Longest line of a worker's answer: thousands of column names. Bytes.
_LINE = 64 * 1024 * 1024


class WorkerGone(Exception):
    """The worker ended in the middle of a job."""


class Worker:
    """A running worker process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.expiry: asyncio.TimerHandle | None = None

    @staticmethod
    async def start(section: IngestdSection) -> Worker:
        """Starts a worker; it takes a job as soon as it is up."""
        settings = {"memory_bytes": section.worker_memory_mb * 1024 * 1024}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.ingestd.worker",
            json.dumps(settings),
            stdin=PIPE,
            stdout=PIPE,
            cwd=ROOT,
            env=ENVIRONMENT,
            limit=_LINE,
            start_new_session=True,
        )
        return Worker(process)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not been seen to end."""
        return self._process.returncode is None

    async def do(self, job: Mapping[str, Any], hear: Hear | None = None) -> dict[str, Any]:
        """Has one job done; gives its outcome in plain form.

        Args:
            hear: gets what the worker tells of its progress.

        Raises:
            LakehouseError: what the worker answered.
            WorkerGone: it ended before it answered.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            await self._process.stdin.drain()
        while True:
            event = await self._read_event()
            match event["event"]:
                case "done":
                    return event["outcome"]
                case "failed":
                    cls = BY_CODE.get(event["code"], Internal)
                    raise cls(event["message"], details=event["details"])
                case "log":
                    logger.error("Worker %d: %s", self.pid, event["message"])
                case _ if hear is not None:
                    hear(event)
                case _:
                    logger.debug("Worker %d: %s", self.pid, event)

    def close_input(self) -> None:
        """Ends its input; it ends by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def end(self) -> int:
        """Kills it and gives its exit status."""
        if self.expiry is not None:
            self.expiry.cancel()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        status = await self._process.wait()
        self.close_input()
        return status

    async def _read_event(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise WorkerGone
        return json.loads(line)


class Workers:
    """Workers for the conversions of one daemon.

    Args:
        section: how many, how long they are kept, how many conversions may wait.
        figures: where workers are counted.
    """

    def __init__(self, section: IngestdSection, figures: Figures) -> None:
        self._section = section
        self._figures = figures
        self._slots = asyncio.Semaphore(section.workers)
        self._waiting = 0
        self._idle: list[Worker] = []
        self._live = 0
        self._starting: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def convert(
        self, job: Job | Bundle, hear: Hear | None = None, *, queued: bool = False
    ) -> Outcome:
        """Converts a file, or several, in a worker; see `do`."""
        return Outcome.from_json(await self.do(job.to_json(), hear, queued=queued))

    async def do(
        self, job: Mapping[str, Any], hear: Hear | None = None, *, queued: bool = False
    ) -> dict[str, Any]:
        """Has a job done in a worker, waiting for one if all are busy.

        Args:
            hear: gets what the worker tells of its progress.
            queued: it has been in a queue of its own, and is not refused by this one.

        Raises:
            RateLimited: too many are waiting.
            LakehouseError: what became of the conversion.
        """
        full = self._slots.locked() and self._waiting >= self._section.queue_length
        if full and not queued:
            raise RateLimited(
                f"{self._section.workers} conversions run and {self._waiting} wait. "
                "Try again later.",
                headers={"Retry-After": "5"},
            )
        self._waiting += 1
        self._gauge()
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
            self._gauge()
        try:
            return await self._run(job, hear)
        finally:
            self._slots.release()

    def warm(self) -> None:
        """Has a worker started for a conversion that is about to come."""
        if not self._idle and self._live < self._section.workers and self._starting is None:
            self._starting = asyncio.create_task(self._start_idle())

    def idle_pids(self) -> list[int]:
        """Process ids of the workers without work."""
        return [worker.pid for worker in self._idle]

    async def close(self) -> None:
        """Ends all workers."""
        self._closed = True
        if self._starting is not None:
            await asyncio.wait([self._starting])
        while self._idle:
            self._end(self._idle.pop(), "closed")
        if self._ending:
            await asyncio.wait(self._ending)

    async def _run(self, job: Mapping[str, Any], hear: Hear | None) -> dict[str, Any]:
        worker = await self._take()
        reason = "crashed"
        try:
            outcome = await worker.do(job, hear)
        except WorkerGone:
            status = await self._end_now(worker, reason)
            logger.error("Worker %d ended with status %d during a conversion", worker.pid, status)
            raise Internal(
                "The worker that converted the file ended unexpectedly; nothing was stored. Send "
                "the file again; if that fails too, it may need more memory than there is.",
                details={"worker_status": status},
            ) from None
        except LakehouseError:
            self._keep(worker)
            raise
        except BaseException:
            # Cancelled: the client left, or the deadline passed.
            self._end(worker, "abandoned")
            raise
        self._keep(worker)
        return outcome

    async def _take(self) -> Worker:
        if not self._idle and self._starting is not None:
            await asyncio.wait([self._starting])
        while self._idle:
            worker = self._idle.pop()
            if worker.expiry is not None:
                worker.expiry.cancel()
            if worker.alive:
                return worker
            self._end(worker, "crashed")
        return await self._start()

    async def _start(self) -> Worker:
        try:
            worker = await Worker.start(self._section)
        except OSError as error:
            raise Unavailable(
                "A worker process could not be started. Try again; the machine may be short of "
                "memory or processes.",
                headers={"Retry-After": "5"},
            ) from error
        self._live += 1
        self._figures.worker_started()
        self._gauge()
        return worker

    async def _start_idle(self) -> None:
        try:
            self._keep(await self._start())
        except LakehouseError as error:
            logger.warning("No worker could be started ahead of time: %s", error.message)
        finally:
            self._starting = None

    def _keep(self, worker: Worker) -> None:
        if self._closed or not worker.alive:
            self._end(worker, "closed" if self._closed else "crashed")
            return
        loop = asyncio.get_running_loop()
        worker.expiry = loop.call_later(self._section.worker_idle_s, self._expire, worker)
        self._idle.append(worker)

    def _expire(self, worker: Worker) -> None:
        if worker in self._idle:
            self._idle.remove(worker)
            self._end(worker, "idle")

    def _end(self, worker: Worker, reason: str) -> None:
        task = asyncio.create_task(self._end_quietly(worker, reason))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end_quietly(self, worker: Worker, reason: str) -> None:
        await self._end_now(worker, reason)

    async def _end_now(self, worker: Worker, reason: str) -> int:
        status = await worker.end()
        self._live -= 1
        self._figures.worker_ended(reason)
        self._gauge()
        return status

    def _gauge(self) -> None:
        self._figures.gauge(live=self._live, waiting=self._waiting)
