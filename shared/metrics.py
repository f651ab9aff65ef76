"""Figures for `GET /metrics`, in Prometheus text.

One registry per app, so that several apps can live in one test process. The request
figures are the same for every daemon; a daemon registers its own on `registry`.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

# From a cache hit to a long ingest, in seconds.
LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0)


class Metrics:
    """Request figures of one app, and the registry for the daemon's own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "lakehouse_requests_total",
            "Requests by route, method and status",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._latency = Histogram(
            "lakehouse_request_seconds",
            "Seconds from the request's first byte to the response's last",
            ("route",),
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        # A plain number, read when the figures are: it changes twice in every request.
        self.in_flight = 0
        Gauge(
            "lakehouse_requests_in_flight", "Requests being served now", registry=self.registry
        ).set_function(lambda: self.in_flight)
        # Label look-ups cost more than the increment; the set of keys is small and fixed.
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts one finished request under its route template."""
        key = (route, method, status)
        pair = self._children.get(key)
        if pair is None:
            pair = (
                self._requests.labels(route, method, str(status)),
                self._latency.labels(route),
            )
            self._children[key] = pair
        pair[0].inc()
        pair[1].observe(seconds)

    def render(self) -> bytes:
        """All figures as Prometheus text."""
        return generate_latest(self.registry)
