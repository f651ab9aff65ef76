"""observerd's own figures for `GET /metrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Figures:
    """Counters and gauges, registered once per app."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def count(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"lakehouse_observerd_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"lakehouse_observerd_{name}", text, registry=registry)

        self.events = count("events_total", "Events made durable")
        self.duplicates = count("duplicate_events_total", "Events that had been recorded before")
        self.dropped = count("dropped_log_records_total", "Log records dropped to keep its size")
        self.unreported = count("unreported_events_total", "Own events that could not be recorded")
        self.letters = gauge("dead_letters", "Dead letters that wait")
        self.refused_letters = count(
            "refused_dead_letters_total", "Failures for which there was no room as a dead letter"
        )
        self.ring = gauge("ring_events", "Events in memory")
        self.evicted = gauge("evicted_events", "Events evicted from memory since the start")
        self.runs = count("workflow_runs_total", "Workflow runs that ended", ("status",))
        self.active = gauge("workflow_runs_active", "Workflow runs under way")
        self.nodes = count("workflow_nodes_total", "Workflow nodes that ended", ("mode", "state"))
        self.node_seconds = Histogram(
            "lakehouse_observerd_node_seconds",
            "Seconds that an attempt of a node took",
            ("mode",),
            buckets=(0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0),
            registry=registry,
        )
