"""ADR-005: a scorer's failure is never a verdict.

What a scorer said and whether it worked are two fields. Only a scorer that worked, whose score
is a number from 0 to 1, and that names its evidence where it speaks in favour, wholly or in
part, is believed. Everything else needs a person, and carries no number; nor does a review. The
scorer's own type (`distill.scores`) holds to the same.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

from shared.wire.observerd import ScorerStatus, Verdict

NEEDS_REVIEW: Verdict = "needs_human_review"
IN_FAVOUR: frozenset[Verdict] = frozenset({"accepted", "partially_accepted"})


class Settled(NamedTuple):
    """A verdict as it may be recorded. All None: nothing was said about the run."""

    verdict: Verdict | None
    scorer_status: ScorerStatus | None
    score: float | None


def lacks_evidence(verdict: Verdict | None, evidence: Collection[str]) -> bool:
    """Whether a verdict in favour names nothing that it rests on."""
    return verdict in IN_FAVOUR and not any(evidence)


def settle_verdict(
    verdict: Verdict | None,
    scorer_status: ScorerStatus | None,
    score: float | None,
    evidence: list[str],
) -> Settled:
    """What may be believed of a scorer's answer.

    A verdict or score without a `scorer_status`, an ok without a verdict, and a verdict in favour
    without evidence are incomplete answers: `partial`. A score that is no number from 0 to 1 is
    `out_of_range`; it is dropped, not clamped.
    """
    if verdict is None and scorer_status is None and score is None:
        return Settled(None, None, None)
    status: ScorerStatus = scorer_status or "partial"
    if status == "ok":
        if score is not None and not (math.isfinite(score) and 0.0 <= score <= 1.0):
            status = "out_of_range"
        elif verdict is None or lacks_evidence(verdict, evidence):
            status = "partial"
    if status != "ok":
        return Settled(NEEDS_REVIEW, status, None)
    return Settled(verdict, "ok", None if verdict == NEEDS_REVIEW else score)
