"""How far two judges agree, and how far one may be believed: κ, AC1 and ECE with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.observerd.core.drift.permutation import Floats

RESAMPLES = 1000
BINS = 10
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % bootstrap interval; all None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


UNDEFINED = Estimate(None, None, None)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two judges on the same items: share of equal verdicts, Cohen's κ, Gwet's AC1.

    κ collapses where nearly all items are of one kind; AC1 does not. Read both.
    """

    n: int
    observed: Estimate
    kappa: Estimate
    ac1: Estimate


def measure_agreement(
    first: Sequence[str], second: Sequence[str], rng: np.random.Generator
) -> Agreement:
    """Agreement of two lists of verdicts on the same items, in the same order.

    κ = (o - e) / (1 - e) with o the share agreed on and e that expected from both margins
    (Cohen 1960); AC1 takes e = Σ m (1 - m) / (K - 1) with m the mean margin (Gwet 2008).
    """
    if not first:
        return Agreement(0, UNDEFINED, UNDEFINED, UNDEFINED)
    names = sorted({*first, *second})
    place = {name: at for at, name in enumerate(names)}
    table = np.zeros((len(names), len(names)))
    for one, other in zip(first, second, strict=True):
        table[place[one], place[other]] += 1
    size = len(first)
    again = rng.multinomial(size, table.ravel() / size, size=RESAMPLES).astype(np.float64)
    tables = np.concatenate([table.ravel()[None, :], again]).reshape(-1, *table.shape) / size
    observed = np.trace(tables, axis1=1, axis2=2)
    rows, columns = tables.sum(axis=2), tables.sum(axis=1)
    by_margins = (rows * columns).sum(axis=1)
    mean = (rows + columns) / 2
    by_chance = (mean * (1 - mean)).sum(axis=1) / max(1, len(names) - 1)
    return Agreement(
        size,
        _estimate(observed),
        _estimate(_beyond(observed, by_margins)),
        _estimate(_beyond(observed, by_chance)),
    )


def measure_calibration(
    confidences: Sequence[float], correct: Sequence[bool], rng: np.random.Generator
) -> Estimate:
    """Expected calibration error: how far confidence and share of right verdicts lie apart.

    Over ten bins of equal count, weighted (Naeini et al. 2015, Nixon et al. 2019). It is
    positive for a perfect judge too, the more so the fewer the items; the interval is
    corrected for that.
    """
    if len(confidences) < BINS:
        return UNDEFINED
    pairs = np.column_stack([np.asarray(confidences, float), np.asarray(correct, float)])
    value = _calibration_error(pairs)
    picks = rng.integers(0, len(pairs), size=(RESAMPLES, len(pairs)))
    again = np.array([_calibration_error(pairs[pick]) for pick in picks])
    low, high = np.quantile(again, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, max(0.0, 2 * value - float(high)), max(0.0, 2 * value - float(low)))


def _calibration_error(pairs: Floats) -> float:
    order = pairs[np.argsort(pairs[:, 0], kind="stable")]
    gaps = [
        len(part) * abs(float(part[:, 0].mean() - part[:, 1].mean()))
        for part in np.array_split(order, BINS)
    ]
    return sum(gaps) / len(pairs)


def _beyond(observed: Floats, expected: Floats) -> Floats:
    room = 1 - expected
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(room > 1e-12, (observed - expected) / room, np.nan)


def _estimate(values: Floats) -> Estimate:
    """The first value with the interval of the rest."""
    if not np.isfinite(values[0]):
        return UNDEFINED
    again = values[1:][np.isfinite(values[1:])]
    if not len(again):
        return Estimate(float(values[0]), None, None)
    low, high = np.quantile(again, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(values[0]), float(low), float(high))
