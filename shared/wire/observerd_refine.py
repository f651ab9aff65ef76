"""observerd: configurations that are refined from runs whose right answers are known."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shared.wire.base import Request, Response

REFINER = r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}$"
Knob = int | float | bool | str


class RefinePolicy(Request):
    """How bold refinement is.

    `alpha` bounds the probability that something which is no better is ever promoted; a
    promotion that does no harm stands `watch_length` runs on average before it is taken back
    by mistake; nothing is decided before `minimum` replays; `held_out` of the queries only
    measure; what is slower than `latency_ms` at p95 is not promoted.
    """

    alpha: float = Field(default=0.05, ge=1e-6, lt=0.5)
    watch_length: float = Field(default=2000.0, ge=100)
    minimum: int = Field(default=30, ge=5, le=10_000)
    held_out: float = Field(default=0.2, ge=0, le=0.9)
    latency_ms: float = Field(default=1000.0, gt=0)


class ObservedSource(Request):
    """Which observed runs a refiner draws from: searches that matrixd reported under this mode.

    With `task_signature` only those of that signature. Runs up to the place `after` in the
    event log are none of them.
    """

    mode: Literal["matrix.search", "matrix.compose"] = "matrix.search"
    task_signature: str | None = Field(default=None, min_length=1, max_length=200)
    after: int = Field(default=0, ge=0, le=2**53)


class RefinerSpec(Request):
    """What is refined: how `corpora` are searched.

    `knobs` declares the values that may be tried, in order: `lexical` and `candidates` (as of
    a corpus's tuning) and `use_playbook`. `start` has a value for each. With `apply` a
    promotion tunes the corpora themselves. `observed` says which runs POST …/draw takes.
    """

    corpora: list[str] = Field(min_length=1, max_length=32)
    knobs: dict[str, list[Knob]] = Field(min_length=1)
    start: dict[str, Knob]
    policy: RefinePolicy = RefinePolicy()
    apply: bool = True
    observed: ObservedSource = ObservedSource()


class Judged(Request):
    """A document that is known to answer a query: 1, or to what degree."""

    corpus: str = Field(min_length=1, max_length=100)
    id: str = Field(min_length=1, max_length=512)
    grade: float = Field(default=1.0, gt=0, le=100)


class LoggedRun(Request):
    """A run to learn from: what was asked, and what turned out to be right."""

    run_id: str = Field(min_length=1, max_length=128)
    query: str = Field(min_length=1, max_length=20_000)
    relevant: list[Judged] = Field(min_length=1, max_length=1000)


class Reason(Request):
    """Why something is done by hand."""

    reason: str = Field(min_length=1, max_length=1000)


class Pin(Reason):
    """A configuration to use from now on, chosen by hand."""

    values: dict[str, Knob]


class DecisionView(Response):
    """A decision: what, why, on what evidence. `replaced` is what was the incumbent."""

    number: int
    kind: Literal["promoted", "rolled_back", "dropped", "held_back", "frozen", "thawed", "pinned"]
    values: dict[str, Knob]
    replaced: dict[str, Knob] | None
    reason: str
    evidence: dict[str, float]


class Replayed(Response):
    """What a configuration made of a run: nDCG@10 and milliseconds."""

    values: dict[str, Knob]
    score: float
    latency_ms: float


class Learnt(Response):
    """Answer to a logged run: its replays, the incumbent's first, and what was decided."""

    duplicate: bool
    held_out: bool
    replays: list[Replayed]
    decisions: list[DecisionView]


class ContestView(Response):
    """A challenger: its mean difference to the incumbent and the evidence for it.

    `log_evidence` must reach `log_needed` (natural logarithms).
    """

    values: dict[str, Knob]
    runs: int
    mean_difference: float
    log_evidence: float
    log_needed: float
    held_out_runs: int
    held_out_difference: float
    latency_p95_ms: float
    dropped: bool


class RefinerView(Response):
    """A refiner: its spec, the configuration in use, and how its challengers stand.

    `applied` is false while the corpora could not be tuned to the incumbent yet; `drawn` is
    the place in the event log up to which observed runs were taken.
    """

    name: str
    spec: RefinerSpec
    incumbent: dict[str, Knob]
    config_hash: str
    runs: int
    skipped: int
    frozen: str | None
    applied: bool
    drawn: int = 0
    challengers: list[ContestView]
    decisions: list[DecisionView]


class RefinerList(Response):
    """All refiners by name."""

    refiners: list[RefinerView]
