"""storaged's own figures for `GET /metrics`."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge


class Figures:
    """Bytes, objects and refusals, counted since the start."""

    def __init__(self, registry: CollectorRegistry, free_bytes: Callable[[], float]) -> None:
        transferred = Counter(
            "lakehouse_storaged_bytes",
            "Bytes of object content by direction: in (PUT) and out (GET)",
            ("direction",),
            registry=registry,
        )
        self.bytes_in = transferred.labels("in")
        self.bytes_out = transferred.labels("out")
        stored = Counter(
            "lakehouse_storaged_objects_stored",
            "Objects stored durably, by whether their key was free before",
            ("result",),
            registry=registry,
        )
        self.created = stored.labels("created")
        self.replaced = stored.labels("replaced")
        self.deleted = Counter(
            "lakehouse_storaged_objects_deleted", "Objects removed", registry=registry
        )
        self._refused = Counter(
            "lakehouse_storaged_uploads_refused",
            "Uploads that stored nothing, by error code",
            ("code",),
            registry=registry,
        )
        Gauge(
            "lakehouse_storaged_free_bytes", "Room on the disk, in bytes", registry=registry
        ).set_function(free_bytes)

    def count_refused(self, code: str) -> None:
        """One upload that was refused."""
        self._refused.labels(code).inc()
