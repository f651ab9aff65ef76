"""One query from its request to the last byte of its answer.

`Runner.open` goes as far as the first rows, so that whatever fails until then has a proper
error. What it gives streams the rest. A failure after that breaks the connection off: a
reader never takes a short answer for a whole one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from services.queryd.core.accept import Format
from services.queryd.core.frames import Kind, read_error
from services.queryd.core.limits import over_edge, over_time
from services.queryd.store.bucket import Bucket
from services.queryd.store.catalogue import Catalogue, resolve_tables
from services.queryd.store.figures import Figures
from services.queryd.store.pool import WorkerPool
from services.queryd.store.process import WorkerGone, WorkerProcess
from shared.errors import Internal, LakehouseError, Timeout
from shared.sections.data import QuerydSection
from shared.telling import RunTeller, hash_request, name_run

_KILLED = "deadline"


@dataclass(frozen=True, slots=True)
class Query:
    """What to run, with its limits settled."""

    sql: str
    params: list[Any] | dict[str, Any]
    form: Format
    timeout_s: float
    max_rows: int
    as_of: str | None = None
    # Whether the caller asked for no more than `max_rows`, so that cutting there is no loss.
    may_cut: bool = True
    # Whose it is, for a fair share of the workers.
    caller: str = ""


class Runner:
    """Runs queries on the pool's workers."""

    def __init__(
        self,
        section: QuerydSection,
        pool: WorkerPool,
        catalogue: Catalogue,
        figures: Figures,
        teller: RunTeller | None = None,
        bucket: Bucket | None = None,
    ) -> None:
        self.teller = teller
        self.section = section
        self.pool = pool
        self.catalogue = catalogue
        self.figures = figures
        self.bucket = bucket

    async def open(self, query: Query) -> Answer:
        """Runs a query up to its first rows.

        The caller must close the answer, however it ends.

        Raises:
            LakehouseError: whatever is wrong with the query, or its time being over.
        """
        answer = Answer(self, query)
        try:
            await answer.begin()
        except BaseException as error:
            answer.close(error)
            raise
        return answer

    async def read_all(self, query: Query) -> bytes:
        """A whole answer at once; for small ones."""
        parts: list[bytes] = []

        async def keep(chunk: bytes) -> None:
            parts.append(chunk)

        await (await self.open(query)).copy_to(keep)
        return b"".join(parts)


