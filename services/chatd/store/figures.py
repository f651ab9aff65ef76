"""What chatd tells on /metrics. Labels are providers, never models: callers name those."""

from __future__ import annotations

import time
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.chatd.core.breaker import Breaker
from services.chatd.core.chat import Usage

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Figures:
    """The daemon's own figures on its registry; names follow OpenTelemetry's GenAI where it has
    one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            "chatd_calls_total",
            "Chats by how they ended: ok, failed, cancelled",
            ("provider", "outcome"),
            registry=registry,
        )
        self._faults = Counter(
            "chatd_faults_total",
            "Failed tries at a provider, by kind",
            ("provider", "kind"),
            registry=registry,
        )
        self.recalled = Counter(
            "chatd_recalled_total",
            "Chats answered with what was answered before",
            registry=registry,
        )
        self._tokens = Counter(
            "gen_ai_client_token_usage",
            "Tokens",
            ("gen_ai_provider_name", "gen_ai_token_type"),
            registry=registry,
        )
        self._cost = Counter(
            "chatd_cost_usd_total",
            "What is known to have been spent",
            ("provider",),
            registry=registry,
        )
        self._seconds = Histogram(
            "gen_ai_client_operation_duration_seconds",
            "Seconds of a chat, tries and waits included",
            ("gen_ai_provider_name",),
            buckets=SECONDS,
            registry=registry,
        )
        self._first = Histogram(
            "chatd_first_token_seconds",
            "Seconds until the first piece of a streamed answer",
            ("provider",),
            buckets=SECONDS,
            registry=registry,
        )
        self._breakers = Gauge(
            "chatd_breaker_open",
            "1 while a provider is not asked because it kept failing",
            ("provider",),
            registry=registry,
        )
        self.unwritten = Counter(
            "chatd_ledger_unwritten_total",
            "Chats that the ledger could not take",
            registry=registry,
        )

    def watch_breakers(self, breakers: Mapping[str, Breaker]) -> None:
        """Shows each provider's circuit, as it is when the figures are read."""
        for name, breaker in breakers.items():
            self._breakers.labels(name).set_function(
                lambda breaker=breaker: float(breaker.state(time.monotonic()) == "open")
            )

    def count_fault(self, provider: str, kind: str) -> None:
        """A try failed."""
        self._faults.labels(provider, kind).inc()

    def count_first(self, provider: str, seconds: float) -> None:
        """A stream began."""
        self._first.labels(provider).observe(seconds)

    def count_call(
        self, provider: str, outcome: str, seconds: float, usage: Usage | None, cost: float | None
    ) -> None:
        """A chat ended."""
        self._calls.labels(provider, outcome).inc()
        self._seconds.labels(provider).observe(seconds)
        if usage is not None:
            self._tokens.labels(provider, "input").inc(usage.input)
            self._tokens.labels(provider, "output").inc(usage.output)
        if cost:
            self._cost.labels(provider).inc(cost)
