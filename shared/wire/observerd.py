"""observerd: events, figures over them, and the runs they make up."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from shared.wire.base import Request, Response

RUN_ID = r"^[A-Za-z0-9][A-Za-z0-9_.:\-]{0,127}$"

EventStatus = Literal["started", "ok", "error", "timeout", "cancelled", "skipped"]
Verdict = Literal["accepted", "partially_accepted", "rejected", "needs_human_review"]
ScorerStatus = Literal["ok", "error", "timeout", "unparseable", "out_of_range", "partial"]


class EventError(Request):
    """What went wrong: the error's code or class, and its message."""

    type: str = Field(min_length=1, max_length=200)
    message: str = Field(default="", max_length=4000)


class Tokens(Request):
    """Tokens that a step took."""

    prompt: int = Field(default=0, ge=0, le=2**53)
    completion: int = Field(default=0, ge=0, le=2**53)


class Event(Request):
    """One thing that happened in a run.

    `id` makes it safe to send again: a repeated id is not recorded twice. `status` is the
    engine's word, `verdict` the scorer's. A verdict counts only with `scorer_status` ok; any
    other makes it needs_human_review and drops the score (ADR-005). `accepted` needs
    `evidence`: the ids of what it rests on. `inputs`, `outputs` and `attributes` are kept as
    they are.
    """

    run_id: str = Field(pattern=RUN_ID)
    id: str | None = Field(default=None, min_length=1, max_length=200)
    node_id: str | None = Field(default=None, max_length=200)
    attempt: int = Field(default=1, ge=1, le=1_000_000)
    parent: str | None = Field(default=None, max_length=200)
    service: str | None = Field(default=None, max_length=100)
    mode: str | None = Field(default=None, max_length=100)
    task_signature: str | None = Field(default=None, max_length=200)
    config_hash: str | None = Field(default=None, max_length=200)
    corpus_hash: str | None = Field(default=None, max_length=200)
    model: str | None = Field(default=None, max_length=300)
    inputs_hash: str | None = Field(default=None, max_length=200)
    outputs_hash: str | None = Field(default=None, max_length=200)
    status: EventStatus
    verdict: Verdict | None = None
    scorer_status: ScorerStatus | None = None
    score: float | None = None
    evidence: list[str] = Field(default=[], max_length=1000)
    error: EventError | None = None
    latency_ms: float | None = Field(default=None, ge=0, le=1e12, allow_inf_nan=False)
    tokens: Tokens | None = None
    inputs: Any = None
    outputs: Any = None
    attributes: dict[str, Any] = {}


class EventBatch(Request):
    """Events to record, in order; all are checked before any is written."""

    events: list[Event] = Field(min_length=1)


class EventsAccepted(Response):
    """Durable. `seq` is the last one's; `duplicates` had been recorded before."""

    accepted: int
    duplicates: int = 0
    seq: int


class RecordedEvent(Response):
    """An event as it was recorded, with its place in the log and its time (microseconds)."""

    seq: int
    t: int
    event: dict[str, Any]


class EventList(Response):
    """Events by seq. `next_after` asks for what follows; null at the end of the log."""

    events: list[RecordedEvent]
    next_after: int | None = None


class Figures(Response):
    """One group of events.

    Latencies are of finished steps and right to within 4 %. `scored` events have a
    verdict from a scorer that worked; `coverage` is their part of the events that carry any
    verdict, and `accept_rate` is over the scored alone, null when there are none.
    """

    events: int
    by_status: dict[str, int]
    by_verdict: dict[str, int]
    by_scorer_status: dict[str, int]
    scored: int
    unscored: int
    coverage: float | None
    accept_rate: float | None
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    prompt_tokens: int
    completion_tokens: int


class LogFigures(Response):
    """The log beneath: what it holds, what it has lost, whether it can be written."""

    first_seq: int
    last_seq: int
    bytes: int
    dropped_records: int
    quarantined: int
    missing: int
    read_only: str | None


class LetterFigures(Response):
    """Dead letters: those that wait and their bytes, all that were kept, settled, given up.

    `refused` counts failures since the start for which there was no room.
    """

    waiting: int = 0
    bytes: int = 0
    kept: int = 0
    replayed: int = 0
    discarded: int = 0
    refused: int = 0


class ObserverStats(Response):
    """Figures over the events in the ring, whole and by mode, model and task signature.

    `ring` tells how many of the newest events that is; older ones were evicted from memory,
    never from the log. `other` says how many groups are not shown.
    """

    ring: int
    ring_capacity: int
    evicted: int
    duplicates: int
    total: Figures
    by_mode: dict[str, Figures]
    by_model: dict[str, Figures]
    by_task_signature: dict[str, Figures]
    other: dict[str, int]
    log: LogFigures
    letters: LetterFigures = LetterFigures()


class RunStep(Response):
    """One node of an assembled run: its latest event."""

    node_id: str | None
    attempts: int
    status: str
    verdict: str | None = None
    scorer_status: str | None = None
    score: float | None = None
    latency_ms: float | None = None
    error: dict[str, Any] | None = None
    last_seq: int


class ObservedRun(Response):
    """A run put together from its events.

    `status` is the worst of its steps' latest ones. `complete` is false when memory has lost
    some of its events (they are in the log from `first_seq` on), and null when it may have
    older ones than memory reaches back to.
    """

    run_id: str
    status: str
    events: int
    complete: bool | None
    first_seq: int
    last_seq: int
    started_at: int
    last_at: int
    modes: list[str]
    models: list[str]
    verdicts: dict[str, int]
    prompt_tokens: int
    completion_tokens: int
    steps: list[RunStep] = []


class ObservedRuns(Response):
    """Runs by their latest event, newest first."""

    runs: list[ObservedRun]
    next_cursor: str | None = None
