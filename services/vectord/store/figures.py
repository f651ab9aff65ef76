"""vectord's own figures for `GET /metrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class Figures:
    """Counters and gauges, registered once per app."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def count(name: str, text: str) -> Counter:
            return Counter(f"lakehouse_vectord_{name}", text, registry=registry)

        self.indexes = Gauge(
            "lakehouse_vectord_indexes", "Indexes by status", ("status",), registry=registry
        )
        self.queries = count("queries_total", "Queries answered, each of a batch counted")
        self.written = count("items_written_total", "Items written durably")
        self.deleted = count("items_deleted_total", "Items deleted durably")
        self.builds = count("builds_total", "Graphs that took up new rows or were rebuilt")
        self.snapshots = count("snapshots_total", "Snapshots confirmed stored")
        self.failures = count("background_failures_total", "Builds and snapshots that failed")
        self.problems = count("problems_total", "Damaged files and journal records met at loading")
        self.lost = count("lost_records_total", "Journal records that could not be recovered")
