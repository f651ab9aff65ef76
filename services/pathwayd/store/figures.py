"""pathwayd's own figures for `GET /metrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class Figures:
    """Counters and gauges, registered once per app."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def count(name: str, text: str) -> Counter:
            return Counter(f"lakehouse_pathwayd_{name}", text, registry=registry)

        self.traces = Gauge(
            "lakehouse_pathwayd_traces", "Traces by status", ("status",), registry=registry
        )
        self.pending = Gauge(
            "lakehouse_pathwayd_pending_vectors", "Traces waiting for a vector", registry=registry
        )
        self.writes = count("writes_total", "Changes made durable")
        self.searches = count("searches_total", "Searches answered")
        self.degraded = count("degraded_searches_total", "Searches by words for want of a vector")
        self.embedded = count("embedded_total", "Vectors taken from embedd")
        self.checkpoints = count("checkpoints_total", "Checkpoints written")
        self.lost = count("lost_records_total", "Log records that could not be read")
