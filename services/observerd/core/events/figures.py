"""Counts that grow with each event and shrink with each evicted one.

Latencies are counted in buckets whose bounds grow by 4 %, so that a quantile costs the same
for ten events as for a million, and an evicted event can be taken out again.
"""

from __future__ import annotations

import math
from collections import Counter

from services.observerd.core.events.records import Kept
from shared.wire.observerd import Figures

_STEP = math.log(1.04)
# Below this many milliseconds all latencies are one.
_FLOOR_MS = 0.01


class Group:
    """Figures of one group of events."""

    def __init__(self) -> None:
        self.events = 0
        self._statuses: Counter[str] = Counter()
        self._verdicts: Counter[str] = Counter()
        self._scorers: Counter[str] = Counter()
        self._scored: Counter[str] = Counter()
        self._latencies: Counter[int] = Counter()
        self._prompt = 0
        self._completion = 0

    def count(self, event: Kept, by: int) -> None:
        """Adds an event (`by` 1), or takes out one that was added before (-1)."""
        self.events += by
        self._statuses[event.status] += by
        if event.verdict is not None:
            self._verdicts[event.verdict] += by
            if event.scorer_status == "ok":
                self._scored[event.verdict] += by
        if event.scorer_status is not None:
            self._scorers[event.scorer_status] += by
        if event.latency_ms is not None and event.status != "started":
            self._latencies[_bucket_of(event.latency_ms)] += by
        self._prompt += event.prompt_tokens * by
        self._completion += event.completion_tokens * by

    def describe(self) -> Figures:
        """The figures as they stand."""
        scored = self._scored.total()
        judged = self._verdicts.total()
        return Figures(
            events=self.events,
            by_status=_positive(self._statuses),
            by_verdict=_positive(self._verdicts),
            by_scorer_status=_positive(self._scorers),
            scored=scored,
            unscored=judged - scored,
            coverage=scored / judged if judged else None,
            accept_rate=self._scored["accepted"] / scored if scored else None,
            latency_p50_ms=self._quantile(0.50),
            latency_p95_ms=self._quantile(0.95),
            prompt_tokens=self._prompt,
            completion_tokens=self._completion,
        )

    def _quantile(self, share: float) -> float | None:
        total = self._latencies.total()
        if total == 0:
            return None
        wanted = max(1, math.ceil(share * total))
        seen = 0
        for bucket in sorted(self._latencies):
            seen += self._latencies[bucket]
            if seen >= wanted:
                return round(_FLOOR_MS * math.exp((bucket + 0.5) * _STEP), 3)
        return None


class Breakdown:
    """Figures as a whole and by mode, model and task signature."""

    NAMES = ("mode", "model", "task_signature")

    def __init__(self) -> None:
        self.total = Group()
        self._by: dict[str, dict[str, Group]] = {name: {} for name in self.NAMES}

    def count(self, event: Kept, by: int) -> None:
        """Adds an event (`by` 1), or takes it out again (-1)."""
        self.total.count(event, by)
        for name, groups in self._by.items():
            key: str | None = getattr(event, name)
            if key is None:
                continue
            group = groups.get(key)
            if group is None:
                group = groups[key] = Group()
            group.count(event, by)
            if group.events == 0:
                del groups[key]

    def describe(self, name: str, limit: int) -> tuple[dict[str, Figures], int]:
        """The largest groups by `name`, and how many are left out."""
        groups = self._by[name]
        largest = sorted(groups.items(), key=lambda item: (-item[1].events, item[0]))
        return {key: group.describe() for key, group in largest[:limit]}, max(
            0, len(groups) - limit
        )


def _bucket_of(latency_ms: float) -> int:
    return 0 if latency_ms <= _FLOOR_MS else int(math.log(latency_ms / _FLOOR_MS) / _STEP)


def _positive(counter: Counter[str]) -> dict[str, int]:
    return {key: counter[key] for key in sorted(counter) if counter[key] > 0}
