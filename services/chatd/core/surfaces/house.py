"""The house's own chat: `POST /chat`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.chatd.core.chat import (
    Answer,
    CallDelta,
    CallStart,
    Chat,
    Event,
    Finish,
    ReasoningDelta,
    TextDelta,
    Usage,
)
from services.chatd.core.surfaces.base import Head, frame, known_usage
from services.chatd.core.surfaces.openai import read_fields, write_calls
from shared.errors import LakehouseError
from shared.wire.chatd import ChatRequest


def read_request(asked: ChatRequest) -> Chat:
    """The chat that is asked for."""
    return read_fields(asked, {})


def write_whole(answer: Answer, head: Head, latency_ms: float) -> dict[str, Any]:
    """`ChatResponse`."""
    body: dict[str, Any] = {
        "model": head.model,
        "provider": head.provider,
        "content": answer.text,
        "finish_reason": answer.reason,
        "usage": write_usage(known_usage(answer.usage)),
        "latency_ms": round(latency_ms, 2),
    }
    if answer.reasoning:
        body["reasoning"] = answer.reasoning
    if answer.calls:
        body["tool_calls"] = write_calls(answer.calls)
    return body


def write_usage(usage: Usage) -> dict[str, Any]:
    """`ChatUsage`."""
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "cached_tokens": usage.cached,
        "reasoning_tokens": usage.reasoning,
        "cost_usd": usage.cost,
        "estimated": usage.estimated,
    }


class HouseWriter:
    """Server-sent events: `text`, `reasoning`, `tool_call`, then `done` with all of it.

    Args:
        clock: gives the milliseconds since the request came.
    """

    def __init__(self, head: Head, clock: Any) -> None:
        self._head = head
        self._clock = clock
        self._answer = Answer()

    def begin(self) -> bytes:
        """Who answers."""
        head = self._head
        return frame({"type": "start", "model": head.model, "provider": head.provider})

    def write(self, events: Sequence[Event]) -> bytes:
        """Pieces as they come; calls are shown whole at the end."""
        frames: list[bytes] = []
        for event in events:
            self._answer.add(event)
            if isinstance(event, TextDelta):
                frames.append(frame({"type": "text", "text": event.text}))
            elif isinstance(event, ReasoningDelta) and event.text:
                frames.append(frame({"type": "reasoning", "text": event.text}))
            elif isinstance(event, CallStart | CallDelta | Finish):
                continue
        return b"".join(frames)

    def end(self) -> bytes:
        """The whole answer."""
        whole = write_whole(self._answer, self._head, self._clock())
        return frame({"type": "done", **whole})

    def fail(self, error: LakehouseError, request_id: str) -> bytes:
        """The envelope."""
        return frame({"type": "error", **error.envelope("chatd", request_id)})
