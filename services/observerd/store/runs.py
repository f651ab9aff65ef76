"""All workflow runs: started, looked at, cancelled, resumed, and taken up again after a stop."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
from collections import deque
from collections.abc import AsyncGenerator

from services.observerd.core.workflow.plan import Plan
from services.observerd.core.workflow.states import ENDED, Problem
from services.observerd.core.workflow.validation import load_workflow, suggest
from services.observerd.store.execution import (
    Execution,
    Surroundings,
    now,
    start_execution,
)
from services.observerd.store.progress import stream_progress
from services.observerd.store.steps import (
    RunRow,
    insert_run,
    prune_runs,
    save_node,
    save_run,
)
from services.observerd.store.views import view_run, view_summary
from shared import context
from shared.errors import Conflict, Invalid, LakehouseError, NotFound, RateLimited
from shared.wire.observerd_workflows import (
    ResumeRequest,
    RunList,
    RunStarted,
    RunView,
    WorkflowSpec,
)

logger = logging.getLogger("lakehouse.observerd")

_PRUNE_EVERY = 100
# Left of a request's time for the answer to a wait. Seconds.
_MARGIN_S = 1.0


class Runs:
    """The runs of this daemon."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._section = around.section
        # Runs that have not ended, and those of them that wait for their turn.
        self._alive: dict[str, Execution] = {}
        self._queue: deque[str] = deque()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ended = 0
        self._changing = asyncio.Lock()
        self._closing = False

    # --- start and stop

    async def open(self) -> None:
        """Takes up the runs that had not ended."""
        for run_id in await self._around.steps.open():
            run = await self._around.steps.load(run_id)
            if run is None:
                continue
            try:
                plan = self._load_plan(run)
            except LakehouseError as error:
                # A mode that it needs is gone, say: it ends, and says why.
                run.status, run.error, run.finished_at = (
                    "failed", Problem(error.code, error.message, error.details), now(),
                )  # fmt: skip
                await self._around.steps.write(lambda db, run=run: save_run(db, run))
                continue
            self._enqueue(Execution(run, plan, self._around))

    async def close(self) -> None:
        """Stops where things are; the next start goes on from there."""
        self._closing = True
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._around.steps.close()

    # --- routes

    async def start(self, spec: WorkflowSpec) -> RunStarted:
        """Checks a workflow, makes its run durable, and begins it.

        Raises:
            Invalid: with everything that is wrong with it.
            Conflict: another run has this id.
            RateLimited: as many runs are waiting as may.
        """
        plan = load_workflow(spec, self._around.modes.facts)
        if len(self._queue) >= self._section.queued_runs:
            raise RateLimited(
                f"{len(self._queue)} runs are waiting already. Try again later.",
                headers={"Retry-After": "5"},
            )
        run_id = spec.run_id or f"run-{secrets.token_hex(8)}"
        definition = spec.model_dump_json(by_alias=True, exclude_defaults=True)
        run = RunRow(run_id, spec.name, definition, "queued", now())
        async with self._changing:
            existing = await self._around.steps.write(lambda db: insert_run(db, run))
            if existing is None:
                self._enqueue(Execution(run, plan, self._around))
        if existing is None:
            return RunStarted(run_id=run_id, status="queued")
        if existing.definition != definition:
            raise Conflict(
                f"There is another run {run_id!r}. Leave run_id out, or choose another one.",
                details={"run_id": run_id},
            )
        alive = self._alive.get(run_id)
        status = alive.run.status if alive else existing.status
        return RunStarted(run_id=run_id, status=status, duplicate=True)

    async def get(self, run_id: str, wait_s: float = 0.0) -> RunView:
        """A run as it stands, or as it ended within `wait_s` seconds.

        Raises:
            NotFound: there is none.
        """
        alive = self._alive.get(run_id)
        if alive is None:
            return view_run(await self._load(run_id))
        left = context.remaining_s()
        if left is not None:
            wait_s = min(wait_s, left - _MARGIN_S)
        if wait_s > 0:
            try:
                async with asyncio.timeout(wait_s):
                    await alive.ended.wait()
            except TimeoutError:
                pass
        return view_run(alive.run)

    async def list(
        self, limit: int, before: int | None, status: str | None, name: str | None
    ) -> RunList:
        """Runs, newest first."""
        found = await self._around.steps.list(limit + 1, before, status, name)
        more = len(found) > limit
        shown = [
            view_summary(self._alive[run.run_id].run if run.run_id in self._alive else run)
            for run in found[:limit]
        ]
        return RunList(runs=shown, next_cursor=str(found[limit - 1].number) if more else None)

    async def cancel(self, run_id: str) -> RunView:
        """Ends a run that is under way; one that has ended stays as it is.

        Raises:
            NotFound: there is none.
        """
        alive = self._alive.get(run_id)
        if alive is None:
            return view_run(await self._load(run_id))
        await self._around.steps.write(lambda db: _mark_cancelled(db, run_id))
        alive.run.cancel = True
        alive.cancel()
        if run_id in self._queue:
            # It has nothing to let go of, so its turn is now.
            self._queue.remove(run_id)
            self._begin(run_id)
        return await self.get(run_id, 10.0)

    async def resume(self, run_id: str, request: ResumeRequest) -> RunStarted:
        """Runs again what had not succeeded, what is named, and what depends on either.

        Raises:
            NotFound: there is no such run. Invalid: it has no such node.
            Conflict: it is under way, or there is nothing to do.
        """
        async with self._changing:
            alive = self._alive.get(run_id)
            if alive is not None and alive.ended.is_set():
                # It has ended, and its task is about to.
                await asyncio.wait([self._tasks[run_id]])
            elif alive is not None:
                raise Conflict(f"The run {run_id!r} is under way. Wait for its end, or cancel it.")
            run = await self._load(run_id)
            plan = self._load_plan(run)
            for name in request.rerun:
                if name not in plan.nodes:
                    hint = suggest(name, plan.nodes)
                    raise Invalid(f"The run has no node {name!r}{hint}")
            always = any(node.spec.always_run for node in plan.nodes.values())
            if run.status == "completed" and not request.rerun and not always:
                raise Conflict("The run has completed. Name the nodes to run again in rerun.")
            prepare_resume(run, request.rerun)
            await self._around.steps.write(lambda db: _save_all(db, run))
            self._enqueue(Execution(run, plan, self._around))
        return RunStarted(run_id=run_id, status="queued")

    async def watch(self, run_id: str) -> AsyncGenerator[bytes]:
        """A run's progress as server-sent events.

        Raises:
            NotFound: there is none; before the first event.
        """
        alive = self._alive.get(run_id)
        ended = None if alive is not None else await self._load(run_id)
        return stream_progress(alive, ended)

    # --- inside

    def _enqueue(self, execution: Execution) -> None:
        self._alive[execution.run.run_id] = execution
        self._queue.append(execution.run.run_id)
        self._pump()

    def _pump(self) -> None:
        while self._queue and len(self._tasks) < self._section.active_runs and not self._closing:
            self._begin(self._queue.popleft())

    def _begin(self, run_id: str) -> None:
        task = start_execution(self._alive[run_id])
        self._tasks[run_id] = task
        self._around.figures.active.set(len(self._tasks))
        task.add_done_callback(lambda _: self._finish(run_id))

    def _finish(self, run_id: str) -> None:
        del self._tasks[run_id]
        self._around.figures.active.set(len(self._tasks))
        if self._closing:
            return
        self._alive.pop(run_id, None)
        self._ended += 1
        if self._ended % _PRUNE_EVERY == 0:
            asyncio.get_running_loop().create_task(self._prune()).add_done_callback(_read_failure)
        self._pump()

    async def _prune(self) -> None:
        keep = self._section.keep_runs
        await self._around.steps.write(lambda db: prune_runs(db, keep))

    async def _load(self, run_id: str) -> RunRow:
        run = await self._around.steps.load(run_id)
        if run is None:
            raise NotFound(f"There is no run {run_id!r}. GET /observer/workflows/runs lists them.")
        return run

    def _load_plan(self, run: RunRow) -> Plan:
        spec = WorkflowSpec.model_validate_json(run.definition)
        return load_workflow(spec, self._around.modes.facts)


def prepare_resume(run: RunRow, rerun: list[str]) -> None:
    """Puts a run that has ended back to its beginning; what succeeded keeps its output."""
    run.epoch += 1
    run.rerun = rerun
    run.status, run.cancel = "queued", False
    run.outcome = run.error = run.result_hash = run.finished_at = run.deadline = None
    for node in run.nodes.values():
        if node.state in ENDED and node.state != "completed":
            node.state, node.skip_cause, node.error = "pending", None, None
            node.finished_at = None


def _save_all(db: sqlite3.Connection, run: RunRow) -> None:
    save_run(db, run)
    for name, node in run.nodes.items():
        save_node(db, run.run_id, name, node)


def _mark_cancelled(db: sqlite3.Connection, run_id: str) -> None:
    db.execute(
        "update runs set cancel = 1 where run_id = ? and status in ('queued', 'running')",
        (run_id,),
    )


def _read_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.warning("Old runs were not removed: %s", error)
