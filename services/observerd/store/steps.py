"""What is durable of workflow runs: one SQLite file, every commit synced.

`Steps` is all that the executor knows of it. Writes that are handed in while one commit is
under way go together into the next, in the order in which they came.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from services.observerd.core.workflow.states import Problem, Result
from shared.errors import InsufficientStorage, Unavailable
from shared.pool import BlockingPool
from shared.wire.observerd_workflows import NodeState, RunStatus, SkipCause

T = TypeVar("T")
Write = Callable[[sqlite3.Connection], Any]

# Longest that a noted change waits for somebody else's commit. Seconds.
_NOTE_S = 0.2

FILE = "workflows.sqlite"
LAYOUT = 1
_SCHEMA = """
create table runs (
    number integer primary key, run_id text not null unique, name text not null,
    definition text not null, status text not null, outcome text, error text,
    result_hash text, epoch integer not null default 0, rerun text not null default '[]',
    cancel integer not null default 0, created_at text not null, started_at text,
    deadline real, finished_at text);
create index unfinished on runs (status) where status in ('queued', 'running');
create table nodes (
    run_id text not null, node_id text not null, state text not null, epoch integer not null,
    attempts integer not null default 0, executions integer not null default 0,
    failures integer not null default 0, skip_cause text, output text, error text,
    cache_key text, because text, started_at text, finished_at text,
    primary key (run_id, node_id)) without rowid;
"""


@dataclass(slots=True)
class NodeRow:
    """A node as it stands. `epoch` is the resume in which it last changed."""

    state: NodeState = "pending"
    epoch: int = 0
    attempts: int = 0
    executions: int = 0
    failures: int = 0
    skip_cause: SkipCause | None = None
    output: Any = None
    error: Problem | None = None
    cache_key: str | None = None
    because: str | None = None
    started_at: str | None = None
    finished_at: str | None = None

    def take(self, result: Result, at: str) -> None:
        """Ends the node."""
        self.state = result.state
        self.skip_cause = result.skip_cause
        self.output = result.output
        self.error = result.error
        self.finished_at = at


@dataclass(slots=True)
class RunRow:
    """A run as it stands, with its nodes. `definition` is the workflow as JSON."""

    run_id: str
    name: str
    definition: str
    status: RunStatus
    created_at: str
    number: int = 0
    outcome: Any = None
    error: Problem | None = None
    result_hash: str | None = None
    epoch: int = 0
    rerun: list[str] = field(default_factory=list[str])
    cancel: bool = False
    started_at: str | None = None
    deadline: float | None = None
    finished_at: str | None = None
    nodes: dict[str, NodeRow] = field(default_factory=dict[str, NodeRow])


class Steps:
    """The file. All of it is called from the event loop; one thread does the work."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._pool = BlockingPool("observerd-steps", 1, 10_000)
        self._db: sqlite3.Connection | None = None
        self._waiting: list[tuple[Write, asyncio.Future[Any]]] = []
        self._urgent = False
        self._flushing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> list[str]:
        """Opens or makes the file; gives the runs that have not ended, oldest first.

        Raises:
            Unavailable: the file is damaged.
        """
        return await self._pool.run(self._open)

    def _open(self) -> list[str]:
        try:
            db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._db = db
            db.execute("pragma journal_mode = wal")
            db.execute("pragma synchronous = full")
            if db.execute("pragma user_version").fetchone()[0] != LAYOUT:
                db.executescript(f"begin; {_SCHEMA} pragma user_version = {LAYOUT}; commit;")
            rows = db.execute(
                "select run_id from runs where status in ('queued', 'running') order by number"
            )
            return [str(row[0]) for row in rows]
        except sqlite3.DatabaseError as error:
            raise Unavailable(
                f"{FILE} in observerd's data directory cannot be read ({error}). Restore it from "
                "a backup, or move it away to start without the old runs."
            ) from error

    async def close(self) -> None:
        """Writes what waits and closes the file."""
        self._flush_soon()
        if self._flushing is not None:
            await asyncio.gather(self._flushing, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        if self._db is not None:
            await self._pool.run(self._db.close)
            self._db = None
        self._pool.close()

    # --- writing

    async def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Carries out one change; durable on return. Changes keep their order.

        Raises:
            InsufficientStorage: the disk is full or broken; nothing was changed.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, done))
        self._flush_soon()
        return await asyncio.shield(done)

    def note(self, change: Write) -> None:
        """Takes a change that may be lost, to go with the next commit; it does not ask for one."""
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, done))
        self._flush_later()

    def _flush_soon(self) -> None:
        self._urgent = bool(self._waiting)
        if self._urgent and self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._flush())

    def _flush_later(self) -> None:
        if self._flushing is None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_NOTE_S, self._take_notes)

    def _take_notes(self) -> None:
        self._timer = None
        self._flush_soon()

    async def _flush(self) -> None:
        while self._urgent:
            self._urgent = False
            group, self._waiting = self._waiting, []
            try:
                results = await self._pool.run(self._apply, [change for change, _ in group])
            except Exception as error:
                for _, done in group:
                    _fail(done, error)
            else:
                for (_, done), result in zip(group, results, strict=True):
                    done.set_result(result)
        self._flushing = None
        if self._waiting:
            self._flush_later()

    def _apply(self, changes: list[Write]) -> list[Any]:
        with self._guarded() as db:
            db.execute("begin immediate")
            try:
                results = [change(db) for change in changes]
                db.execute("commit")
            except BaseException:
                if db.in_transaction:
                    db.execute("rollback")
                raise
            return results

    @contextmanager
    def _guarded(self) -> Generator[sqlite3.Connection]:
        if self._db is None:
            raise Unavailable("The runs are not open: the daemon is starting or stopping.")
        try:
            yield self._db
        except sqlite3.Error as error:
            raise InsufficientStorage(
                f"The runs' database cannot be used ({error}). Make room or repair the disk, "
                "then send the same request again."
            ) from error

    # --- reading

    async def load(self, run_id: str) -> RunRow | None:
        """A run with its nodes, or None."""
        return await self._pool.run(self._load, run_id)

    def _load(self, run_id: str) -> RunRow | None:
        with self._guarded() as db:
            return load_run(db, run_id)

    async def list(
        self, limit: int, before: int | None, status: str | None, name: str | None
    ) -> list[RunRow]:
        """Runs, newest first, without their nodes."""
        return await self._pool.run(self._list, limit, before, status, name)

    def _list(
        self, limit: int, before: int | None, status: str | None, name: str | None
    ) -> list[RunRow]:
        with self._guarded() as db:
            rows = db.execute(
                f"select {_RUN_COLUMNS} from runs where number < ? "
                "and (? is null or status = ?) and (? is null or name = ?) "
                "order by number desc limit ?",
                (before if before is not None else 2**62, status, status, name, name, limit),
            )
            return [_make_run(row) for row in rows]


