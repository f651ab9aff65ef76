"""The pool of workers: hands one out, takes it back, replaces those that end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import shutil
from collections import deque
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from services.queryd.core.fairness import FairQueue, Turn
from services.queryd.core.frames import Kind
from services.queryd.store.allocator import keep_large_blocks
from services.queryd.store.bucket import Bucket
from services.queryd.store.figures import Figures
from services.queryd.store.priority import can_speed_up, slow_down, speed_up
from services.queryd.store.process import WorkerGone, WorkerProcess
from shared.errors import RateLimited, Unavailable
from shared.pool import BlockingPool
from shared.sections.data import QuerydSection

logger = logging.getLogger("lakehouse.queryd")

# A worker is warm in about a third of a second; one that takes this long is stuck. Seconds.
_START_S = 30.0
# A worker has a new database ready in about 15 ms; one that takes this long is stuck. Seconds.
_RENEW_S = 10.0
# A client may leave when it has all rows, and before the worker has said that these were all.
# What is not over by then is killed. Seconds.
_LAST_WORDS_S = 0.05
# A query that has run this long goes behind others that come, so that a runaway costs its
# neighbours little; alone it runs as before. Where priority cannot be given back, its worker is
# replaced afterwards, which takes a third of a second and is only worth it later. Seconds.
_PATIENCE_S, _LONG_PATIENCE_S = 0.2, 2.0
# How long after its start a query counts as a neighbour, and how often this is looked at.
_NEIGHBOUR_S, _REVIEW_S = 1.0, 0.25
# Wait after a worker that died before it was warm, doubled up to the second. Seconds.
_BACKOFF_S, _MOST_BACKOFF_S = 0.1, 5.0


class WorkerPool:
    """`section.workers` processes, each for one query at a time.

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
        self._bucket = bucket
        self._numbers = itertools.count(1)
        self._idle: deque[WorkerProcess] = deque()
        self._waiting: FairQueue[asyncio.Future[WorkerProcess]] = FairQueue()
        # Whose query each busy worker has, and since when by the loop's clock.
        self._turns: dict[WorkerProcess, tuple[Turn, float]] = {}
        self._begun: dict[WorkerProcess, float] = {}
        self._slow: set[WorkerProcess] = set()
        self._review: asyncio.TimerHandle | None = None
        self._restores = can_speed_up()
        self._live: set[WorkerProcess] = set()
        self._fresh: set[WorkerProcess] = set()
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
        for _ in range(self._section.workers):
            self._spawn()

    async def close(self) -> None:
        """Kills all workers and waits for their end."""
        self._closing = True
        self._weigh()
        for turn in self._waiting.items():
            if not turn.done():
                turn.set_exception(Unavailable("queryd is shutting down."))
        for worker in list(self._live):
            worker.kill("shutdown")
        for worker in list(self._live):
            await worker.wait()
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

    async def acquire(self, caller: str = "") -> WorkerProcess:
        """A warm worker, the caller's until `release`.

        Where all are busy, the next free one goes to whose queries have had the least of their
        time; see `core.fairness`.

        Args:
            caller: whose query it is.

        Raises:
            RateLimited: all are busy and the queue is full, or became so by callers who have
                fewer queries in it.
        """
        while self._idle:
            worker = self._idle.popleft()
            if worker.is_running():
                worker.hold()
                self._begin(worker, self._waiting.start(caller))
                self._count()
                return worker
        if len(self._waiting) >= self._section.queue_length:
            refused = self._waiting.crowd_out(caller)
            if refused is None:
                raise self._refuse()
            if not refused.done():
                refused.set_exception(self._refuse())
        turn: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()
        self._waiting.push(caller, turn)
        self._count()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                worker = turn.result()
                self._end(worker)
                worker.let_go()
                self._offer(worker)  # it came in the same moment; pass it on
            raise
        finally:
            self._waiting.drop(caller, turn)
            self._count()

    def release(self, worker: WorkerProcess, *, finished: bool) -> None:
        """Gives a worker back.

        Args:
            finished: its query has ended in END or ERROR. A worker in the middle of one is
                killed: no engine can be trusted to stop at once.
        """
        self._end(worker)
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

    def _spawn(self) -> None:
        if self._closing:
            return
        folder = self._folder / str(next(self._numbers))
        try:
            worker = WorkerProcess(
                self._section, folder, self._readable, self._note_exit, self._bucket
            )
        except OSError as error:
            self._note_failure(error.strerror or type(error).__name__)
            self._keep(self._spawn_later())
            return
        self._live.add(worker)
        self._fresh.add(worker)
        worker.hold()
        self._keep(self._await_ready(worker, _START_S))

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
        self._offer(worker)

    def _offer(self, worker: WorkerProcess) -> None:
        """Hands a warm worker to who waits longest, or sets it aside."""
        if not worker.alive:
            return
        while (found := self._waiting.pop()) is not None:
            turn, waiting = found
            if not waiting.done():
                worker.hold()
                self._begin(worker, turn)
                waiting.set_result(worker)
                return
            self._waiting.finish(turn, 0.0)
        self._idle.append(worker)
        self._count()

    def _begin(self, worker: WorkerProcess, turn: Turn) -> None:
        now = asyncio.get_running_loop().time()
        self._turns[worker] = turn, now
        self._begun[worker] = now
        self._weigh()

    def _end(self, worker: WorkerProcess) -> None:
        turn, since = self._turns.pop(worker)
        self._waiting.finish(turn, asyncio.get_running_loop().time() - since)
        if worker in self._slow:
            self._speed_up(worker)

    def _weigh(self) -> None:
        """Lets long queries go behind those that began lately, and alone at full speed again."""
        if self._review is not None:
            self._review.cancel()
            self._review = None
        if not self._turns or self._closing:
            return
        loop = asyncio.get_running_loop()
        now, patience = loop.time(), _PATIENCE_S if self._restores else _LONG_PATIENCE_S
        for worker, (_, since) in self._turns.items():
            beside = any(
                now - begun < _NEIGHBOUR_S
                for other, begun in self._begun.items()
                if other is not worker
            )
            if beside and now - since >= patience and worker not in self._slow:
                self._slow.add(worker)
                slow_down(worker.pid)
            elif not beside and worker in self._slow and self._restores:
                self._speed_up(worker)
        self._review = loop.call_later(_REVIEW_S, self._weigh)

    def _speed_up(self, worker: WorkerProcess) -> None:
        self._slow.discard(worker)
        if worker.alive and not speed_up(worker.pid):
            worker.kill("worn")

    def _refuse(self) -> RateLimited:
        return RateLimited(
            f"All {self._section.workers} query workers are busy and "
            f"{self._section.queue_length} queries are waiting. Try again shortly.",
            headers={"Retry-After": "1"},
        )

    def _note_exit(self, worker: WorkerProcess) -> None:
        self._live.discard(worker)
        self._begun.pop(worker, None)
        with contextlib.suppress(ValueError):
            self._idle.remove(worker)
        if self._closing:
            return
        self._figures.ended(worker.reason or ("worn" if worker.status == 0 else "crashed"))
        if worker in self._fresh:
            # Unlike one that a query ended, the next may fare no better.
            self._note_failure(worker.read_complaint() or f"exit status {worker.status}")
        self._fresh.discard(worker)
        self._keep(self._clear_away(worker.folder))
        self._keep(self._spawn_later())
        self._count()

    def _note_failure(self, complaint: str) -> None:
        self._failures += 1
        self._complaint = complaint
        logger.warning("A query worker did not start: %s", complaint)

    async def _clear_away(self, folder: Path) -> None:
        # Gigabytes of scratch files take the kernel a while.
        await self._disk.run(shutil.rmtree, folder, ignore_errors=True)

    async def _spawn_later(self) -> None:
        if self._failures:
            await asyncio.sleep(min(_BACKOFF_S * 2**self._failures, _MOST_BACKOFF_S))
        self._spawn()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _count(self) -> None:
        self._figures.gauge(idle=len(self._idle), live=len(self._live), queue=len(self._waiting))
