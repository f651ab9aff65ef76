"""matrixd's own figures for `GET /metrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Figures:
    """Counters and gauges, registered once per app."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def count(name: str, text: str) -> Counter:
            return Counter(f"lakehouse_matrixd_{name}", text, registry=registry)

        self.corpora = Gauge("lakehouse_matrixd_corpora", "Corpora", registry=registry)
        self.documents = count("documents_total", "Documents embedded and written to an index")
        self.jobs = count("jobs_total", "Builds and refreshes completed")
        self.job_failures = count("job_failures_total", "Builds and refreshes that failed")
        self.searches = count("searches_total", "Searches answered")
        self.dead_corpora = count("dead_corpora_total", "Corpora that a search had to do without")
        self.activations = count("playbook_activations_total", "Searches that the playbook changed")
        self.episodes = Gauge("lakehouse_matrixd_episodes", "Episodes in force", registry=registry)
        self.recorded = count("episodes_recorded_total", "Episodes recorded")
        self.unreadable = count(
            "records_unreadable_total", "Records of the playbook's log that could not be read"
        )
        self.dropped = count("relevance_dropped_total", "Candidates dropped as off topic")
        self.unreported = count(
            "unreported_events_total", "Events given up because observerd did not take them"
        )
        self.rerank_seconds = Histogram(
            "lakehouse_matrixd_playbook_seconds",
            "Seconds that the playbook added to a search",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1),
            registry=registry,
        )
