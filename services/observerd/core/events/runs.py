"""A run put together from its events."""

from __future__ import annotations

from collections import Counter

import orjson

from services.observerd.core.events.ring import RunEvents
from shared.wire.observerd import ObservedRun, RunStep

# A run is as bad as its worst step; a step that only started is still under way.
_BY_BADNESS = ("error", "timeout", "cancelled", "started", "ok", "skipped")


def assemble_run(run: RunEvents, *, steps: bool) -> ObservedRun:
    """The run that the events of `run` make up; its steps by their first event."""
    latest: dict[str | None, RunStep] = {}
    verdicts: Counter[str] = Counter()
    for event in run.events:
        # A repeated node is one step whose latest event counts; earlier tries are attempts.
        seen = latest.pop(event.node_id, None)
        facts = orjson.loads(event.blob)
        latest[event.node_id] = RunStep(
            node_id=event.node_id,
            attempts=max(event.attempt, seen.attempts if seen else 1),
            status=event.status,
            verdict=event.verdict,
            scorer_status=event.scorer_status,
            score=facts.get("score"),
            latency_ms=event.latency_ms,
            error=facts.get("error"),
            last_seq=event.seq,
        )
    for step in latest.values():
        if step.verdict is not None:
            verdicts[step.verdict] += 1
    last = run.events[-1]
    found = {step.status for step in latest.values()}
    return ObservedRun(
        run_id=last.run_id,
        status=next(status for status in _BY_BADNESS if status in found),
        events=len(run.events) + run.evicted,
        complete=run.complete,
        first_seq=run.first_seq,
        last_seq=last.seq,
        started_at=run.started_at,
        last_at=last.t,
        modes=sorted({event.mode for event in run.events if event.mode}),
        models=sorted({event.model for event in run.events if event.model}),
        verdicts=dict(verdicts),
        prompt_tokens=sum(event.prompt_tokens for event in run.events),
        completion_tokens=sum(event.completion_tokens for event in run.events),
        steps=list(latest.values()) if steps else [],
    )
