"""Request rates out of counters: what a daemon's figures were, and how they changed.

The figures are read with two patterns instead of a parser of the whole text: the gateway
forwards requests in the same loop, and a parser in Python would stop it for milliseconds.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

_REQUESTS = re.compile(r'^lakehouse_requests_total\{(.*)status="(\d)\d\d"\} (\S+)$', re.M)
_SECONDS = re.compile(r"^lakehouse_request_seconds_(sum|count)\{(.*)\} (\S+)$", re.M)
_IN_FLIGHT = re.compile(r"^lakehouse_requests_in_flight (\S+)$", re.M)
# What looks at the fleet, so that a fleet that nobody uses is seen to be idle.
_PROBES = re.compile(r'route="/(health|ready|metrics|console[^"]*)"')


@dataclass(frozen=True, slots=True)
class Sample:
    """A daemon's counters at a time (seconds): requests, server errors, seconds of work."""

    at: float
    requests: float
    failures: float
    seconds: float
    timed: float
    in_flight: float


def read_sample(text: str, at: float) -> Sample:
    """The counters in a daemon's `/metrics`; probes and the console's pages do not count."""
    requests = failures = seconds = timed = 0.0
    for labels, status, value in _REQUESTS.findall(text):
        if not _PROBES.search(labels):
            requests += float(value)
            failures += float(value) if status == "5" else 0.0
    for kind, labels, value in _SECONDS.findall(text):
        if not _PROBES.search(labels):
            seconds += float(value) if kind == "sum" else 0.0
            timed += float(value) if kind == "count" else 0.0
    found = _IN_FLIGHT.search(text)
    return Sample(at, requests, failures, seconds, timed, float(found[1]) if found else 0.0)


@dataclass(frozen=True, slots=True)
class Rate:
    """What went on between two samples: requests and failures a second, mean seconds."""

    requests: float
    failures: float
    mean_s: float | None


@dataclass(slots=True)
class Track:
    """The samples of one daemon, the newest `kept` of them."""

    kept: int = 61
    samples: deque[Sample] = field(default_factory=deque[Sample])

    def add(self, sample: Sample) -> None:
        """Adds a sample. Counters that went back belong to a daemon that was started anew."""
        if self.samples and sample.requests < self.samples[-1].requests:
            self.samples.clear()
        self.samples.append(sample)
        while len(self.samples) > self.kept:
            self.samples.popleft()

    def rates(self) -> list[float]:
        """Requests a second between each two samples, oldest first."""
        pairs = zip(list(self.samples)[:-1], list(self.samples)[1:], strict=True)
        return [rate_between([before, after]).requests for before, after in pairs]

    def now(self) -> Rate | None:
        """The rate over the last three samples; None while there are fewer than two."""
        return rate_between(list(self.samples)[-3:]) if len(self.samples) > 1 else None


def rate_between(samples: Sequence[Sample]) -> Rate:
    """What went on from the first to the last of some samples."""
    first, last = samples[0], samples[-1]
    passed = max(last.at - first.at, 1e-6)
    timed = last.timed - first.timed
    mean_s = (last.seconds - first.seconds) / timed if timed > 0 else None
    return Rate(
        (last.requests - first.requests) / passed, (last.failures - first.failures) / passed, mean_s
    )