class Answer:
    """One query under way: holds its worker and its deadline."""

    def __init__(self, runner: Runner, query: Query) -> None:
        self.query = query
        # Whether rows are left out, where the body cannot tell and it was known in time.
        self.truncated: bool | None = None
        self._runner = runner
        self._loop = asyncio.get_running_loop()
        self._begun = time.perf_counter()
        self._until = self._loop.time() + query.timeout_s
        self._worker: WorkerProcess | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._finished = False
        self._closed = False
        self._rows = 0
        self._run_id = name_run()

    async def begin(self) -> None:
        """Plans, looks the datasets up, and waits for the first rows."""
        try:
            async with asyncio.timeout_at(self._until):
                try:
                    await self._start()
                except WorkerGone as gone:
                    if not gone.unread:
                        raise
                    # It had died before it was asked, and only that was not known yet.
                    self._let_go()
                    await self._start()
        except WorkerGone:
            raise self._explain_loss() from None
        except TimeoutError:
            raise over_time(self.query.timeout_s) from None

    async def _start(self) -> None:
        query = self.query
        worker = self._worker = await self._runner.pool.acquire(query.sql, query.caller)
        # Set on the worker, not on this task: it is to die even when nobody waits.
        self._alarm = self._loop.call_at(self._until, worker.kill, _KILLED)
        await worker.send(Kind.OPEN, {"sql": query.sql, "params": query.params})
        planned = await self._expect(Kind.PLAN)
        tables = await self._resolve(planned["datasets"])
        bucket = self._runner.bucket
        await worker.send(
            Kind.RUN,
            {
                "format": query.form.value,
                "max_rows": query.max_rows,
                "may_cut": query.may_cut,
                "tables": [asdict(table) for table in tables],
                "secret": bucket.secret if bucket else None,
            },
        )
        self.truncated = (await self._expect(Kind.HEAD))["truncated"]

    async def copy_to(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Passes the answer's bytes on as they come, and closes.

        The deadline holds for `write` too: a reader that stops reading gives the worker up.

        Raises:
            LakehouseError: the query failed in the middle, or its time was over.
        """
        assert self._worker is not None
        worker, read = self._worker, self._worker.read_some
        failure: BaseException | None = None
        try:
            async with asyncio.timeout_at(self._until):
                while True:
                    kind, length = await worker.receive()
                    if kind is not Kind.DATA:
                        break
                    while length:
                        chunk = await read(length)
                        length -= len(chunk)
                        await write(chunk)
                        # A fast reader never makes this wait; the daemon's others must not.
                        await asyncio.sleep(0)
                self._rows = (await self._read_last(kind, length))["rows"]
        except WorkerGone:
            failure = self._explain_loss()
            raise failure from None
        except TimeoutError:
            failure = over_time(self.query.timeout_s)
            raise failure from None
        except BaseException as error:
            failure = error
            raise
        finally:
            self.close(failure)

    def close(self, failure: BaseException | None = None) -> None:
        """Gives the worker back; calling it again is harmless."""
        if self._closed:
            return
        self._closed = True
        if isinstance(failure, Timeout) and not self._finished and self._worker is not None:
            self._worker.kill(_KILLED)
        self._let_go()
        outcome = "ok"
        if isinstance(failure, LakehouseError):
            outcome = failure.code
        elif failure is not None or not self._finished:
            outcome = "gone"
        seconds = time.perf_counter() - self._begun
        form = self.query.form.name.lower()
        self._runner.figures.query(form, outcome, seconds, self._rows)
        if self._runner.teller is not None:
            self._tell(self._runner.teller, form, outcome, seconds)

    def _tell(self, teller: RunTeller, form: str, outcome: str, seconds: float) -> None:
        known = {"ok": "ok", "timeout": "timeout", "gone": "cancelled"}
        teller.tell(
            "sql",
            seconds * 1000,
            status=known.get(outcome, "error"),
            error=None if outcome == "ok" else outcome,
            run_id=self._run_id,
            inputs_hash=hash_request(self.query.sql, self.query.params),
            attributes={"rows": self._rows, "format": form, "as_of": self.query.as_of},
        )

    def _let_go(self) -> None:
        """Gives the worker back, if there is one."""
        if self._alarm is not None:
            self._alarm.cancel()
        worker, self._worker = self._worker, None
        if worker is not None:
            self._runner.pool.release(worker, finished=self._finished)

    async def _resolve(self, names: list[str]) -> list[Any]:
        assert self._worker is not None
        try:
            bucket = self._runner.bucket
            return await resolve_tables(
                self._runner.catalogue, names, self.query.as_of, bucket.address if bucket else ""
            )
        except LakehouseError:
            # The worker has not begun, so it is as good as before.
            await self._worker.send(Kind.ABORT, {})
            self._finished = True
            raise

    async def _expect(self, wanted: Kind) -> Any:
        assert self._worker is not None
        kind, length = await self._worker.receive()
        if kind is wanted:
            return await self._worker.read_json(length)
        return await self._read_last(kind, length)

    async def _read_last(self, kind: Kind, length: int) -> Any:
        """The payload of END, or the error that came in its place."""
        assert self._worker is not None
        told = await self._worker.read_json(length)
        self._finished = kind in (Kind.END, Kind.ERROR)
        if kind is Kind.END:
            return told
        if kind is Kind.ERROR:
            raise read_error(told)
        self._worker.kill("spoke out of turn")
        raise Internal("The query's worker lost its place. Try again.")

    def _explain_loss(self) -> LakehouseError:
        assert self._worker is not None
        if self._worker.reason == _KILLED:
            return over_time(self.query.timeout_s)
        return over_edge(self._runner.section.worker_memory_mb)
