"""Scorer drift and its measures: the judge is told from the system, and noise from both."""

from __future__ import annotations

import numpy as np
import pytest

from services.observerd.core.drift.agreement import measure_agreement, measure_calibration
from services.observerd.core.drift.anchors import AnchorScore, judge_scorer
from shared.errors import Invalid

WORDS = ("accepted", "partially_accepted", "rejected")
Live = list[tuple[str, str]]


def make_anchors(
    dice: np.random.Generator, size: int = 120, noise: float = 0.1, lenient: float = 0.0
) -> list[AnchorScore]:
    anchors: list[AnchorScore] = []
    for at in range(size):
        right = WORDS[at % 3]
        seen = [WORDS[dice.integers(3)] if dice.random() < noise else right for _ in range(2)]
        if seen[1] == "rejected" and dice.random() < lenient:
            seen[1] = "accepted"
        anchors.append(AnchorScore(f"a{at}", right, seen[0], seen[1]))
    return anchors


def make_live(dice: np.random.Generator, name: str, good: float, size: int = 200) -> Live:
    return [
        (f"{name}{at}", "accepted" if dice.random() < good else "rejected") for at in range(size)
    ]


def test_nothing_changed() -> None:
    dice = np.random.default_rng(1)
    found = judge_scorer(
        make_anchors(dice),
        dice,
        live_before=make_live(dice, "x", 0.7),
        live_now=make_live(dice, "y", 0.7),
    )
    assert found.verdict == "none"
    assert found.with_expected.kappa.value is not None
    assert found.with_expected.kappa.value > 0.7


def test_a_judge_that_grew_lenient_is_named_though_live_shifts_too() -> None:
    dice = np.random.default_rng(2)
    found = judge_scorer(
        make_anchors(dice, lenient=0.6),
        dice,
        live_before=make_live(dice, "x", 0.5),
        live_now=make_live(dice, "y", 0.8),
    )
    assert found.verdict == "judge"
    assert found.shift is not None
    assert found.shift > 0.1
    assert any("nothing of the system" in reason for reason in found.reasons)


def test_a_judge_that_only_got_noisier_is_named() -> None:
    dice = np.random.default_rng(3)
    steady = make_anchors(dice, size=300, noise=0.02)
    noisy = [
        AnchorScore(
            a.id, a.expected, a.baseline, WORDS[dice.integers(3)] if n % 4 == 0 else a.current
        )
        for n, a in enumerate(steady)
    ]
    assert judge_scorer(noisy, dice).verdict == "judge"


def test_confidence_that_lost_its_meaning_is_the_judges_drift() -> None:
    dice = np.random.default_rng(4)
    anchors = [
        AnchorScore(f"a{at}", "accepted", "accepted", "accepted", 0.95, 0.5) for at in range(60)
    ]
    found = judge_scorer(anchors, dice)
    assert (found.verdict, found.changed) == ("judge", 0)
    assert found.calibration_now.value == pytest.approx(0.5)
    assert found.calibration_before.value == pytest.approx(0.05)


def test_live_verdicts_that_shift_over_steady_anchors_are_the_system() -> None:
    dice = np.random.default_rng(5)
    found = judge_scorer(
        make_anchors(dice),
        dice,
        live_before=make_live(dice, "x", 0.8),
        live_now=make_live(dice, "y", 0.5),
    )
    assert found.verdict == "system"
    assert found.live is not None
    assert found.live.status == "drifted"


def test_one_changed_anchor_convicts_a_deterministic_scorer() -> None:
    dice = np.random.default_rng(6)
    anchors = make_anchors(dice, noise=0.0)
    assert judge_scorer(anchors, dice, deterministic=True).verdict == "none"
    anchors[0] = AnchorScore("a0", "accepted", "accepted", "rejected")
    assert judge_scorer(anchors, dice, deterministic=True).verdict == "judge"
    assert judge_scorer(anchors[:5], dice, deterministic=True).verdict == "judge"


def test_identical_verdicts_are_no_evidence() -> None:
    dice = np.random.default_rng(7)
    found = [judge_scorer(make_anchors(dice, noise=0.0), dice).judge_p for _ in range(40)]
    assert found == [1.0] * 40


@pytest.mark.parametrize("missing", [13, 100])
def test_unscored_anchors_lower_coverage_and_end_in_insufficient(missing: int) -> None:
    dice = np.random.default_rng(8)
    anchors = [
        AnchorScore(a.id, a.expected, a.baseline, None if n < missing else a.current)
        for n, a in enumerate(make_anchors(dice, noise=0.0))
    ]
    found = judge_scorer(anchors, dice)
    assert found.verdict == "insufficient"
    assert found.coverage == pytest.approx(1 - missing / 120)


