"""observerd: judging an answer, and telling drift from noise."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, FiniteFloat

from shared.wire.base import Request, Response
from shared.wire.observerd import RUN_ID, ScorerStatus, Verdict


class JudgedText(Request):
    """A piece of evidence, or an answer that is known to be good."""

    id: str = Field(min_length=1, max_length=512)
    text: str = Field(min_length=1, max_length=100_000)


class ScoreRequest(Request):
    """A run to be judged: what was asked, what was answered, what the answer was made from.

    Where no good answer is known, `neighbours` is what a search with the answer's text brings
    up, without the answer itself. With `corpora` observerd searches them through matrixd, with
    the question where no evidence is given, and with the answer where no neighbours are.
    """

    run_id: str = Field(pattern=RUN_ID)
    question: str = Field(min_length=1, max_length=100_000)
    answer: str = Field(max_length=100_000)
    evidence: list[JudgedText] = Field(default=[], max_length=200)
    references: list[JudgedText] = Field(default=[], max_length=50)
    neighbours: list[JudgedText] = Field(default=[], max_length=200)
    corpora: list[str] = Field(default=[], max_length=50)


class Scored(Response):
    """The verdict and its reasons. With any status but ok it is a review without a score.

    `offered` are the ids that the scorer was shown, `raw_score` what it gave also where that
    counts for nothing. An export takes this as it is. `letter` names the dead letter under
    which a failed scoring waits for a replay.
    """

    run_id: str
    scorer: str
    scorer_status: ScorerStatus
    verdict: Verdict
    score: float | None
    reasons: list[str]
    evidence: list[str]
    offered: list[str]
    raw_score: float | None
    letter: str | None = None


Kind = Literal["numeric", "categorical", "embedding", "ranking"]
Figure = float | None


class DriftRow(Request):
    """One logged thing: the session that it belongs to, and its values by feature."""

    session: str = Field(min_length=1, max_length=200)
    values: dict[str, Any]


class DriftRequest(Request):
    """Two samples to be told apart: numbers, texts, vectors or lists of ids, by `kinds`.

    Rows of one session are taken as one, because they hang together. `seed` fixes the dice.
    """

    reference: list[DriftRow] = Field(max_length=200_000)
    current: list[DriftRow] = Field(max_length=200_000)
    kinds: dict[str, Kind] = Field(min_length=1, max_length=100)
    alpha: FiniteFloat = Field(default=0.05, ge=1e-6, lt=0.5)
    correction: Literal["holm", "bh", "none"] = "holm"
    min_sessions: int = Field(default=30, ge=10, le=100_000)
    seed: int = Field(default=0, ge=0, le=2**63 - 1)


class DriftFinding(Response):
    """One feature: the effect with its interval, what noise alone shows, and the p value.

    The status follows from `p_adjusted`; `insufficient` says that too little is known.
    """

    feature: str
    kind: Kind
    status: Literal["insufficient", "stable", "drifted"]
    reason: str
    sessions: tuple[int, int]
    rows: tuple[int, int]
    effect_name: str | None = None
    effect: Figure = None
    effect_low: Figure = None
    effect_high: Figure = None
    noise: Figure = None
    p: Figure = None
    p_upper: Figure = None
    p_adjusted: Figure = None
    details: dict[str, Any] | None = None


class DriftAnswer(Response):
    """All features; `straddling_sessions` had rows on both sides and were left out."""

    status: Literal["insufficient", "stable", "drifted"]
    findings: list[DriftFinding]
    alpha: float
    correction: str
    draws: int
    straddling_sessions: int


class Anchor(Request):
    """A frozen case: its right verdict, the scorer's at the baseline, and the one of now.

    `current` is null where the scorer gave no usable answer.
    """

    id: str = Field(min_length=1, max_length=200)
    expected: str = Field(min_length=1, max_length=100)
    baseline: str = Field(min_length=1, max_length=100)
    current: str | None = Field(default=None, min_length=1, max_length=100)
    baseline_confidence: FiniteFloat | None = Field(default=None, ge=0, le=1)
    current_confidence: FiniteFloat | None = Field(default=None, ge=0, le=1)


class LiveVerdict(Request):
    """A verdict on a live run, and the session that the run belongs to."""

    session: str = Field(min_length=1, max_length=200)
    verdict: str = Field(min_length=1, max_length=100)


class ScorerDriftRequest(Request):
    """Has the scorer drifted, or what it scores? Anchors ask the former, live verdicts the latter.

    A scorer declared `deterministic` has drifted as soon as one anchor changes.
    """

    anchors: list[Anchor] = Field(max_length=20_000)
    live_before: list[LiveVerdict] = Field(default=[], max_length=200_000)
    live_now: list[LiveVerdict] = Field(default=[], max_length=200_000)
    deterministic: bool = False
    alpha: FiniteFloat = Field(default=0.05, ge=1e-6, lt=0.5)
    min_anchors: int = Field(default=30, ge=10, le=100_000)
    min_sessions: int = Field(default=30, ge=10, le=100_000)
    seed: int = Field(default=0, ge=0, le=2**63 - 1)


class Interval(Response):
    """A figure with its 95 % interval; null where it is not defined."""

    value: Figure
    low: Figure
    high: Figure


class AgreementView(Response):
    """Two judges on the same cases; kappa collapses where nearly all are alike, AC1 does not."""

    n: int
    observed: Interval
    kappa: Interval
    ac1: Interval


class ScorerDriftAnswer(Response):
    """The verdict, its reasons and the figures. `accuracy` is at the baseline and now."""

    verdict: Literal["none", "system", "judge", "insufficient"]
    reasons: list[str]
    anchors: int
    scored: int
    coverage: float
    changed: int
    judge_p: Figure
    system_p: Figure
    shift: Figure
    accuracy: tuple[float, float] | None
    with_expected: AgreementView
    with_baseline: AgreementView
    calibration_before: Interval
    calibration_now: Interval
    live: DriftFinding | None
