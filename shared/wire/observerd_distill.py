"""observerd: exports of judged runs as training data, and audits of the scorer."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, FiniteFloat

from shared.wire.base import Request, Response

Id = Field(min_length=1, max_length=512)
Decision = Literal["clear", "quarantined", "stopped"]


class HeldOutPair(Request):
    """A prompt and its answer that neither may leave, nor anything made from them."""

    id: str = Id
    prompt: str = Field(max_length=100_000)
    answer: str = Field(max_length=100_000)


class ExportRun(Request):
    """A judged run that may become a row.

    `score` is what POST /observer/distillation/score answered, null where nothing is on
    record: such a run stays and lowers the coverage. `parents` are the ids that the run was
    made from, null where nobody recorded them.
    """

    id: str = Id
    prompt: str = Field(min_length=1, max_length=100_000)
    answer: str = Field(max_length=100_000)
    score: dict[str, Any] | None = None
    system: str = Field(default="", max_length=100_000)
    model: str = Field(default="", max_length=300)
    parents: list[str] | None = Field(default=None, max_length=1000)


class ExportRequest(Request):
    """Runs to be exported past the firewall.

    `parents` is the lineage of artefacts beside the runs; `similar` names, for a run, held-out
    ids with their cosine, where embeddings were compared. Under `coverage_floor` of scored
    runs nothing is exported.
    """

    runs: list[ExportRun] = Field(max_length=100_000)
    held_out: list[HeldOutPair] = Field(default=[], max_length=100_000)
    policy: Literal["accepted_only", "accepted_and_partial"] = "accepted_only"
    parents: dict[str, list[str]] = {}
    similar: dict[str, list[tuple[str, FiniteFloat]]] = {}
    config: dict[str, Any] = {}
    coverage_floor: float = Field(default=0.9, ge=0, le=1)


class FirewallHit(Response):
    """A test that spoke: on which part of the row, against which held-out pair, how strongly."""

    test: str
    where: str
    held_out: str
    value: float
    decision: Decision


class Withheld(Response):
    """A row that did not pass the firewall, and why."""

    row: str
    decision: Decision
    hits: list[FirewallHit]


class ExportAnswer(Response):
    """The files as they are to be written, the manifest (also among them), what was withheld.

    The same runs, in any order, under the same settings give the same `run_hash` and bytes.
    """

    run_hash: str
    files: dict[str, str]
    manifest: dict[str, Any]
    withheld: list[Withheld]


class Audited(Request):
    """A run judged twice; `judge` is null where the second judge gave no usable answer.

    `run` names it, so that no other audit by the same judge counts it again.
    """

    run: str | None = Field(default=None, min_length=1, max_length=512)
    scorer: str = Field(min_length=1, max_length=100)
    judge: str | None = Field(default=None, min_length=1, max_length=100)


class AuditSample(Request):
    """How the audited runs were drawn: by which seed, out of how many."""

    seed: int = Field(ge=0, le=2**63 - 1)
    population: int = Field(ge=1, le=2**53)


class AuditRequest(Request):
    """How a scorer's verdicts stood up to another judge.

    `held_out` names the set by its hash, as a manifest does; `runs` is how many runs were to
    be judged, those given unless said. With `sample` every verdict names its run, and one that
    an earlier audit of this scorer by this judge counted is 409.
    """

    held_out: str = Field(min_length=1, max_length=200)
    scorer: str = Field(min_length=1, max_length=200)
    judge: str = Field(min_length=1, max_length=300)
    verdicts: list[Audited] = Field(min_length=1, max_length=100_000)
    runs: int | None = Field(default=None, ge=1, le=10_000_000)
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    sample: AuditSample | None = None


class BaselineView(Response):
    """One audit in the chain; `prev` is the hash of the one before."""

    seq: int
    held_out: str
    scorer: str
    judge: str
    metrics: dict[str, Any]
    prev: str
    hash: str


class BaselineList(Response):
    """The chain of audits, oldest first, and what is wrong with it."""

    baselines: list[BaselineView]
    problems: list[str]
