"""An event on its way into the log, and what the ring keeps of it."""

from __future__ import annotations

from typing import Any, NamedTuple

from services.observerd.core.events.verdicts import settle_verdict
from shared.wire.observerd import Event


class Kept(NamedTuple):
    """One recorded event: its place, its JSON, and what figures and runs are made of."""

    seq: int
    t: int
    blob: bytes
    run_id: str
    node_id: str | None
    attempt: int
    mode: str | None
    model: str | None
    task_signature: str | None
    status: str
    verdict: str | None
    scorer_status: str | None
    latency_ms: float | None
    prompt_tokens: int
    completion_tokens: int
    event_id: str | None


def make_payload(event: Event) -> dict[str, Any]:
    """The event as it is logged: what was left out stays out, the verdict is settled."""
    payload = event.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    payload["attempt"] = event.attempt
    if event.verdict is None and event.scorer_status is None and event.score is None:
        return payload
    settled = settle_verdict(event.verdict, event.scorer_status, event.score, event.evidence)
    for name, value in settled._asdict().items():
        payload.pop(name, None)
        if value is not None:
            payload[name] = value
    claimed = event.verdict
    if claimed is not None and claimed != settled.verdict:
        # Kept for whoever reviews it; nothing reads it as a verdict.
        payload["claimed"] = claimed
    return payload


def keep(seq: int, t: int, payload: dict[str, Any], blob: bytes) -> Kept:
    """What the ring keeps of a payload of `make_payload`, `blob` being its JSON."""
    tokens: dict[str, int] = payload.get("tokens") or {}
    return Kept(
        seq=seq,
        t=t,
        blob=blob,
        run_id=payload["run_id"],
        node_id=payload.get("node_id"),
        attempt=payload.get("attempt", 1),
        mode=payload.get("mode"),
        model=payload.get("model"),
        task_signature=payload.get("task_signature"),
        status=payload["status"],
        verdict=payload.get("verdict"),
        scorer_status=payload.get("scorer_status"),
        latency_ms=payload.get("latency_ms"),
        prompt_tokens=tokens.get("prompt", 0),
        completion_tokens=tokens.get("completion", 0),
        event_id=payload.get("id"),
    )
