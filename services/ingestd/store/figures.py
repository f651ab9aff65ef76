"""ingestd's own figures on `/metrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.ingestd.core.job import Outcome


class Figures:
    """Ingests by outcome, rows, bytes, seconds by stage; workers; the queue; jobs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ingests = Counter(
            "lakehouse_ingestd_ingests_total",
            "Ingests by outcome (done, duplicate, an error code, gone)",
            ("outcome",),
            registry=registry,
        )
        self._rows = Counter(
            "lakehouse_ingestd_rows_total", "Rows ingested into datasets", registry=registry
        )
        self._rejects = Counter(
            "lakehouse_ingestd_rejects_total", "Rows kept as rejects", registry=registry
        )
        self._received = Counter(
            "lakehouse_ingestd_received_bytes_total", "Bytes of files received", registry=registry
        )
        self._stored = Counter(
            "lakehouse_ingestd_stored_bytes_total", "Bytes of Parquet stored", registry=registry
        )
        self._seconds = Counter(
            "lakehouse_ingestd_stage_seconds_total",
            "Seconds that conversions spent, by stage",
            ("stage",),
            registry=registry,
        )
        self._started = Counter(
            "lakehouse_ingestd_workers_started_total", "Workers started", registry=registry
        )
        self._ended = Counter(
            "lakehouse_ingestd_workers_ended_total",
            "Workers ended, by reason (idle, abandoned, crashed, closed)",
            ("reason",),
            registry=registry,
        )
        self._live = Gauge("lakehouse_ingestd_workers", "Workers alive", registry=registry)
        self._waiting = Gauge(
            "lakehouse_ingestd_queue", "Conversions waiting for a worker", registry=registry
        )

        self._jobs = Gauge("lakehouse_ingestd_jobs", "Jobs by state", ("state",), registry=registry)
        self._jobs_ended = Counter(
            "lakehouse_ingestd_jobs_ended_total", "Jobs by how they ended", ("status",),
            registry=registry,
        )  # fmt: skip

    def jobs(self, *, running: int, waiting: int) -> None:
        """Sets how many jobs run and wait."""
        self._jobs.labels("running").set(running)
        self._jobs.labels("waiting").set(waiting)

    def job_ended(self, status: str) -> None:
        """Counts a job that ended."""
        self._jobs_ended.labels(status).inc()

    def ended(self, outcome: str) -> None:
        """Counts one ingest."""
        self._ingests.labels(outcome).inc()

    def received(self, size: int) -> None:
        """Counts the bytes of a file."""
        self._received.inc(size)

    def stored(self, outcome: Outcome) -> None:
        """Counts what an ingest brought."""
        self._rows.inc(outcome.rows_out)
        self._rejects.inc(outcome.rejects)
        self._stored.inc(sum(part.size for part in outcome.parts))
        for stage, seconds in outcome.seconds.items():
            self._seconds.labels(stage).inc(seconds)

    def worker_started(self) -> None:
        """Counts a worker that was started."""
        self._started.inc()

    def worker_ended(self, reason: str) -> None:
        """Counts a worker that ended."""
        self._ended.labels(reason).inc()

    def gauge(self, *, live: int, waiting: int) -> None:
        """Sets the pool's state."""
        self._live.set(live)
        self._waiting.set(waiting)
