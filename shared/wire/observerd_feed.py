"""observerd: accepted runs on their way into the playbook, and refiners fed from what was seen."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, FiniteFloat

from shared.wire.base import Request, Response
from shared.wire.matrixd import CorpusName
from shared.wire.observerd import RUN_ID
from shared.wire.observerd_distill import FirewallHit, HeldOutPair
from shared.wire.observerd_judging import JudgedText, ScorerDriftAnswer
from shared.wire.observerd_refine import DecisionView, RefinerView


class ShownDocument(Request):
    """A document that a search showed."""

    corpus: CorpusName
    id: str = Field(min_length=1, max_length=512)


class KnownSearch(Request):
    """The search that a run was made from: what was asked of which corpora, what came."""

    query: str = Field(min_length=1, max_length=20_000)
    corpora: list[CorpusName] | None = Field(default=None, min_length=1, max_length=32)
    shown: list[ShownDocument] = Field(min_length=1, max_length=200)


class FeedRun(Request):
    """A judged run that may become evidence in the playbook.

    `score` is what POST /observer/distillation/score answered; null when nothing is on record.
    `parents` are the ids that the answer was made from: documents as `corpus/id` (or the id
    alone where that is clear), the query, episodes; null where nobody recorded them. Runs of
    one `task` are attempts at the same need, and become one episode: what a rejected one was
    made from alone counts against a document. Without `search` it is looked up: the search or
    composition that matrixd reported under the run's id, or the task's. `evidence` is kept
    with the run for audits.
    """

    id: str = Field(pattern=RUN_ID)
    task: str | None = Field(default=None, pattern=RUN_ID)
    question: str = Field(min_length=1, max_length=100_000)
    answer: str = Field(max_length=100_000)
    score: dict[str, Any] | None = None
    model: str = Field(default="", max_length=300)
    parents: list[str] | None = Field(default=None, max_length=1000)
    search: KnownSearch | None = None
    evidence: list[JudgedText] = Field(default=[], max_length=200)


class FeedRequest(Request):
    """Runs to be recorded in the playbook past the firewall.

    `held_out` has no default: say what may not be learnt from, or [] when nothing may not.
    `parents` is the lineage of artefacts beside the runs, `similar` names held-out ids with
    their cosine for a run. Under `coverage_floor` of scored runs nothing is recorded. The
    source of what is recorded is the scorer's; `label` keeps several of one scorer apart.
    """

    runs: list[FeedRun] = Field(min_length=1, max_length=2000)
    held_out: list[HeldOutPair] = Field(max_length=100_000)
    policy: Literal["accepted_only", "accepted_and_partial"] = "accepted_only"
    parents: dict[str, list[str]] = {}
    similar: dict[str, list[tuple[str, FiniteFloat]]] = {}
    coverage_floor: float = Field(default=0.9, ge=0, le=1)
    label: str = Field(default="", max_length=100)


class Fed(Response):
    """A run that is in the playbook, in its task's episode; `duplicate` when it was before."""

    run: str
    episode_id: str
    source: str
    helped: list[str]
    harmed: list[str]
    duplicate: bool
    retired: bool


class NotFed(Response):
    """A run that is not recorded, and why.

    `withdrawn` names the episodes that an earlier feed had recorded of it, before it was known
    to be held out; they are retired now.
    """

    run: str
    reason: str
    hits: list[FirewallHit] = []
    withdrawn: list[str] = []


class FeedAnswer(Response):
    """What was recorded and what was not. Every run is in one of the two lists."""

    recorded: list[Fed]
    withheld: list[NotFed]
    reasons: dict[str, int]
    runs: int
    scored: int
    coverage: float


class DrawRequest(Request):
    """Learn from rated runs that were observed, at most so many."""

    limit: int = Field(default=200, ge=1, le=2000)


class Drawn(Response):
    """What a refiner learnt from observed runs.

    `after` is the place in the event log that it has come to; `more` says that rated runs
    behind it wait. `skipped` counts rated runs that taught nothing, by reason.
    """

    looked: int
    learnt: int
    duplicates: int
    skipped: dict[str, int]
    decisions: list[DecisionView]
    after: int
    more: bool
    frozen: str | None


class GuardAnswer(Response):
    """What the scorer's drift means for a refiner: the test, and what was done about it."""

    drift: ScorerDriftAnswer
    action: Literal["frozen", "thawed", "none"]
    reason: str
    refiner: RefinerView
