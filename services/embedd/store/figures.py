"""What embedd tells on /metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.embedd.core.lru import Entry

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class Figures:
    """The daemon's own counters on its registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._hits = Counter(
            "embedd_cache_hits_total",
            "Texts found in the cache, by where",
            ("where",),
            registry=registry,
        )
        self.memory_hits = self._hits.labels("memory")
        self.disk_hits = self._hits.labels("disk")
        self.misses = Counter(
            "embedd_cache_misses_total", "Texts that had to be embedded", registry=registry
        )
        self.disk_faults = Counter(
            "embedd_cache_disk_faults_total",
            "Faults of the cache's file: damaged, full or unreadable",
            registry=registry,
        )
        self._texts = Counter(
            "embedd_texts_total", "Texts embedded", ("provider",), registry=registry
        )
        self._tokens = Counter(
            "embedd_tokens_total", "Tokens read by models", ("provider",), registry=registry
        )
        self._batches = Histogram(
            "embedd_batch_texts",
            "Texts computed together",
            ("provider",),
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self._seconds = Histogram(
            "embedd_batch_seconds",
            "Seconds that one batch took",
            ("provider",),
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self._queued = Gauge(
            "embedd_queued_texts", "Texts waiting to be embedded", ("provider",), registry=registry
        )
        self._failures = Counter(
            "embedd_failures_total", "Batches that failed", ("provider",), registry=registry
        )

    def watch(self, cache_bytes: Callable[[], int], cache_entries: Callable[[], int]) -> None:
        """Shows the cache's size and the process's memory whenever the figures are read."""
        for name, text, read in (
            ("embedd_cache_bytes", "Bytes of vectors kept in memory", cache_bytes),
            ("embedd_cache_entries", "Vectors kept in memory", cache_entries),
            ("embedd_resident_bytes", "Resident memory of this process", read_resident_bytes),
        ):
            Gauge(name, text, registry=self._registry).set_function(read)

    def of_provider(self, provider: str) -> LaneFigures:
        """The figures of one provider's work."""
        return LaneFigures(
            self._texts.labels(provider),
            self._tokens.labels(provider),
            self._batches.labels(provider),
            self._seconds.labels(provider),
            self._queued.labels(provider),
            self._failures.labels(provider),
        )


class LaneFigures:
    """Figures of the work for one provider, with the look-ups already done."""

    def __init__(
        self,
        texts: Counter,
        tokens: Counter,
        batches: Histogram,
        seconds: Histogram,
        queued: Gauge,
        failures: Counter,
    ) -> None:
        self._texts = texts
        self._tokens = tokens
        self._batches = batches
        self._seconds = seconds
        self._queued = queued
        self._failures = failures

    def observe_batch(self, entries: Sequence[Entry], seconds: float) -> None:
        """Counts one finished batch."""
        self._texts.inc(len(entries))
        self._tokens.inc(sum(entry.tokens for entry in entries))
        self._batches.observe(len(entries))
        self._seconds.observe(seconds)

    def count_failure(self) -> None:
        """Counts one batch that gave nothing."""
        self._failures.inc()

    def set_queued(self, count: int) -> None:
        """How many texts wait."""
        self._queued.set(count)


def read_resident_bytes() -> int:
    """Resident memory of this process as the kernel counts it; 0 where it does not tell."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
