"""catalogd's own figures in `GET /metrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shared.metrics import LATENCY_BUCKETS


class Figures:
    """Commits and datasets, counted on the app's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.commits = Counter(
            "lakehouse_catalogd_registers_total",
            "Registers answered, by status: created, updated, unchanged",
            ("status",),
            registry=registry,
        )
        self.conflicts = Counter(
            "lakehouse_catalogd_conflicts_total",
            "Commits planned anew because another came first",
            registry=registry,
        )
        self.commit_seconds = Histogram(
            "lakehouse_catalogd_commit_seconds",
            "Seconds that a register took from its plan to its durable commit",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.datasets = Gauge(
            "lakehouse_catalogd_datasets", "Datasets in the catalogue", registry=registry
        )

        self.upkeep = Counter(
            "lakehouse_catalogd_upkeep_total",
            "What was done to datasets beside registers: rollback, compact, collect, and failures",
            ("work",),
            registry=registry,
        )
        self.expired = Counter(
            "lakehouse_catalogd_expired_snapshots_total",
            "Snapshots let go by expiry on request or by itself",
            registry=registry,
        )
        self.merged_files = Counter(
            "lakehouse_catalogd_merged_files_total",
            "Small files that compaction put into larger ones",
            registry=registry,
        )
        self.merged_bytes = Counter(
            "lakehouse_catalogd_merged_bytes_total",
            "Bytes that compaction wrote",
            registry=registry,
        )
        self.collected_files = Counter(
            "lakehouse_catalogd_collected_files_total",
            "Files removed because no retained snapshot named them",
            ("kind",),
            registry=registry,
        )
        self.collected_bytes = Counter(
            "lakehouse_catalogd_collected_bytes_total",
            "Bytes of the files removed",
            registry=registry,
        )
        self.orphans = Gauge(
            "lakehouse_catalogd_orphans",
            "Files found that nothing names and that are not removed yet",
            registry=registry,
        )

    def observe(self, status: str, seconds: float) -> None:
        """Counts one register; only those that changed something count as commits."""
        self.commits.labels(status).inc()
        if status != "unchanged":
            self.commit_seconds.observe(seconds)
