"""Evidence by betting: how much a fair gambler would have won from paired differences.

Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (2024).
For differences d in [-1, 1] and the claim "on average d <= 0", the wealth of betting a fixed
fraction b, the product of 1 + b d, is a supermartingale under the claim; so is the mean over
several fractions. By Ville's inequality it passes 1/a at any time with probability at most a,
however often it is looked at. It needs no distribution, only the bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

# Fractions of wealth; small ones for small steady gains, large ones for large.
FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.65, 0.9)


def _zeros() -> list[float]:
    return [0.0] * len(FRACTIONS)


@dataclass(slots=True)
class Wealth:
    """Evidence against "the mean is at most 0", as the logarithm of each bet's wealth."""

    logs: list[float] = field(default_factory=_zeros)

    def bet(self, difference: float) -> None:
        """Takes one difference, from -1 to 1."""
        for number, fraction in enumerate(FRACTIONS):
            self.logs[number] += math.log1p(fraction * difference)

    @property
    def log(self) -> float:
        """The logarithm of the mean wealth: above ln(1/a) at level a."""
        return _log_mean_exp(self.logs)


@dataclass(slots=True)
class Alarm:
    """A watch for the mean rising above 0 at any later time (a Shiryaev-Roberts e-detector).

    Shin, Ramdas and Rinaldo, "E-detectors" (2023): wealth that begins anew with every
    observation, summed. While the mean is at most 0, the expected number of observations
    before it passes `length` is at least `length`.
    """

    logs: list[float] = field(default_factory=lambda: [-math.inf] * len(FRACTIONS))

    def bet(self, difference: float) -> None:
        """Takes one difference, from -1 to 1."""
        for number, fraction in enumerate(FRACTIONS):
            begun = _log_add(self.logs[number], 0.0)
            self.logs[number] = begun + math.log1p(fraction * difference)

    @property
    def log(self) -> float:
        """The logarithm of the sum: above ln(length) it is time to act."""
        return _log_mean_exp(self.logs)


def share_of_error(alpha: float, generation: int) -> float:
    """What of the error `alpha` may be spent on the choice of this number, from 0.

    The shares of all choices that are ever made sum to alpha.
    """
    return alpha / ((generation + 1) * (generation + 2))


def _log_add(first: float, second: float) -> float:
    high, low = max(first, second), min(first, second)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def _log_mean_exp(logs: list[float]) -> float:
    high = max(logs)
    if high == -math.inf:
        return high
    return high + math.log(math.fsum(math.exp(one - high) for one in logs) / len(logs))
