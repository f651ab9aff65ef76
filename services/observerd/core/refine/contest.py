"""A challenger against the incumbent, pair by pair; and the watch over a promotion."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from services.observerd.core.refine.evidence import Alarm, Wealth
from services.observerd.core.refine.lattice import Configuration


@dataclass(frozen=True, slots=True)
class Replay:
    """What a configuration made of a run: a score from 0 to 1, and how long it took."""

    score: float
    latency_ms: float


@dataclass(slots=True)
class Means:
    """A running mean of paired differences."""

    count: int = 0
    total: float = 0.0

    def take(self, difference: float) -> None:
        """Takes one more."""
        self.count += 1
        self.total += difference

    @property
    def mean(self) -> float:
        """The mean, 0 when there is none."""
        return self.total / self.count if self.count else 0.0


@dataclass(slots=True)
class Contest:
    """A challenger against the incumbent."""

    challenger: Configuration
    better: Wealth = field(default_factory=Wealth)
    worse: Wealth = field(default_factory=Wealth)
    learnt: Means = field(default_factory=Means)
    held_out: Means = field(default_factory=Means)
    latencies: list[float] = field(default_factory=list[float])
    dropped: bool = False
    held_back: bool = False

    def take(self, replay: Replay, difference: float, learn: bool) -> None:
        """Takes one replay and its score less the incumbent's."""
        self.latencies.append(replay.latency_ms)
        del self.latencies[:-1000]
        if not learn:
            self.held_out.take(difference)
            return
        self.learnt.take(difference)
        self.better.bet(difference)
        self.worse.bet(-difference)

    def figures(self) -> dict[str, float]:
        """What is known of it, for people."""
        return {
            "runs": self.learnt.count,
            "mean_difference": self.learnt.mean,
            "log_evidence": self.better.log,
            "held_out_runs": self.held_out.count,
            "held_out_difference": self.held_out.mean,
            "latency_p95_ms": self.latency_p95(),
        }

    def latency_p95(self) -> float:
        """The 95th percentile of its last thousand replays, ms."""
        known = sorted(self.latencies)
        return known[min(len(known) - 1, math.ceil(0.95 * len(known)) - 1)] if known else 0.0


@dataclass(slots=True)
class Watch:
    """A promotion under watch: whether what it replaced would now do better."""

    replaced: Configuration
    alarm: Alarm = field(default_factory=Alarm)
    gain: Means = field(default_factory=Means)
