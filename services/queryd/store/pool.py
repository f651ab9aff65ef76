"""The pool of workers: hands one out, takes it back, replaces those that end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.queryd.core.expectation import LONG_S, Expectation
from services.queryd.core.fairness import FairQueue, Turn
from services.queryd.core.frames import Kind
from services.queryd.core.yielding import Manners, Move
from services.queryd.store.allocator import keep_large_blocks
from services.queryd.store.bucket import Bucket
from services.queryd.store.figures import Figures
from services.queryd.store.nursery import Nursery
from services.queryd.store.priority import can_restore
from services.queryd.store.process import WorkerGone, WorkerProcess
from shared.errors import RateLimited, Unavailable
from shared.pool import BlockingPool
from shared.sections.data import QuerydSection

logger = logging.getLogger("lakehouse.queryd")

# The first is warm in about half a second, the next much sooner; one that takes this long is
# stuck. Seconds.
_START_S = 30.0
# A worker has a new database ready in about 15 ms; one that takes this long is stuck. Seconds.
_RENEW_S = 10.0
# A client may leave when it has all rows, and before the worker has said that these were all.
# What is not over by then is killed. Seconds.
_LAST_WORDS_S = 0.05
# A spare worker goes when none was needed for so long. Seconds.
_SPARE_S = 30.0
# Wait after a worker that died before it was warm, doubled up to the second. Seconds.
_BACKOFF_S, _MOST_BACKOFF_S = 0.1, 5.0


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    """A query that waits for its worker."""

    sql: str
    worker: asyncio.Future[WorkerProcess]


@dataclass(frozen=True, slots=True)
class _Run:
    """A query that has its worker, since when by the loop's clock."""

    sql: str
    turn: Turn
    since: float


