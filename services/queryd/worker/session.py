"""The worker's life: settle every limit, then one query at a time.

What a query may ever do is settled before the first one arrives.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from typing import Any

from services.queryd.core.accept import Format
from services.queryd.core.frames import Kind, error_payload
from services.queryd.core.limits import over_rows
from services.queryd.core.problems import explain_problem, read_problem
from services.queryd.core.statement import Statement
from services.queryd.core.views import Table
from services.queryd.worker import sandbox
from services.queryd.worker.channel import Channel, Hangup
from services.queryd.worker.engine import Engine
from services.queryd.worker.results import Scribe, make_result
from services.queryd.worker.settings import WorkerSettings
from shared.errors import LakehouseError

# Beyond what DuckDB is told to keep to: thread stacks and what the allocator sets aside.
_SLACK_BYTES = 128 << 20
# A worker that a query left this much larger than it was is replaced by a fresh one.
_SWOLLEN_BYTES = 256 << 20
# Deep trees are refused by the parser (1,000 levels of expression); this reads them first.
_RECURSION = 6000
_WARM_SQL = "SELECT [1, {'a': 1.5::DECIMAL(9, 2), 'b': 'x'}.a::INTEGER], now(), 'x'"


class Session:
    """The worker's life: frames in, answers out, a fresh database between queries."""

    def __init__(self, settings: WorkerSettings, channel: Channel, gauge: sandbox.MemoryGauge):
        self.settings = settings
        self.channel = channel
        self.gauge = gauge
        self.scribe = Scribe(settings.memory_mb)
        self.engine = Engine(settings)
        self.base = gauge.read()[1]

    def serve(self) -> None:
        """Takes queries until the daemon hangs up or this worker is worn."""
        while True:
            worn = self.gauge.read()[1] - self.base > _SWOLLEN_BYTES
            self.channel.send(Kind.READY, {"worn": worn})
            kind, request = self.channel.receive()
            if kind is not Kind.OPEN:
                raise Hangup
            begun = time.perf_counter()
            statement: Statement | None = None
            try:
                statement, datasets = self.engine.plan(request["sql"], request["params"])
                self.channel.send(Kind.PLAN, {"datasets": datasets})
                kind, run = self.channel.receive()
                if kind is Kind.RUN:
                    self._run(statement, request["params"], run, begun)
            except Hangup:
                raise
            except LakehouseError as error:
                self.channel.send(Kind.ERROR, error_payload(error))
            except BaseException as error:
                self._tell(error, request["sql"], statement)
            if self.engine.used:
                self._renew()

    def _run(self, statement: Statement, params: Any, run: dict[str, Any], begun: float) -> None:
        form = Format(run["format"])
        tables = [
            Table(
                t["name"],
                tuple((n, k) for n, k in t["columns"]),
                tuple(t["files"]),
                t["row_bytes"],
            )
            for t in run["tables"]
        ]
        lossless = form not in (Format.ARROW, Format.PARQUET)
        self.engine.prepare(tables, lossless=lossless, secret=run.get("secret"))
        columns, reader, rows = self.engine.run(statement, params)
        most = run["max_rows"]
        result = make_result(form, reader, columns, self.scribe, most, rows, begun)
        told: list[bool] = []

        def begin(truncated: bool | None) -> None:
            told.append(form.tells_cuts_in_band or truncated is not None)
            self.channel.send(Kind.HEAD, {"truncated": truncated})

        result.run(self.channel.send_data, begin)
        if result.truncated and not (all(told) or run["may_cut"]):
            raise over_rows(most)
        self.channel.send(Kind.END, {"rows": result.rows, "truncated": result.truncated})

    def _tell(self, error: BaseException, sql: str, statement: Statement | None) -> None:
        problem = read_problem(type(error).__name__, str(error))
        settings = self.settings
        told = explain_problem(problem, sql, statement, settings.memory_mb, settings.temp_mb)
        self.channel.send(Kind.ERROR, error_payload(told))
        if not problem.harmless:
            raise Hangup  # memory or the engine itself is in doubt: a fresh process is sure

    def _renew(self) -> None:
        """A new database for the next query; nothing of the last one stays."""
        self.scribe.forget()
        self.engine.close()
        for name in os.listdir(self.settings.scratch):
            path = os.path.join(self.settings.scratch, name)
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        self.engine = Engine(self.settings)


def try_out(settings: WorkerSettings) -> None:
    """Runs one small query in each usual way, and leaves nothing open.

    What that loads and sets up is there in every copy of this process, so that a worker's first
    caller is answered as fast as any.
    """
    scribe, engine = Scribe(settings.memory_mb), Engine(settings)
    begun = time.perf_counter()
    statement = Statement(_WARM_SQL, "", 0)
    for form in (Format.JSON, Format.ARROW, Format.NDJSON, Format.CSV, Format.PARQUET):
        columns, reader, rows = engine.run(statement, [])
        result = make_result(form, reader, columns, scribe, 10, rows, begun)
        result.run(lambda parts: None, lambda truncated: None)
        scribe.forget()
    engine.close()
    scribe.close()


def run_worker(settings: WorkerSettings) -> None:
    """Settles limits and serves until the daemon hangs up; ends the process then."""
    sandbox.bind_to_parent(settings.parent)
    sandbox.limit_resources(settings.files, settings.temp_mb << 20)
    sys.setrecursionlimit(_RECURSION)
    channel = Channel(settings.fd)
    gauge = sandbox.MemoryGauge()
    os.chdir(settings.scratch)
    # Before the engine starts threads: those that exist already would stay outside.
    sandbox.close_file_system(settings.readable, settings.scratch, settings.ports)
    session = Session(settings, channel, gauge)
    sandbox.limit_memory(gauge, (settings.memory_mb << 20) + _SLACK_BYTES)
    with contextlib.suppress(Hangup):
        session.serve()
    # Without taking the interpreter down in order: a database in the middle of a query may not.
    os._exit(0)
