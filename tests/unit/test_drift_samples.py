"""Two-sample tests: exact under the null, sessions whole, families corrected, honest when small."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from services.observerd.core.drift.distributions import Row, compare_samples
from services.observerd.core.drift.multiplicity import adjust
from services.observerd.core.drift.permutation import gather_units, run_permutations, split_ties
from services.observerd.core.drift.vectors import encode_categories, encode_numbers
from shared.errors import Invalid

REPS = 400
# Binomial(400, .05) leaves 8..33 with less than one in a thousand.
LEAST, MOST = 8, 33


def make_rows(side: str, values: list[Any], per_session: int = 1, name: str = "x") -> list[Row]:
    return [Row(f"{side}{at // per_session}", {name: value}) for at, value in enumerate(values)]


def count_alarms(kind: str, size: int, seed: int) -> int:
    dice = np.random.default_rng(seed)
    alarms = 0
    for _ in range(REPS):
        if kind == "numbers":
            encoded = encode_numbers(dice.lognormal(size=2 * size))
        else:
            encoded = encode_categories((dice.random(2 * size) < 0.15).astype(str).tolist())
        units = gather_units(
            encoded.rows, np.arange(2 * size), np.arange(2 * size) >= size, encoded.weights
        )
        found = run_permutations(units, encoded.effect, dice, draws=99, resamples=0)
        alarms += found.p <= 0.05
    return alarms


@pytest.mark.parametrize("kind", ["numbers", "flags"])
@pytest.mark.parametrize("size", [30, 150])
def test_a_true_null_is_rejected_at_its_level(kind: str, size: int) -> None:
    assert LEAST <= count_alarms(kind, size, size) <= MOST


def test_sessions_are_moved_whole() -> None:
    # Rows of a session are nearly alike, so shuffled rows would ring nearly always.
    dice = np.random.default_rng(3)
    by_session = by_row = 0
    for _ in range(REPS):
        session = np.repeat(np.arange(60), 8)
        values = dice.normal(size=60)[session] + 0.1 * dice.normal(size=480)
        encoded = encode_numbers(values)
        whole = gather_units(encoded.rows, session, np.arange(60) >= 30, encoded.weights)
        single = gather_units(encoded.rows, np.arange(480), np.arange(480) >= 240, encoded.weights)
        for units in (whole, single):
            found = run_permutations(units, encoded.effect, dice, draws=99, resamples=0)
            if units is whole:
                by_session += found.p <= 0.05
            else:
                by_row += found.p <= 0.05
    assert LEAST <= by_session <= MOST
    assert by_row > 3 * MOST


def test_a_family_of_features_keeps_its_level() -> None:
    dice = np.random.default_rng(4)
    any_alarm = {"holm": 0, "none": 0}
    for _ in range(150):
        sides = [
            [
                Row(f"{side}{at}", {f"x{n}": float(v) for n, v in enumerate(row)})
                for at, row in enumerate(dice.normal(size=(30, 6)))
            ]
            for side in "ab"
        ]
        kinds: Any = {f"x{n}": "numeric" for n in range(6)}
        report = compare_samples(*sides, kinds, dice, draws=299)
        any_alarm["holm"] += report.status == "drifted"
        any_alarm["none"] += any((one.p or 1) <= 0.05 for one in report.findings)
    # Binomial(150, .05) exceeds 17 once in a thousand; uncorrected, .26 of 150 ring.
    assert any_alarm["holm"] <= 17
    assert any_alarm["none"] > 25


CHANGES: dict[str, tuple[Any, Any]] = {
    "numeric": (lambda d: d.normal(size=200).tolist(), lambda d: d.normal(0.6, size=200).tolist()),
    "categorical": (
        lambda d: d.choice(["a", "b"], size=200, p=[0.8, 0.2]).tolist(),
        lambda d: d.choice(["a", "c"], size=200, p=[0.8, 0.2]).tolist(),
    ),
    "embedding": (
        lambda d: d.normal(size=(200, 16)).tolist(),
        lambda d: (d.normal(size=(200, 16)) * 1.4).tolist(),
    ),
    "ranking": (
        lambda d: [[f"d{n}" for n in d.permutation(20)[:5]] for _ in range(200)],
        lambda d: [["d0", *(f"d{n}" for n in 1 + d.permutation(19)[:4])] for _ in range(200)],
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_of_every_kind_is_seen(kind: Any) -> None:
    dice = np.random.default_rng(5)
    first, second = CHANGES[kind]
    before, after = make_rows("a", first(dice)), make_rows("b", second(dice))
    (found,) = compare_samples(before, after, {"x": kind}, dice).findings
    assert found.status == "drifted"
    assert found.effect is not None
    assert found.noise is not None
    assert found.effect_low is not None
    assert found.effect_high is not None
    assert found.noise < found.effect
    assert 0 < found.effect_low < found.effect_high
    same = compare_samples(before, make_rows("b", first(dice)), {"x": kind}, dice)
    assert same.findings[0].p_adjusted is not None
    assert same.findings[0].effect is not None
    assert same.findings[0].effect < found.effect


def test_effect_and_evidence_are_told_apart() -> None:
    # A tiny change in many rows has a small p and a small effect.
    dice = np.random.default_rng(6)
    before = make_rows("a", dice.normal(size=6000).tolist())
    after = make_rows("b", (dice.normal(size=6000) + 0.1).tolist())
    (found,) = compare_samples(before, after, {"x": "numeric"}, dice, draws=199).findings
    assert found.status == "drifted"
    assert found.effect is not None
    assert found.effect < 0.08


def test_too_few_sessions_are_insufficient_whatever_the_rows() -> None:
    dice = np.random.default_rng(7)
    before = make_rows("a", [0.0] * 290, per_session=10)
    after = make_rows("b", [9.0] * 400, per_session=10)
    report = compare_samples(before, after, {"x": "numeric"}, dice)
    assert report.status == "insufficient"
    assert report.findings[0].p is None
    assert "29 and 40 sessions" in report.findings[0].reason


def test_empty_samples_are_insufficient() -> None:
    report = compare_samples([], [], {"x": "embedding"}, np.random.default_rng(0))
    assert (report.status, report.findings[0].sessions) == ("insufficient", (0, 0))


def test_what_never_varies_is_stable() -> None:
    dice = np.random.default_rng(8)
    report = compare_samples(
        make_rows("a", ["ok"] * 50), make_rows("b", ["ok"] * 50), {"x": "categorical"}, dice
    )
    assert (report.status, report.findings[0].p) == ("stable", 1.0)


def test_missing_values_are_a_feature_of_their_own() -> None:
    dice = np.random.default_rng(9)
    # The values that are there have the same quantiles on both sides.
    before = make_rows("a", [float(at // 2) for at in range(80)])
    after = make_rows("b", [float(at // 2) if at % 2 else None for at in range(80)])
    report = compare_samples(before, after, {"x": "numeric"}, dice)
    by_name = {one.feature: one for one in report.findings}
    assert by_name["x.missing"].status == "drifted"
    assert by_name["x"].status == "stable"
    assert by_name["x"].rows == (80, 40)


def test_a_session_on_both_sides_is_left_out_and_counted() -> None:
    dice = np.random.default_rng(10)
    before = make_rows("a", dice.normal(size=40).tolist())
    after = [*make_rows("b", dice.normal(size=40).tolist()), Row("a0", {"x": 1.0})]
    report = compare_samples(before, after, {"x": "numeric"}, dice)
    assert report.straddling_sessions == 1
    assert report.findings[0].sessions == (39, 40)


def test_the_same_seed_gives_the_same_report() -> None:
    def run() -> Any:
        dice = np.random.default_rng(11)
        before = make_rows("a", [float(n % 7) for n in range(60)])
        after = make_rows("b", [float(n % 6) for n in range(60)])
        return compare_samples(before, after, {"x": "numeric"}, dice)

    assert run() == run()


@pytest.mark.parametrize(
    ("kind", "value", "hint"),
    [
        ("numeric", "fast", "finite number"),
        ("numeric", float("inf"), "finite number"),
        ("categorical", 1.5, "string"),
        ("embedding", [1.0, "x"], "list of finite numbers"),
        ("ranking", "d1", "list of ids"),
    ],
)
def test_a_value_of_another_kind_is_refused(kind: Any, value: Any, hint: str) -> None:
    with pytest.raises(Invalid, match=hint):
        compare_samples(
            make_rows("a", [value] * 40),
            make_rows("b", [value] * 40),
            {"x": kind},
            np.random.default_rng(0),
        )


def test_too_few_draws_for_the_family_are_refused() -> None:
    with pytest.raises(Invalid, match="at least 400"):
        compare_samples(
            [],
            [],
            dict.fromkeys("abcdefghij", "numeric"),
            np.random.default_rng(0),
            draws=199,
        )


def test_ties_are_split_and_the_upper_value_counts_them() -> None:
    dice = np.random.default_rng(12)
    shuffled = np.array([1.0] * 50 + [0.0] * 49)
    values = [split_ties(1.0, shuffled, dice) for _ in range(300)]
    assert {upper for _, upper in values} == {0.51}
    assert 0.2 < float(np.mean([p for p, _ in values])) < 0.31
    assert split_ties(0.0, np.zeros(99), dice) == (1.0, 1.0)


def test_adjusted_values_of_a_known_family() -> None:
    values = [0.01, 0.04, 0.03, 0.005]
    assert adjust(values, "holm") == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust(values, "bh") == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert adjust(values, "none") == values
    assert adjust([], "holm") == []
