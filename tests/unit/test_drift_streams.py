"""Stream alarms: false ones are bounded, real ones come soon, states survive a restart."""

from __future__ import annotations

import json
from statistics import median

import numpy as np
import pytest

from services.observerd.core.drift.streams import (
    Detector,
    run_detector,
    start_detector,
    update_detector,
)
from shared.errors import Invalid


def flip(dice: np.random.Generator, mean: float, size: int) -> list[float]:
    return (dice.random(size) < mean).astype(float).tolist()


@pytest.mark.parametrize("mean", [0.02, 0.2, 0.9])
def test_false_alarms_stay_within_the_run_length(mean: float) -> None:
    dice = np.random.default_rng(1)
    length, streams, run_length = 2000, 30, 200
    alarms = sum(
        run_detector(start_detector(mean, run_length=run_length), flip(dice, mean, length))[
            0
        ].alarms
        for _ in range(streams)
    )
    # At most 300 on average; three standard errors more.
    assert alarms <= 300 + 3 * 300**0.5
    assert alarms > 10


@pytest.mark.parametrize(
    ("before", "after", "most"),
    [(0.2, 0.3, 420), (0.2, 0.5, 90), (0.9, 0.7, 110), (0.2, 0.05, 250)],
)
def test_a_change_is_seen_soon(before: float, after: float, most: int) -> None:
    dice = np.random.default_rng(2)
    delays: list[int] = []
    for _ in range(15):
        state, _ = run_detector(start_detector(before), flip(dice, before, 300))
        for at, value in enumerate(flip(dice, after, 3000), start=1):
            state, alarm = update_detector(state, value)
            if alarm is not None:
                assert alarm.direction == ("up" if after > before else "down")
                delays.append(at)
                break
    assert len(delays) == 15
    assert median(delays) <= most


def test_an_estimated_mean_rings_no_more_often_than_a_known_one() -> None:
    dice = np.random.default_rng(3)
    alarms = {"estimated": 0, "taken as known": 0}
    for _ in range(40):
        guess = float(np.mean(flip(dice, 0.3, 100)))
        values = flip(dice, 0.3, 2000)
        size = {"estimated": 100, "taken as known": None}
        for name, reference in size.items():
            start = start_detector(guess, reference_size=reference)
            alarms[name] += run_detector(start, values)[0].alarms
    assert alarms["estimated"] <= 8 + 8
    assert alarms["taken as known"] > 2 * alarms["estimated"]


def test_a_state_read_back_goes_on_as_if_never_stopped() -> None:
    dice = np.random.default_rng(4)
    values = flip(dice, 0.35, 400)
    whole, alarms = run_detector(start_detector(0.3), values)
    half, first = run_detector(start_detector(0.3), values[:150])
    again = Detector.load(json.loads(json.dumps(half.dump())))
    rest, second = run_detector(again, values[150:])
    assert rest == whole
    assert first + second == alarms
    fresh = start_detector(0.3)
    loaded = Detector.load(json.loads(json.dumps(fresh.dump())))
    assert run_detector(loaded, values)[1] == alarms


def test_values_of_any_bounds_are_watched() -> None:
    dice = np.random.default_rng(5)
    start = start_detector(200.0, lowest=0.0, highest=1000.0, sides="up")
    _, alarms = run_detector(start, (200 + 100 * dice.random(800)).tolist())
    assert alarms
    # Downward changes are none of this detector's.
    assert run_detector(start, [50.0] * 2000)[1] == []


@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_a_mean_at_its_bound_is_left_by_the_first_other_value(mean: float) -> None:
    state, alarms = run_detector(start_detector(mean), [mean] * 500)
    assert alarms == []
    _, alarms = run_detector(state, [1 - mean])
    assert [one.at for one in alarms] == [501]


def test_what_would_void_the_bound_is_refused() -> None:
    state = start_detector(0.5)
    for value in (1.1, -0.1, float("nan")):
        with pytest.raises(Invalid, match="outside"):
            update_detector(state, value)
    with pytest.raises(Invalid, match="must lie between"):
        start_detector(1.5)
    with pytest.raises(Invalid, match="must lie between"):
        start_detector(float("nan"))
    with pytest.raises(Invalid, match="run_length"):
        start_detector(0.5, run_length=1)
    with pytest.raises(Invalid, match="no state"):
        Detector.load({"log_wealth": [1.0]})