class WorkerPool:
    """`section.workers` processes, each for one query at a time.

    Where a query turns out to be a long one and others come, up to `section.spare_workers` more
    are started for these, so that they have as many as before.

    Args:
        section: limits.
        folder: where workers have their folders; emptied at start.
        readable: folders that hold data files.
        figures: counted here: workers, the queue, kills.
        bucket: where data files lie too, if there is one.
    """

    def __init__(
        self,
        section: QuerydSection,
        folder: Path,
        readable: tuple[str, ...],
        figures: Figures,
        bucket: Bucket | None = None,
    ) -> None:
        self._section = section
        self._folder = folder
        self._readable = readable
        self._figures = figures
        self._nursery = Nursery(section, folder, readable, bucket)
        self._idle: deque[WorkerProcess] = deque()
        # No caller gets more than without spare workers, but for what is known to be brief:
        # those are for the others.
        self._waiting: FairQueue[_Request] = FairQueue(section.workers)
        self._runs: dict[WorkerProcess, _Run] = {}
        self._expectation = Expectation()
        self._restores = can_restore()
        self._manners: Manners[WorkerProcess] = Manners(restores=self._restores)
        self._review: asyncio.TimerHandle | None = None
        self._retirement: asyncio.TimerHandle | None = None
        self._live: set[WorkerProcess] = set()
        self._fresh: set[WorkerProcess] = set()
        # Fresh ones that start behind the queries that run.
        self._modest: set[WorkerProcess] = set()
        self._disk = BlockingPool("queryd-disk", 1, 10_000)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._failures = 0
        self._complaint = ""

    def start(self) -> None:
        """Starts all workers; they warm up on their own."""
        keep_large_blocks()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        for folder in self._readable:
            # A worker's sandbox knows folders by what they are when it starts: one that its
            # owner makes later, on a fresh machine, would stay shut to it.
            with contextlib.suppress(OSError):
                Path(folder).mkdir(parents=True, exist_ok=True)
        self._fill()

    async def close(self) -> None:
        """Kills all workers and waits for their end."""
        self._closing = True
        for timer in (self._review, self._retirement):
            if timer is not None:
                timer.cancel()
        for request in self._waiting.items():
            if not request.worker.done():
                request.worker.set_exception(Unavailable("queryd is shutting down."))
        for worker in list(self._live):
            worker.kill("shutdown")
        for worker in list(self._live):
            await worker.wait()
        self._nursery.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._disk.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def check(self) -> str:
        """ "ok" when a worker is warm or at work, else the reason why not."""
        if self._live - self._fresh:
            return "ok"
        if self._failures:
            return f"no worker starts ({self._complaint})"
        return "no worker is warm yet"

    async def acquire(self, sql: str = "", caller: str = "") -> WorkerProcess:
        """A warm worker, the caller's until `release`.

        Where all are busy, the next free one goes to whose queries have had the least of their
        time; see `core.fairness`.

        Args:
            sql: the query, for what is known of it.
            caller: whose it is.

        Raises:
            RateLimited: all are busy and the queue is full, or became so by callers who have
                fewer queries in it.
        """
        expected_s = self._expectation.expect(sql)
        brief = expected_s is not None and expected_s < LONG_S
        while self._idle and self._waiting.may_start(caller, brief=brief):
            worker = self._idle.popleft()
            if worker.is_running():
                worker.hold()
                self._begin(worker, sql, self._waiting.start(caller, brief=brief))
                self._count()
                return worker
        if len(self._waiting) >= self._section.queue_length:
            refused = self._waiting.crowd_out(caller)
            if refused is None:
                raise self._refuse()
            if not refused.worker.done():
                refused.worker.set_exception(self._refuse())
        given: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()
        request = _Request(sql, given)
        self._waiting.push(caller, request, brief=brief)
        self._weigh()
        self._count()
        try:
            return await given
        except asyncio.CancelledError:
            if given.done() and not given.cancelled() and given.exception() is None:
                worker = given.result()
                self._end(worker, finished=False)
                worker.let_go()
                self._offer(worker)  # it came in the same moment; pass it on
            raise
        finally:
            self._waiting.drop(caller, request)
            self._count()

    def release(self, worker: WorkerProcess, *, finished: bool) -> None:
        """Gives a worker back.

        Args:
            finished: its query has ended in END or ERROR. A worker in the middle of one is
                killed: no engine can be trusted to stop at once.
        """
        self._end(worker, finished=finished)
        # The caller's hold goes over to what is begun here.
        if finished:
            self._keep(self._await_ready(worker, _RENEW_S))
        elif worker.alive:
            self._keep(self._await_end(worker))
        else:
            worker.let_go()

    async def _await_end(self, worker: WorkerProcess) -> None:
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await worker.skip_answer()
        except BaseException as error:
            worker.kill("abandoned")
            worker.let_go()
            if isinstance(error, WorkerGone | TimeoutError):
                return
            raise
        await self._await_ready(worker, _RENEW_S)

    def _fill(self) -> None:
        """Starts workers that are missing."""
        spare = min(self._manners.count_crowding(), self._section.spare_workers)
        while not self._closing and len(self._live) < self._section.workers + spare:
            if not self._spawn():
                return

    def _spawn(self) -> bool:
        try:
            worker = self._nursery.start(self._note_exit)
        except OSError as error:
            self._note_failure(error.strerror or type(error).__name__)
            self._keep(self._fill_later())
            return False
        self._live.add(worker)
        self._fresh.add(worker)
        worker.hold()
        if self._runs and self._restores and not self._is_wanted():
            # No query has to wait for its start.
            worker.move(Move.BEHIND)
            self._modest.add(worker)
        self._keep(self._await_ready(worker, _START_S))
        return True

    async def _await_ready(self, worker: WorkerProcess, patience_s: float) -> None:
        """Waits for READY, lets go and offers the worker; ends it when it is worn or stuck."""
        try:
            async with asyncio.timeout(patience_s):
                kind, length = await worker.receive()
                told = await worker.read_json(length)
        except WorkerGone:
            return
        except TimeoutError:
            worker.kill("stuck")
            return
        finally:
            worker.let_go()
        if kind is not Kind.READY or told["worn"]:
            worker.kill("worn")
            return
        self._fresh.discard(worker)
        self._failures = 0
        if worker in self._modest:
            self._modest.discard(worker)
            self._move(worker, Move.LEVEL)
        self._offer(worker)

    def _offer(self, worker: WorkerProcess) -> None:
        """Sets a warm worker aside, for who waits longest if anybody does."""
        if not worker.alive:
            return
        self._idle.append(worker)
        self._hand_out()
        self._count()

    def _hand_out(self) -> None:
        """Gives idle workers to who waits."""
        while self._idle:
            if not self._idle[0].is_running():
                self._idle.popleft()
                continue
            if (found := self._waiting.pop()) is None:
                return
            turn, request = found
            if request.worker.done():
                self._waiting.finish(turn, 0.0)
                continue
            worker = self._idle.popleft()
            worker.hold()
            self._begin(worker, request.sql, turn)
            request.worker.set_result(worker)

    def _begin(self, worker: WorkerProcess, sql: str, turn: Turn) -> None:
        now = asyncio.get_running_loop().time()
        self._runs[worker] = _Run(sql, turn, now)
        self._manners.start(worker, now, self._expectation.expect(sql) or 0.0)
        self._weigh()

    def _end(self, worker: WorkerProcess, *, finished: bool) -> None:
        run = self._runs.pop(worker)
        now = asyncio.get_running_loop().time()
        self._waiting.finish(run.turn, now - run.since)
        self._expectation.note(run.sql, self._manners.read_own_s(worker, now), finished=finished)
        for step in self._manners.finish(worker, now):
            self._move(worker, step)
        self._hand_out()
        self._weigh()

    def _weigh(self) -> None:
        """Has long queries make way for those that come; see `core.yielding`."""
        if self._review is not None:
            self._review.cancel()
            self._review = None
        if self._closing:
            return
        loop = asyncio.get_running_loop()
        for worker, step in self._manners.weigh(loop.time(), waiting=self._waiting.has_ready()):
            self._move(worker, step)
        if self._modest and self._is_wanted():
            for worker in self._modest:
                self._move(worker, Move.LEVEL)
            self._modest.clear()
        if not self._failures:
            self._fill()
        if self._retirement is None and len(self._live) > self._section.workers:
            self._retirement = loop.call_later(_SPARE_S, self._retire)
        again = self._manners.next_s()
        if again is not None:
            self._review = loop.call_later(again, self._weigh)

    def _is_wanted(self) -> bool:
        """Whether queries wait for a worker that starts, and none of the others will be free."""
        now = asyncio.get_running_loop().time()
        return self._waiting.has_ready() and self._manners.all_last(now)

    def _move(self, worker: WorkerProcess, step: Move) -> None:
        if not worker.move(step) and step is Move.LEVEL:
            worker.kill("worn")

    def _retire(self) -> None:
        """Ends a spare worker that has nothing to do; looks again later where there are more."""
        self._retirement = None
        spare = len(self._live) - self._section.workers - self._manners.count_crowding()
        if spare > 0 and self._idle:
            self._idle.pop().kill("spare")
        if len(self._live) > self._section.workers:
            loop = asyncio.get_running_loop()
            self._retirement = loop.call_later(_SPARE_S, self._retire)

    def _refuse(self) -> RateLimited:
        return RateLimited(
            f"All {self._section.workers} query workers are busy and "
            f"{self._section.queue_length} queries are waiting. Try again shortly.",
            headers={"Retry-After": "1"},
        )

    def _note_exit(self, worker: WorkerProcess) -> None:
        self._live.discard(worker)
        self._manners.forget(worker)
        with contextlib.suppress(ValueError):
            self._idle.remove(worker)
        if self._closing:
            return
        self._figures.ended(worker.reason or ("worn" if worker.status == 0 else "crashed"))
        if worker in self._fresh:
            # Unlike one that a query ended, the next may fare no better.
            complaint = worker.read_complaint() or self._nursery.complaint
            self._note_failure(complaint or f"exit status {worker.status}")
        self._fresh.discard(worker)
        self._modest.discard(worker)
        self._keep(self._clear_away(worker.folder))
        self._keep(self._fill_later())
        self._count()

    def _note_failure(self, complaint: str) -> None:
        self._failures += 1
        self._complaint = complaint
        logger.warning("A query worker did not start: %s", complaint)

    async def _clear_away(self, folder: Path) -> None:
        # Gigabytes of scratch files take the kernel a while.
        await self._disk.run(shutil.rmtree, folder, ignore_errors=True)

    async def _fill_later(self) -> None:
        if self._failures:
            await asyncio.sleep(min(_BACKOFF_S * 2**self._failures, _MOST_BACKOFF_S))
        self._fill()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _count(self) -> None:
        self._figures.gauge(idle=len(self._idle), live=len(self._live), queue=len(self._waiting))
