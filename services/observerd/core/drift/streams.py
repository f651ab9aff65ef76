"""An alarm on a stream whose false alarms are bounded: an e-detector.

Shiryaev-Roberts over e-values (Shin, Ramdas and Rinaldo 2024): every bet against "the mean is
what it was" keeps M = (M + 1)·(1 + b·(x - mean)); the alarm rings when the average of all bets'
M reaches A. As long as the mean is what it was, given the past, the expected time to an alarm is
at least A, whatever the distribution within the bounds.

Values of one session are alike: feed one value a session (its mean), or the bound is void.
Pure: a state and a value give the next state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from shared.errors import Invalid

Direction = Literal["up", "down"]
Sides = Literal["both", "up", "down"]

# Values between two false alarms, on average, at least.
RUN_LENGTH = 10_000
# Bets as shares of the greatest that cannot go broke: small changes to great ones.
SHARES = (0.5, 0.25, 0.12, 0.06, 0.03, 0.015)
# Of a reference sample of n values the mean is known up to this many standard errors.
REFERENCE_ERRORS = 2.0


@dataclass(frozen=True, slots=True)
class Detector:
    """State of one stream; `asdict` of it is JSON, `Detector.load` reads it back.

    Attributes:
        low_mean, high_mean: where the mean is held to lie while nothing changed; equal
            when it is known exactly.
        lowest, highest: bounds of a value.
        log_wealth: ln M of each bet, upward bets first.
        seen: values since the last alarm or the start; `total` of all time.
        alarms: how often it rang.
    """

    low_mean: float
    high_mean: float
    lowest: float
    highest: float
    run_length: int
    sides: Sides
    log_wealth: tuple[float, ...]
    seen: int = 0
    total: int = 0
    alarms: int = 0

    @property
    def evidence(self) -> float:
        """ln of the average wealth; the alarm rings at ln(run_length)."""
        return _log_mean(self.log_wealth)

    @classmethod
    def load(cls, fields: dict[str, Any]) -> Detector:
        """The state that `dump` wrote.

        Raises:
            Invalid: it is no such state.
        """
        try:
            found = cls(**fields)
            return replace(found, log_wealth=tuple(float(one) for one in fields["log_wealth"]))
        except (TypeError, KeyError, ValueError):
            raise Invalid("This is no state of a stream detector; start a new one.") from None

    def dump(self) -> dict[str, Any]:
        """The state as JSON can carry it."""
        return {
            **asdict(self),
            "log_wealth": [w if w > -math.inf else -1e308 for w in self.log_wealth],
        }


@dataclass(frozen=True, slots=True)
class Alarm:
    """The stream's mean changed.

    Attributes:
        at: number of the value (of all time, from 1) at which it rang.
        direction: where the winning bets point.
        evidence: ln of the average wealth reached.
    """

    at: int
    direction: Direction
    evidence: float


def start_detector(
    mean: float,
    *,
    lowest: float = 0.0,
    highest: float = 1.0,
    reference_size: int | None = None,
    run_length: int = RUN_LENGTH,
    sides: Sides = "both",
) -> Detector:
    """A detector for a stream whose mean was `mean`.

    Args:
        reference_size: values that the mean was estimated from; its error widens what counts
            as unchanged. None: the mean is known, or the standard one to hold to.
        run_length: the least expected number of values before a false alarm.

    Raises:
        Invalid: the mean does not lie within the bounds, or a figure makes no sense.
    """
    if not (math.isfinite(mean) and lowest < highest and lowest <= mean <= highest):
        raise Invalid(f"The mean {mean} must lie between lowest {lowest} and highest {highest}.")
    if run_length < 2 or (reference_size is not None and reference_size < 1):
        raise Invalid("run_length must be 2 or more, reference_size 1 or more.")
    width = highest - lowest
    share = (mean - lowest) / width
    low, high = (share, share) if reference_size is None else _bounds(share, reference_size)
    bets = len(SHARES) * (2 if sides == "both" else 1)
    return Detector(
        low_mean=lowest + low * width,
        high_mean=lowest + high * width,
        lowest=lowest,
        highest=highest,
        run_length=run_length,
        sides=sides,
        log_wealth=(-math.inf,) * bets,
    )


def update_detector(state: Detector, value: float) -> tuple[Detector, Alarm | None]:
    """Takes one value in; after an alarm the detector starts afresh and goes on counting.

    Raises:
        Invalid: the value is outside the bounds: the guarantee would be void.
    """
    if not state.lowest <= value <= state.highest:
        raise Invalid(f"{value} lies outside {state.lowest} to {state.highest}.")
    width = state.highest - state.lowest
    x = (value - state.lowest) / width
    wealth: list[float] = []
    for at, (direction, share) in enumerate(_bets(state.sides)):
        if direction == "up":
            mean = (state.high_mean - state.lowest) / width
            # At x = 0 the stake 1/mean would lose everything.
            factor = 1 + share * (x - mean) / mean if mean > 0 else 1 + share * x / 1e-9
        else:
            mean = 1 - (state.low_mean - state.lowest) / width
            factor = 1 + share * (1 - x - mean) / mean if mean > 0 else 1 + share * (1 - x) / 1e-9
        wealth.append(_log_plus_one(state.log_wealth[at]) + math.log(factor))
    found = replace(state, log_wealth=tuple(wealth), seen=state.seen + 1, total=state.total + 1)
    if found.evidence < math.log(state.run_length):
        return found, None
    best = max(range(len(wealth)), key=lambda at: wealth[at])
    alarm = Alarm(found.total, _bets(state.sides)[best][0], found.evidence)
    fresh = (-math.inf,) * len(wealth)
    return replace(found, log_wealth=fresh, seen=0, alarms=found.alarms + 1), alarm


def run_detector(state: Detector, values: Iterable[float]) -> tuple[Detector, list[Alarm]]:
    """Takes many values in; gives the last state and every alarm."""
    alarms: list[Alarm] = []
    for value in values:
        state, alarm = update_detector(state, value)
        if alarm is not None:
            alarms.append(alarm)
    return state, alarms


def _bets(sides: Sides) -> list[tuple[Direction, float]]:
    up: list[tuple[Direction, float]] = [("up", share) for share in SHARES]
    down: list[tuple[Direction, float]] = [("down", share) for share in SHARES]
    return up + down if sides == "both" else up if sides == "up" else down


def _bounds(share: float, size: int) -> tuple[float, float]:
    """Wilson's interval, which is also wide enough for any mean of values in 0..1."""
    z2 = REFERENCE_ERRORS**2
    middle = (share + z2 / (2 * size)) / (1 + z2 / size)
    spread = REFERENCE_ERRORS * math.sqrt(share * (1 - share) / size + z2 / (4 * size * size))
    spread /= 1 + z2 / size
    return max(0.0, middle - spread), min(1.0, middle + spread)


def _log_plus_one(log: float) -> float:
    """ln(e^log + 1)."""
    return math.log1p(math.exp(log)) if log < 0 else log + math.log1p(math.exp(-log))


def _log_mean(logs: tuple[float, ...]) -> float:
    top = max(logs)
    if top == -math.inf:
        return -math.inf
    return top + math.log(sum(math.exp(one - top) for one in logs) / len(logs))
