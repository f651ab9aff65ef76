"""queryd's own figures on `/metrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shared.metrics import LATENCY_BUCKETS


class Figures:
    """Queries by outcome, time and rows; workers; the queue."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._queries = Counter(
            "lakehouse_queryd_queries_total",
            "Queries by answer format and outcome (ok, an error code, gone)",
            ("format", "outcome"),
            registry=registry,
        )
        self._seconds = Histogram(
            "lakehouse_queryd_query_seconds",
            "Seconds from a query's arrival to the end of its answer",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._rows = Counter("lakehouse_queryd_rows_total", "Rows answered", registry=registry)
        self._ended = Counter(
            "lakehouse_queryd_workers_ended_total",
            "Workers replaced, by reason (deadline, abandoned, crashed, worn, stuck, spare)",
            ("reason",),
            registry=registry,
        )
        self._workers = Gauge(
            "lakehouse_queryd_workers", "Workers by state", ("state",), registry=registry
        )
        self._queue = Gauge(
            "lakehouse_queryd_queue", "Queries waiting for a worker", registry=registry
        )

    def query(self, form: str, outcome: str, seconds: float, rows: int) -> None:
        """Counts one query that has ended."""
        self._queries.labels(form, outcome).inc()
        self._seconds.observe(seconds)
        self._rows.inc(rows)

    def ended(self, reason: str) -> None:
        """Counts one worker that has ended."""
        self._ended.labels(reason).inc()

    def gauge(self, *, idle: int, live: int, queue: int) -> None:
        """Sets the pool's state."""
        self._workers.labels("idle").set(idle)
        self._workers.labels("busy").set(live - idle)
        self._queue.set(queue)
