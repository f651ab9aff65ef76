"""ADR-005: a scorer's failure is never a verdict.

What a scorer said and whether it worked are two fields. Only a scorer that worked, whose score
is a number from 0 to 1, and that names its evidence where it accepts, is believed. Everything
else needs a person, and carries no number.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from shared.wire.observerd import ScorerStatus, Verdict

NEEDS_REVIEW: Verdict = "needs_human_review"


class Settled(NamedTuple):
    """A verdict as it may be recorded. All None: nothing was said about the run."""

    verdict: Verdict | None
    scorer_status: ScorerStatus | None
    score: float | None


def settle_verdict(
    verdict: Verdict | None,
    scorer_status: ScorerStatus | None,
    score: float | None,
    evidence: list[str],
) -> Settled:
    """What may be believed of a scorer's answer.

    A verdict or score without a `scorer_status`, an ok without a verdict, and an accept without
    evidence are incomplete answers: `partial`. A score that is no number from 0 to 1 is
    `out_of_range`; it is dropped, not clamped.
    """
    if verdict is None and scorer_status is None and score is None:
        return Settled(None, None, None)
    status: ScorerStatus = scorer_status or "partial"
    if status == "ok":
        if score is not None and not (math.isfinite(score) and 0.0 <= score <= 1.0):
            status = "out_of_range"
        elif verdict is None or (verdict == "accepted" and not any(evidence)):
            status = "partial"
    if status != "ok":
        return Settled(NEEDS_REVIEW, status, None)
    return Settled(verdict, "ok", score)