_RUN_COLUMNS = (
    "run_id, name, definition, status, created_at, number, outcome, error, result_hash, epoch, "
    "rerun, cancel, started_at, deadline, finished_at"
)
_NODE_COLUMNS = (
    "state, epoch, attempts, executions, failures, skip_cause, output, error, cache_key, "
    "because, started_at, finished_at"
)


def load_run(db: sqlite3.Connection, run_id: str) -> RunRow | None:
    """A run with its nodes, or None."""
    found = db.execute(f"select {_RUN_COLUMNS} from runs where run_id = ?", (run_id,)).fetchone()
    if found is None:
        return None
    run = _make_run(found)
    rows = db.execute(f"select node_id, {_NODE_COLUMNS} from nodes where run_id = ?", (run_id,))
    for name, *columns in rows:
        node = NodeRow(*columns)
        node.output = _read(columns[6])
        node.error = _read_problem(columns[7])
        run.nodes[name] = node
    return run


def insert_run(db: sqlite3.Connection, run: RunRow) -> RunRow | None:
    """Adds a run; gives the one that has its id already, and then changes nothing."""
    existing = load_run(db, run.run_id)
    if existing is None:
        db.execute(
            "insert into runs (run_id, name, definition, status, created_at) "
            "values (?, ?, ?, ?, ?)",
            (run.run_id, run.name, run.definition, run.status, run.created_at),
        )
    return existing


def save_run(db: sqlite3.Connection, run: RunRow) -> None:
    """Writes how a run stands, without its nodes."""
    db.execute(
        "update runs set status = ?, outcome = ?, error = ?, result_hash = ?, epoch = ?, "
        "rerun = ?, cancel = ?, started_at = ?, deadline = ?, finished_at = ? where run_id = ?",
        (
            run.status,
            _write(run.outcome),
            _write_problem(run.error),
            run.result_hash,
            run.epoch,
            json.dumps(run.rerun),
            run.cancel,
            run.started_at,
            run.deadline,
            run.finished_at,
            run.run_id,
        ),
    )


def save_node(db: sqlite3.Connection, run_id: str, name: str, node: NodeRow) -> None:
    """Writes how a node stands."""
    db.execute(
        f"insert or replace into nodes (run_id, node_id, {_NODE_COLUMNS}) "
        "values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            run_id,
            name,
            node.state,
            node.epoch,
            node.attempts,
            node.executions,
            node.failures,
            node.skip_cause,
            _write(node.output),
            _write_problem(node.error),
            node.cache_key,
            node.because,
            node.started_at,
            node.finished_at,
        ),
    )


def prune_runs(db: sqlite3.Connection, keep: int) -> int:
    """Removes all but the newest `keep` runs that have ended; gives how many went."""
    ended = "status in ('completed', 'failed', 'cancelled')"
    oldest = db.execute(
        f"select number from runs where {ended} order by number desc limit 1 offset ?", (keep,)
    ).fetchone()
    if oldest is None:
        return 0
    gone = f"select run_id from runs where number <= ? and {ended}"
    db.execute(f"delete from nodes where run_id in ({gone})", oldest)
    return db.execute(f"delete from runs where number <= ? and {ended}", oldest).rowcount


def _make_run(columns: tuple[Any, ...]) -> RunRow:
    run = RunRow(*columns)
    run.outcome = _read(columns[6])
    run.error = _read_problem(columns[7])
    run.rerun = json.loads(columns[10])
    run.cancel = bool(columns[11])
    return run


def _write(value: Any) -> str | None:
    return None if value is None else json.dumps(value, separators=(",", ":"))


def _read(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _write_problem(problem: Problem | None) -> str | None:
    if problem is None:
        return None
    return json.dumps([problem.type, problem.message, problem.details], default=str)


def _read_problem(text: str | None) -> Problem | None:
    return None if text is None else Problem(*json.loads(text))


def _fail(done: asyncio.Future[Any], error: Exception) -> None:
    done.set_exception(error)
    # Read, so that a failure whose caller went away is not reported as unhandled.
    done.exception()
