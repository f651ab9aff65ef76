"""One run under way: it drives the plan, writes down what happens, and tells who watches.

A node has completed when its end is durable, and only then does anything that waits for it
begin. A process that dies leaves nodes marked as running; the next one runs them again, or,
where that could do harm, fails them and says so.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from services.observerd.core.workflow.keys import hash_result
from services.observerd.core.workflow.plan import Plan
from services.observerd.core.workflow.progress import Execute, Prior, Progress, Settle
from services.observerd.core.workflow.retries import may_repeat
from services.observerd.core.workflow.states import ENDED, Problem, Result
from services.observerd.store.attempts import run_attempts
from services.observerd.store.figures import Figures
from services.observerd.store.modes import Call, Modes
from services.observerd.store.steps import NodeRow, RunRow, Steps, Write, save_node, save_run
from services.observerd.store.telling import tell_node, tell_run
from shared.errors import LakehouseError
from shared.reporter import Reporter
from shared.sections.observe import ObserverdSection

logger = logging.getLogger("lakehouse.observerd")

_RETRY_S = 1.0
Ending = Literal["cancelled", "deadline"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every run needs."""

    section: ObserverdSection
    steps: Steps
    modes: Modes
    figures: Figures
    reporter: Reporter


class Execution:
    """One run from its beginning, or from where it was left, to its end."""

    def __init__(self, run: RunRow, plan: Plan, around: Surroundings) -> None:
        self.run = run
        self.plan = plan
        self.version = 0
        self.changes: dict[str, int] = {}
        self.ended = asyncio.Event()
        self._around = around
        self._changed = asyncio.Event()
        self._ending: Ending | None = "cancelled" if run.cancel else None
        self._attempts: dict[str, asyncio.Task[Result]] = {}
        self._writes: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        for name in plan.nodes:
            run.nodes.setdefault(name, NodeRow())

    # --- watching

    async def wait_change(self, seen: int) -> None:
        """Waits until something has changed since version `seen`."""
        while self.version <= seen and not self.ended.is_set():
            await self._changed.wait()

    def _touch(self, name: str | None = None) -> None:
        self.version += 1
        if name is not None:
            self.changes[name] = self.version
        self._changed.set()
        self._changed = asyncio.Event()

    # --- ending early

    def cancel(self) -> None:
        """Ends the run as soon as what runs has let go."""
        self._end_early("cancelled")

    def _end_early(self, ending: Ending) -> None:
        if self._ending is None:
            self._ending = ending
        self._wake.set()
        for task in self._attempts.values():
            task.cancel()

    # --- running

    async def execute(self) -> None:
        """Runs to the end. Cancelled, it leaves the run as it is, to be gone on with later."""
        run = self.run
        began = time.monotonic()
        if run.status == "queued":
            run.status, run.started_at = "running", now()
            limit_s = self.plan.spec.timeout or self._around.section.run_timeout_s
            run.deadline = time.time() + limit_s
            self._touch()
            tell_run(self._around.reporter, self.run, self.plan, "started", None)
            # Nobody waits for it: it goes to the disk before anything that a node does.
            self._write_later(_make_save_run(self.run))
        timer = asyncio.get_running_loop().call_later(
            max(0.0, (run.deadline or time.time()) - time.time()), self._end_early, "deadline"
        )
        nodes: dict[asyncio.Task[tuple[str, Result]], str] = {}
        try:
            progress = await self._pick_up()
            await self._drive(progress, nodes)
            await self._conclude(progress, time.monotonic() - began)
        finally:
            timer.cancel()
            left: list[asyncio.Task[Any]] = [*nodes, *self._attempts.values(), *self._writes]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _pick_up(self) -> Progress:
        """Where the run stands by what was written down."""
        ended: dict[str, Result] = {}
        priors: dict[str, Prior] = {}
        for name, node in self.run.nodes.items():
            if node.epoch < self.run.epoch:
                if node.state == "completed" and node.cache_key is not None:
                    priors[name] = Prior(node.output, node.cache_key)
            elif node.state in ENDED:
                ended[name] = Result(node.state, node.output, node.skip_cause, node.error)
            elif node.state == "running" and not may_repeat(self.plan.nodes[name]):
                problem = Problem(
                    "interrupted",
                    "The daemon stopped while this node ran, and it is not known whether it took "
                    "effect. Resume the run to run it again.",
                )
                ended[name] = Result("failed", error=problem)
                await self._end_node(name, ended[name])
        return Progress(self.plan, _in_order(self.plan, ended), priors, frozenset(self.run.rerun))

    async def _drive(
        self, progress: Progress, nodes: dict[asyncio.Task[tuple[str, Result]], str]
    ) -> None:
        most = self.plan.spec.max_parallel or self._around.section.max_parallel
        waiting: list[str] = []
        while self._ending is None and not progress.done:
            waiting += progress.take_ready()
            while waiting and len(nodes) < most:
                name = waiting.pop(0)
                decided = progress.decide(name)
                if isinstance(decided, Settle):
                    self._settle_now(name, decided.result)
                    progress.settle(name, decided.result)
                    waiting += progress.take_ready()
                else:
                    task = asyncio.get_running_loop().create_task(self._run_node(name, decided))
                    nodes[task] = name
            if nodes:
                await self._collect(progress, nodes)
        while nodes:
            await self._collect(progress, nodes)

    async def _collect(
        self, progress: Progress, nodes: dict[asyncio.Task[tuple[str, Result]], str]
    ) -> None:
        """Waits until a node has ended, or the run is to end."""
        woken = asyncio.get_running_loop().create_task(self._wake.wait())
        try:
            # Once woken, only the nodes' own ends matter.
            waits = [*nodes] if self._wake.is_set() else [*nodes, woken]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
        for task in [task for task in nodes if task.done()]:
            del nodes[task]
            progress.settle(*task.result())

    async def _run_node(self, name: str, decided: Execute) -> tuple[str, Result]:
        node, row = self.plan.nodes[name], self.run.nodes[name]
        mode = self._around.modes.find(node.spec.mode)
        fresh = row.epoch < self.run.epoch
        row.epoch = self.run.epoch
        row.attempts = 0 if fresh else row.attempts
        row.failures = 0 if fresh else row.failures
        row.skip_cause = row.error = row.output = row.finished_at = None
        row.cache_key, row.because = decided.cache_key, decided.because
        begun = time.monotonic()

        async def begin() -> None:
            row.state, row.started_at = "running", row.started_at if row.attempts else now()
            row.attempts += 1
            row.executions += 1
            self._touch(name)
            if may_repeat(node):
                # Should it be lost, the node is run again, as it would be with it.
                self._around.steps.note(self._make_save_node(name))
            else:
                # That it may have begun must be known before it can take effect.
                await self._write(self._make_save_node(name))

        async def failed(failures: int, problem: Problem) -> None:
            row.failures, row.error = failures, problem
            self._touch(name)
            await self._write(self._make_save_node(name))

        call = Call(self.run.run_id, name, decided.cache_key)
        attempts = asyncio.get_running_loop().create_task(
            run_attempts(
                node, mode, decided.inputs, call, failures=row.failures, begin=begin, failed=failed,
                section=self._around.section, figures=self._around.figures,
            )
        )  # fmt: skip
        self._attempts[name] = attempts
        if self._ending is not None:
            attempts.cancel()
        try:
            await asyncio.wait([attempts])
        finally:
            del self._attempts[name]
            if not attempts.done():
                attempts.cancel()
        if not attempts.cancelled():
            result = attempts.result()
        elif self._ending == "deadline":
            result = Result("failed", error=Problem("timeout", "The run's time was over."))
        else:
            result = Result("cancelled")
        await self._end_node(name, result)
        tell_node(self._around.reporter, self.run, self.plan, name, time.monotonic() - begun)
        return name, result

    # --- writing down

    def _settle_now(self, name: str, result: Result) -> None:
        """Ends a node that is not run. It follows from what is durable, so nobody waits."""
        row = self.run.nodes[name]
        row.epoch, row.because = self.run.epoch, None
        if result.skip_cause != "prior_success":
            row.started_at = row.cache_key = None
            row.attempts = row.failures = 0
        row.take(result, now())
        self._count(name, result)
        self._touch(name)
        self._write_later(self._make_save_node(name))
        if result.skip_cause != "prior_success":
            tell_node(self._around.reporter, self.run, self.plan, name, None)

    async def _end_node(self, name: str, result: Result) -> None:
        ended = copy.copy(self.run.nodes[name])
        ended.take(result, now())
        ended.epoch = self.run.epoch
        run_id = self.run.run_id
        await self._write(lambda db: save_node(db, run_id, name, ended))
        # Known only now: what is shown as completed is durable.
        self.run.nodes[name] = ended
        self._count(name, result)
        self._touch(name)

    async def _conclude(self, progress: Progress, seconds: float) -> None:
        run = self.run
        for name in progress.cancel_rest():
            self._settle_now(name, Result("cancelled"))
        await asyncio.gather(*self._writes)
        status = progress.status()
        if self._ending == "cancelled":
            status = "cancelled"
        elif self._ending == "deadline":
            status = "failed"
            run.error = Problem("timeout", "The run did not finish within its time.")
        done = copy.copy(run)
        done.status, done.outcome, done.finished_at = status, progress.outcome(), now()
        done.result_hash = hash_result(
            {name: progress.results[name] for name in self.plan.nodes}, done.outcome
        )
        await self._write(_make_save_run(done))
        self.run = done
        self._around.figures.runs.labels(status).inc()
        tell_run(self._around.reporter, done, self.plan, status, seconds)
        self.ended.set()
        self._touch()

    async def give_up(self, problem: Problem) -> None:
        """Fails the run as it stands."""
        self.run.status, self.run.error, self.run.finished_at = "failed", problem, now()
        await self._write(_make_save_run(self.run))
        self._around.figures.runs.labels("failed").inc()
        self.ended.set()
        self._touch()

    def _count(self, name: str, result: Result) -> None:
        mode = self.plan.nodes[name].spec.mode
        self._around.figures.nodes.labels(mode, result.state).inc()

    def _make_save_node(self, name: str) -> Write:
        run_id, node = self.run.run_id, copy.copy(self.run.nodes[name])
        return lambda db: save_node(db, run_id, name, node)

    def _write_later(self, change: Write) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._write(change))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        return task

    async def _write(self, change: Write) -> None:
        """Writes until it is durable: a full disk holds the run up, and loses nothing of it."""
        while True:
            try:
                return await self._around.steps.write(change)
            except LakehouseError as error:
                logger.warning("Run %s waits for the disk: %s", self.run.run_id, error.message)
                await asyncio.sleep(_RETRY_S)


def start_execution(execution: Execution) -> asyncio.Task[None]:
    """Runs it apart from whoever asked: their deadline and request id are not the run's."""
    return asyncio.get_running_loop().create_task(_guard(execution), context=Context())


async def _guard(execution: Execution) -> None:
    try:
        await execution.execute()
    except Exception as error:
        # A defect of ours: the run is failed, not left under way for ever.
        logger.error("Run %s cannot go on", execution.run.run_id, exc_info=error)
        await execution.give_up(Problem("internal", "The runner failed; its log has more."))


def _make_save_run(run: RunRow) -> Write:
    as_it_is = copy.copy(run)
    return lambda db: save_run(db, as_it_is)


def now() -> str:
    """The time as RFC 3339."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _in_order(plan: Plan, ended: dict[str, Result]) -> dict[str, Result]:
    return {name: ended[name] for name in plan.nodes if name in ended}