def test_nothing_at_all_is_insufficient() -> None:
    found = judge_scorer([], np.random.default_rng(0))
    assert (found.verdict, found.coverage, found.accuracy) == ("insufficient", 0.0, None)


def test_few_live_runs_are_insufficient_not_none() -> None:
    dice = np.random.default_rng(9)
    found = judge_scorer(
        make_anchors(dice),
        dice,
        live_before=make_live(dice, "x", 0.8, 10),
        live_now=make_live(dice, "y", 0.8),
    )
    assert found.verdict == "insufficient"
    assert "10 and 200 sessions" in found.reasons[0]


def test_a_noisy_judge_rings_at_the_nominal_rate() -> None:
    dice = np.random.default_rng(10)
    rings = sum(
        judge_scorer(make_anchors(dice, 60, 0.3), dice, draws=99).verdict == "judge"
        for _ in range(300)
    )
    # Binomial(300, .05) leaves 4..28 once in a thousand.
    assert 4 <= rings <= 28


def test_anchors_with_one_id_and_wild_confidences_are_refused() -> None:
    dice = np.random.default_rng(0)
    twice = [AnchorScore("a", "accepted", "accepted", "accepted")] * 2
    with pytest.raises(Invalid, match="id of its own"):
        judge_scorer(twice, dice)
    with pytest.raises(Invalid, match="confidence"):
        judge_scorer([AnchorScore("a", "x", "x", "x", 0.5, 1.5)], dice)


def test_kappa_and_ac1_of_a_known_table() -> None:
    # 20 both yes, 5 and 10 split, 15 both no: o = .7, e = .5, kappa = .4; AC1 = .402.
    first = ["y"] * 20 + ["y"] * 5 + ["n"] * 10 + ["n"] * 15
    second = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    found = measure_agreement(first, second, np.random.default_rng(1))
    assert found.observed.value == pytest.approx(0.7)
    assert found.kappa.value == pytest.approx(0.4)
    margin = (25 + 30) / 100
    chance = 2 * margin * (1 - margin)
    assert found.ac1.value == pytest.approx((0.7 - chance) / (1 - chance))
    assert found.kappa.low is not None
    assert found.kappa.high is not None
    assert 0.05 < found.kappa.low < 0.25
    assert 0.55 < found.kappa.high < 0.75


def test_kappa_collapses_at_skewed_prevalence_where_ac1_does_not() -> None:
    first = ["y"] * 96 + ["n", "n", "y", "y"]
    second = ["y"] * 96 + ["y", "y", "n", "n"]
    found = measure_agreement(first, second, np.random.default_rng(1))
    assert found.kappa.value is not None
    assert found.kappa.value < 0.1
    assert found.ac1.value is not None
    assert found.ac1.value > 0.9


def test_kappa_of_one_verdict_alone_is_undefined() -> None:
    found = measure_agreement(["y"] * 9, ["y"] * 9, np.random.default_rng(1))
    assert found.kappa.value is None
    assert found.observed.value == 1.0
    assert measure_agreement([], [], np.random.default_rng(1)).n == 0


def test_intervals_of_kappa_cover_the_truth() -> None:
    dice = np.random.default_rng(11)
    truth = 0.8  # the second judge repeats the first in .8 and is a coin else: kappa = .8
    covered = 0
    for _ in range(120):
        first = dice.integers(2, size=150)
        second = np.where(dice.random(150) < truth, first, dice.integers(2, size=150))
        found = measure_agreement(first.astype(str).tolist(), second.astype(str).tolist(), dice)
        assert found.kappa.low is not None
        assert found.kappa.high is not None
        covered += found.kappa.low <= truth <= found.kappa.high
    assert covered >= 104


def test_calibration_error_of_good_and_bad_confidence() -> None:
    dice = np.random.default_rng(12)
    sure = dice.uniform(0.5, 1, size=2000)
    right = (dice.random(2000) < sure).tolist()
    good = measure_calibration(sure.tolist(), right, dice)
    bad = measure_calibration(np.minimum(1, sure + 0.2).tolist(), right, dice)
    assert good.value is not None
    assert good.low is not None
    assert bad.low is not None
    assert good.value < 0.05
    assert good.low < 0.02
    assert bad.low > 0.1
    assert measure_calibration([0.5] * 9, [True] * 9, dice).value is None
