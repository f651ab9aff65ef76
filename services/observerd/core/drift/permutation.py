"""Two samples compared by permutation, sessions moved whole.

What a user does in one session is alike, so rows of one are no independent witnesses. Under the
null hypothesis sessions are exchangeable, so their labels (reference or current) are shuffled
and rows stay with their session; the test is exact whatever the distribution is.

Every kind of value becomes a vector per row, and the statistic is one weighted squared distance
between the mean vectors of both sides, so one engine serves all kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
# From mean vectors of both sides (draws x dimensions each) to one figure a draw.
Effect = Callable[[Floats, Floats], Floats]

# Labels drawn at a time; bounds memory, not the result.
_CHUNK = 128
# Statistics this near, relatively, are the same number computed in another order.
_TIE = 1e-9


@dataclass(frozen=True, slots=True)
class Units:
    """Sessions as the engine sees them.

    Attributes:
        sums: sum of the rows' vectors in each session (sessions x dimensions).
        counts: rows in each session.
        current: whether the session belongs to the current side.
        weights: what each dimension counts for in the statistic.
    """

    sums: Floats
    counts: Floats
    current: Bools
    weights: Floats


@dataclass(frozen=True, slots=True)
class Permuted:
    """Outcome of a permutation test.

    Attributes:
        p: exact: ties with the observed statistic are split by one draw, so that a test at
            level a rejects a true null in exactly a share a of all cases.
        p_upper: the same with all ties counted against a change; never below `p`.
        effect: the effect observed, and `noise` what shuffled labels show on average.
        low, high: 95 % interval of the effect by a bootstrap of sessions, corrected for bias.
    """

    p: float
    p_upper: float
    effect: float
    noise: float
    low: float
    high: float


def gather_units(rows: Floats, unit: NDArray[np.intp], current: Bools, weights: Floats) -> Units:
    """Sums of the rows of each session; `unit` numbers sessions from 0, `current` is by session."""
    count = len(current)
    if len(rows) == count and bool((unit == np.arange(count)).all()):
        return Units(rows, np.ones(count), current, weights)
    sums = np.zeros((count, rows.shape[1]))
    np.add.at(sums, unit, rows)
    counts = np.bincount(unit, minlength=count).astype(np.float64)
    return Units(sums, counts, current, weights)


def split_ties(observed: float, shuffled: Floats, rng: np.random.Generator) -> tuple[float, float]:
    """The exact and the upper p-value of an observed statistic among shuffled ones."""
    near = _TIE * max(abs(observed), 1e-300)
    if observed <= near and bool((np.abs(shuffled) <= 1e-12).all()):
        # Nothing differs under any labelling: there is no evidence to split.
        return 1.0, 1.0
    ties = int((np.abs(shuffled - observed) <= near).sum())
    above = int((shuffled > observed + near).sum())
    whole = len(shuffled) + 1
    return (above + float(rng.random()) * (ties + 1)) / whole, (above + ties + 1) / whole


def run_permutations(
    units: Units, effect: Effect, rng: np.random.Generator, *, draws: int, resamples: int = 200
) -> Permuted:
    """Tests whether both sides are of one distribution, and measures how far apart they are.

    Args:
        effect: what is reported as the size of the difference.
        draws: labellings tried; p is a multiple of 1 / (draws + 1) but for ties.
        resamples: bootstrap samples for the interval; 0 leaves it out (NaN).
    """
    labels = units.current.astype(np.float64)
    before, after = _means(units, labels[None, :])
    observed = float(_distance(before, after, units.weights)[0])
    size = float(effect(before, after)[0])
    shuffled: list[Floats] = []
    noise: list[Floats] = []
    for start in range(0, draws, _CHUNK):
        some = np.tile(labels, (min(_CHUNK, draws - start), 1))
        left, right = _means(units, rng.permuted(some, axis=1))
        shuffled.append(_distance(left, right, units.weights))
        noise.append(effect(left, right))
    p, p_upper = split_ties(observed, np.concatenate(shuffled), rng)
    low, high = _bootstrap(units, effect, size, rng, resamples)
    return Permuted(p, p_upper, size, float(np.concatenate(noise).mean()), low, high)


def _means(units: Units, labels: Floats) -> tuple[Floats, Floats]:
    after_rows = labels @ units.counts
    after = labels @ units.sums
    before = units.sums.sum(axis=0) - after
    before_rows = units.counts.sum() - after_rows
    return before / before_rows[:, None], after / after_rows[:, None]


def _distance(before: Floats, after: Floats, weights: Floats) -> Floats:
    return np.asarray(np.square(before - after) @ weights, dtype=np.float64)


def _bootstrap(
    units: Units, effect: Effect, size: float, rng: np.random.Generator, resamples: int
) -> tuple[float, float]:
    if not resamples:
        return float("nan"), float("nan")
    sides: list[Floats] = []
    for side in (~units.current, units.current):
        sums, counts = units.sums[side], units.counts[side]
        parts: list[Floats] = []
        for start in range(0, resamples, _CHUNK):
            some = min(_CHUNK, resamples - start)
            share = np.full(len(counts), 1 / len(counts))
            times = rng.multinomial(len(counts), share, size=some).astype(np.float64)
            parts.append((times @ sums) / (times @ counts)[:, None])
        sides.append(np.concatenate(parts))
    found = effect(sides[0], sides[1])
    lowest, highest = np.quantile(found, [0.025, 0.975])
    # Distances of samples are too great on average, of resamples twice so: reflect them.
    return max(0.0, 2 * size - float(highest)), max(0.0, 2 * size - float(lowest))
