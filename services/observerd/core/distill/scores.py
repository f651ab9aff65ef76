"""What a score may be. ADR-005 in types: an accept cannot be made out of a failure.

A `Response` is a complete answer of a scorer; it cannot be constructed with anything missing or
out of range. A `Score` has a response exactly when its scorer's status is ok, and its verdict is
read off that response; there is no verdict to set otherwise, so every failure is a review with
no number. Scores are counted with those that are missing: coverage is part of every summary.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from services.observerd.core.events.verdicts import lacks_evidence
from shared.errors import Invalid, PreconditionFailed
from shared.wire.observerd import ScorerStatus, Verdict

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
STATUSES: tuple[ScorerStatus, ...] = get_args(ScorerStatus)
# Share of runs that must have been scored before a gate may say anything.
COVERAGE_FLOOR = 0.9


@dataclass(frozen=True, slots=True)
class Response:
    """A scorer's complete and validated answer on one run.

    Attributes:
        score: 0 to 1, how good the answer is.
        evidence: ids that the verdict rests on; never empty when it is in favour.
        offered: ids of what the scorer was shown; evidence is among them.

    Raises:
        Invalid: on construction, when any of that does not hold.
    """

    run_id: str
    verdict: Verdict
    score: float
    reasons: tuple[str, ...]
    evidence: tuple[str, ...]
    offered: frozenset[str]

    def __post_init__(self) -> None:
        if not self.run_id:
            raise Invalid("A scorer's response must name its run.")
        if self.verdict not in VERDICTS:
            raise Invalid(f"A verdict is one of {', '.join(VERDICTS)}.")
        if type(self.score) is not float or not 0 <= self.score <= 1 or math.isnan(self.score):
            raise Invalid("A score is a number from 0 to 1.")
        if not self.reasons or not all(reason.strip() for reason in self.reasons):
            raise Invalid("A verdict must give its reasons.")
        if lacks_evidence(self.verdict, self.evidence):
            raise Invalid("A verdict in favour must name the evidence it rests on.")
        if not set(self.evidence) <= self.offered:
            raise Invalid("The evidence named is none of what was shown.")


@dataclass(frozen=True, slots=True)
class Score:
    """The record of one scoring: who judged, how that went, and what came of it.

    Raises:
        Invalid: on construction, when status and response contradict each other.
    """

    run_id: str
    scorer: str
    scorer_status: ScorerStatus
    response: Response | None = None
    failure: str = ""

    def __post_init__(self) -> None:
        if self.scorer_status not in STATUSES:
            raise Invalid(f"A scorer's status is one of {', '.join(STATUSES)}.")
        if (self.scorer_status == "ok") != isinstance(self.response, Response):
            raise Invalid("A score has a response exactly when its scorer's status is ok.")
        if self.response is not None and self.response.run_id != self.run_id:
            raise Invalid("The response is about another run.")
        if self.response is None and not self.failure:
            raise Invalid("A failed scoring must say what failed.")

    @property
    def verdict(self) -> Verdict:
        """The response's verdict; a review when there is none."""
        return self.response.verdict if self.response is not None else "needs_human_review"

    @property
    def score(self) -> float | None:
        """The response's score; None when there is none, and for a review."""
        if self.response is None or self.response.verdict == "needs_human_review":
            return None
        return self.response.score

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why: the response's reasons, or what failed."""
        return self.response.reasons if self.response is not None else (self.failure,)

    @property
    def evidence(self) -> tuple[str, ...]:
        """Ids that the verdict rests on."""
        return self.response.evidence if self.response is not None else ()

    def dump(self) -> dict[str, Any]:
        """The score as JSON; `load_score` reads it back."""
        return {
            "run_id": self.run_id,
            "scorer": self.scorer,
            "scorer_status": self.scorer_status,
            "verdict": self.verdict,
            "score": self.score,
            "reasons": list(self.reasons),
            "evidence": list(self.evidence),
            "offered": sorted(self.response.offered) if self.response is not None else [],
            "raw_score": self.response.score if self.response is not None else None,
        }


def load_score(fields: dict[str, Any]) -> Score:
    """A score from its JSON, checked like a new one.

    Raises:
        Invalid: it is not whole, or was changed into something that cannot be.
    """
    try:
        status = fields["scorer_status"]
        response = None
        if status == "ok":
            response = Response(
                run_id=fields["run_id"],
                verdict=fields["verdict"],
                score=fields["raw_score"],
                reasons=tuple(fields["reasons"]),
                evidence=tuple(fields["evidence"]),
                offered=frozenset(fields["offered"]),
            )
        found = Score(
            run_id=fields["run_id"],
            scorer=fields["scorer"],
            scorer_status=status,
            response=response,
            failure="" if response is not None else "; ".join(fields["reasons"]),
        )
        if found.verdict != fields["verdict"] or found.score != fields["score"]:
            raise Invalid("The score's verdict does not follow from its scorer's status.")
    except (KeyError, TypeError, AttributeError):
        raise Invalid("This is no score; run the scorer again.") from None
    return found


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many of the runs were scored, and how it went.

    `unobserved` are runs without any record of a scoring: they count as not covered.
    """

    runs: int
    scored: int
    unobserved: int
    by_verdict: dict[str, int]
    by_status: dict[str, int]

    @property
    def coverage(self) -> float:
        """Scored runs out of all; 0 when there are none."""
        return self.scored / self.runs if self.runs else 0.0

    @property
    def accepted_rate(self) -> float | None:
        """Accepted out of those scored; None when none was. Read it beside the coverage."""
        return self.by_verdict["accepted"] / self.scored if self.scored else None


def count_coverage(run_ids: Iterable[str], scores: Sequence[Score]) -> Coverage:
    """Counts over all runs there were, whether or not a score of theirs exists.

    Of several scores of a run the last counts, as in the log. A run that is scored but not
    among `run_ids` counts as a run.
    """
    last = {score.run_id: score for score in scores}
    runs = {*run_ids, *last}
    verdicts = Counter(score.verdict for score in last.values() if score.scorer_status == "ok")
    statuses = Counter(score.scorer_status for score in last.values())
    return Coverage(
        runs=len(runs),
        scored=statuses["ok"],
        unobserved=len(runs) - len(last),
        by_verdict={verdict: verdicts[verdict] for verdict in VERDICTS},
        by_status={status: statuses[status] for status in STATUSES},
    )


def require_coverage(coverage: Coverage, floor: float = COVERAGE_FLOOR) -> None:
    """Passes only when enough of the runs were scored; every gate and export begins with it.

    Raises:
        PreconditionFailed: coverage is below the floor.
    """
    if coverage.coverage < floor:
        raise PreconditionFailed(
            f"{coverage.scored} of {coverage.runs} runs were scored ({coverage.coverage:.1%}); "
            f"{floor:.0%} are needed. Score the rest or mend the scorer.",
            details={
                "runs": coverage.runs,
                "scored": coverage.scored,
                "unobserved": coverage.unobserved,
                "by_status": coverage.by_status,
                "floor": floor,
            },
        )
