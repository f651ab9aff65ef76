"""Scorer drift first: is it the judge that changed, or what is judged?

Anchors are frozen answers with the verdict they should get. They are scored once as the
baseline, and again at a steady interleave with live traffic. What shifts on anchors is the
judge's doing: their texts never change. What shifts on live runs while anchors stand still is
the system's. While the judge drifts, nothing is said of the system: its ruler is bent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from services.observerd.core.drift.agreement import (
    Agreement,
    Estimate,
    measure_agreement,
    measure_calibration,
)
from services.observerd.core.drift.distributions import (
    ALPHA,
    DRAWS,
    MIN_SESSIONS,
    Finding,
    Row,
    compare_samples,
)
from services.observerd.core.drift.multiplicity import adjust
from services.observerd.core.drift.permutation import Floats, split_ties
from shared.errors import Invalid

DriftVerdict = Literal["none", "system", "judge", "insufficient"]

MIN_ANCHORS = 30
# Share of anchors that must have been scored again; fewer are a choice, not a sample.
MIN_COVERAGE = 0.9
# What a verdict is worth where its shift is measured; others count by name alone.
VERDICT_VALUES = {"accepted": 1.0, "partially_accepted": 0.5, "rejected": 0.0}
# A review says that the judge does not know: neither good nor bad.
UNSURE = 0.5
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class AnchorScore:
    """One anchor: its right verdict, the verdict at the baseline, and the one of now.

    `current` is None where the scorer gave no usable answer. Confidences (0..1) that the
    verdict is right are optional; calibration is measured over anchors that have them.
    """

    id: str
    expected: str
    baseline: str
    current: str | None
    baseline_confidence: float | None = None
    current_confidence: float | None = None


@dataclass(frozen=True, slots=True)
class ScorerDrift:
    """The verdict with its reasons, and every figure that it rests on.

    `judge_p` and `system_p` are adjusted for each other (Holm); `shift` is the mean change of
    the verdict's value on anchors, `accuracy` the share right at the baseline and now.
    """

    verdict: DriftVerdict
    reasons: tuple[str, ...]
    anchors: int
    scored: int
    coverage: float
    changed: int
    judge_p: float | None
    system_p: float | None
    shift: float | None
    accuracy: tuple[float, float] | None
    with_expected: Agreement
    with_baseline: Agreement
    calibration_before: Estimate
    calibration_now: Estimate
    live: Finding | None


def judge_scorer(
    anchors: Sequence[AnchorScore],
    rng: np.random.Generator,
    *,
    live_before: Sequence[tuple[str, str]] = (),
    live_now: Sequence[tuple[str, str]] = (),
    deterministic: bool = False,
    alpha: float = ALPHA,
    draws: int = DRAWS,
    min_anchors: int = MIN_ANCHORS,
    min_sessions: int = MIN_SESSIONS,
) -> ScorerDrift:
    """Tells whether the scorer drifted, the system behind it, or neither.

    The judge's test: under the null a judge gives an anchor's two verdicts in either order
    alike, so they are swapped at random per anchor; what is summed up is how much their value,
    their correctness and the squared error of their confidence changed. A judge declared
    deterministic has drifted as soon as one anchor changes.

    Args:
        live_before, live_now: (session, verdict) of live runs; none at all means that only
            the judge is asked about.

    Raises:
        Invalid: two anchors have one id, or a confidence lies outside 0..1.
    """
    _check(anchors)
    scored = [one for one in anchors if one.current is not None]
    coverage = len(scored) / len(anchors) if anchors else 0.0
    changed = sum(one.current != one.baseline for one in scored)
    now = [one.current or "" for one in scored]
    expected = [one.expected for one in scored]
    before = [one.baseline for one in scored]
    raw_judge = _test_judge(scored, rng, draws) if scored else None
    asked = bool(live_before or live_now)
    live = None
    if asked:
        live = compare_samples(
            [Row(session, {"verdict": verdict}) for session, verdict in live_before],
            [Row(session, {"verdict": verdict}) for session, verdict in live_now],
            {"verdict": "categorical"},
            rng,
            alpha=alpha,
            draws=draws,
            min_sessions=min_sessions,
        ).findings[0]
    judge_p, system_p = _adjust(raw_judge, live.p if live else None)
    reasons: list[str] = []
    verdict: DriftVerdict
    if deterministic and changed:
        verdict = "judge"
        reasons.append(
            f"{changed} of {len(scored)} anchors have another verdict from a scorer that is "
            "deterministic: its code, model or settings changed."
        )
    elif len(scored) < min_anchors or coverage < MIN_COVERAGE:
        verdict = "insufficient"
        reasons.append(
            f"{len(scored)} of {len(anchors)} anchors were scored again; {min_anchors} and a "
            f"share of {MIN_COVERAGE:g} are needed."
        )
    elif judge_p is not None and judge_p <= alpha:
        verdict = "judge"
        reasons.append(f"Anchors are judged otherwise than at the baseline (p {judge_p:.3g}).")
        if live is not None:
            reasons.append("Live verdicts say nothing of the system until the judge is mended.")
    elif live is not None and live.status == "insufficient":
        verdict = "insufficient"
        reasons.append(f"The judge is steady; of live runs {live.reason}")
    elif system_p is not None and system_p <= alpha:
        verdict = "system"
        reasons.append(f"Anchors stand, live verdicts shifted (p {system_p:.3g}).")
    else:
        verdict = "none"
        reasons.append("Anchors stand and live verdicts too." if asked else "Anchors stand.")
    values = [_value(word) for word in now]
    return ScorerDrift(
        verdict=verdict,
        reasons=tuple(reasons),
        anchors=len(anchors),
        scored=len(scored),
        coverage=coverage,
        changed=changed,
        judge_p=judge_p,
        system_p=system_p,
        shift=float(np.mean(values) - np.mean([_value(w) for w in before])) if scored else None,
        accuracy=(_share_equal(before, expected), _share_equal(now, expected)) if scored else None,
        with_expected=measure_agreement(expected, now, rng),
        with_baseline=measure_agreement(before, now, rng),
        calibration_before=_calibrate(scored, rng, at_baseline=True),
        calibration_now=_calibrate(scored, rng, at_baseline=False),
        live=live,
    )


def _check(anchors: Sequence[AnchorScore]) -> None:
    if len({one.id for one in anchors}) < len(anchors):
        raise Invalid("Each anchor must have an id of its own.")
    for one in anchors:
        for confidence in (one.baseline_confidence, one.current_confidence):
            if confidence is not None and not 0 <= confidence <= 1:
                raise Invalid(f"Anchor {one.id}: a confidence must lie in 0..1.")


def _adjust(judge: float | None, system: float | None) -> tuple[float | None, float | None]:
    if judge is not None and system is not None:
        first, second = adjust([judge, system], "holm")
        return first, second
    return judge, system


def _value(verdict: str) -> float:
    return VERDICT_VALUES.get(verdict, UNSURE)


def _share_equal(first: Sequence[str], second: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(first, second, strict=True)) / len(first)


def _test_judge(scored: Sequence[AnchorScore], rng: np.random.Generator, draws: int) -> float:
    changes = np.array([_change(one) for one in scored])
    spread = np.sqrt(np.square(changes).sum(axis=0))
    kept = changes[:, spread > 0] / spread[spread > 0]
    if not kept.size:
        # No anchor changed in anything that is measured.
        return 1.0
    observed = float(np.square(kept.sum(axis=0)).sum())
    found: list[Floats] = []
    for start in range(0, draws, _CHUNK):
        shape = (min(_CHUNK, draws - start), len(kept))
        signs = rng.integers(0, 2, size=shape).astype(np.float64) * 2 - 1
        found.append(np.asarray(np.square(signs @ kept).sum(axis=1), dtype=np.float64))
    return split_ties(observed, np.concatenate(found), rng)[0]


def _change(one: AnchorScore) -> list[float]:
    value = _value(one.current or "") - _value(one.baseline)
    right_before, right_now = one.baseline == one.expected, one.current == one.expected
    error = 0.0
    if one.baseline_confidence is not None and one.current_confidence is not None:
        error = (one.current_confidence - right_now) ** 2
        error -= (one.baseline_confidence - right_before) ** 2
    return [value, float(right_now) - float(right_before), error]


def _calibrate(
    scored: Sequence[AnchorScore], rng: np.random.Generator, *, at_baseline: bool
) -> Estimate:
    confidences: list[float] = []
    correct: list[bool] = []
    for one in scored:
        sure = one.baseline_confidence if at_baseline else one.current_confidence
        if sure is not None:
            confidences.append(sure)
            correct.append((one.baseline if at_baseline else one.current) == one.expected)
    return measure_calibration(confidences, correct, rng)
