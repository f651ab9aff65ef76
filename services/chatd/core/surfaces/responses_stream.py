"""OpenAI's responses as a stream of numbered events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.chatd.core.chat import (
    CallDelta,
    CallStart,
    Event,
    Finish,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    Usage,
)
from services.chatd.core.surfaces.base import Head, frame, known_usage
from services.chatd.core.surfaces.responses import (
    call_item,
    message_item,
    reasoning_item,
    write_response,
)
from shared.errors import LakehouseError
from shared.protocols import openai_error
from shared.wire.chatd_responses import ResponsesRequest


class ResponseWriter:
    """response.created … response.completed. Items follow one another."""

    def __init__(self, head: Head, asked: ResponsesRequest) -> None:
        self._head = head
        self._asked = asked
        self._number = -1
        self._output: list[dict[str, Any]] = []
        self._kind = ""
        self._text: list[str] = []
        self._call = ToolCall("", "", "")
        self._finish = Finish("stop")
        self._usage: Usage | None = None

    def begin(self) -> bytes:
        """The response as it begins."""
        response = write_response(self._head, self._asked, (), None, None)
        created = self._event("response.created", response=response)
        return created + self._event("response.in_progress", response=response)

    def write(self, events: Sequence[Event]) -> bytes:
        """Items and their deltas."""
        return b"".join(self._write(event) for event in events)

    def _write(self, event: Event) -> bytes:
        if isinstance(event, TextDelta):
            frames = self._open("text")
            self._text.append(event.text)
            return frames + self._event(
                "response.output_text.delta",
                **self._place(),
                content_index=0,
                delta=event.text,
                logprobs=[],
            )
        if isinstance(event, ReasoningDelta):
            if not event.text:
                return b""
            frames = self._open("reasoning")
            self._text.append(event.text)
            return frames + self._event(
                "response.reasoning_summary_text.delta",
                **self._place(),
                summary_index=0,
                delta=event.text,
            )
        if isinstance(event, CallStart):
            return self._open(f"call {event.index}", ToolCall(event.id, event.name, ""))
        if isinstance(event, CallDelta):
            self._text.append(event.arguments)
            return self._event(
                "response.function_call_arguments.delta", **self._place(), delta=event.arguments
            )
        if isinstance(event, Finish):
            self._finish = event
        else:
            self._usage = event
        return b""

    def end(self) -> bytes:
        """The last item's end, and the whole response."""
        # An answer that said nothing is still a message.
        frames = b"" if self._kind or self._output else self._open("text")
        frames += self._close()
        usage = known_usage(self._usage)
        response = write_response(self._head, self._asked, self._output, self._finish, usage)
        return frames + self._event(f"response.{response['status']}", response=response)

    def fail(self, error: LakehouseError, request_id: str) -> bytes:
        """An error event; its inner `error` is what the SDKs raise on."""
        body = openai_error(error)
        inner: dict[str, Any] = body["error"]
        shown = {name: inner[name] for name in ("code", "message", "param")}
        return self._event("error", **shown, **body)

    def _open(self, kind: str, call: ToolCall | None = None) -> bytes:
        if self._kind == kind:
            return b""
        frames = self._close()
        self._kind = kind
        self._text = []
        index = len(self._output)
        if call is not None:
            self._call = call
            item = call_item(self._head, index, call, "in_progress")
        elif kind == "reasoning":
            item = reasoning_item(self._head, index, "")
        else:
            item = message_item(self._head, index, "", "in_progress")
        frames += self._event("response.output_item.added", output_index=index, item=item)
        self._id = str(item["id"])
        if kind == "text":
            part = {"type": "output_text", "text": "", "annotations": []}
            frames += self._event(
                "response.content_part.added", **self._place(), content_index=0, part=part
            )
        elif kind == "reasoning":
            part = {"type": "summary_text", "text": ""}
            frames += self._event(
                "response.reasoning_summary_part.added",
                **self._place(),
                summary_index=0,
                part=part,
            )
        return frames

    def _close(self) -> bytes:
        if not self._kind:
            return b""
        kind, self._kind = self._kind, ""
        text, index, place = "".join(self._text), len(self._output), self._place()
        if kind == "text":
            item = message_item(self._head, index, text, "completed")
            frames = self._event(
                "response.output_text.done", **place, content_index=0, text=text, logprobs=[]
            )
            frames += self._event(
                "response.content_part.done", **place, content_index=0, part=item["content"][0]
            )
        elif kind == "reasoning":
            item = reasoning_item(self._head, index, text)
            frames = self._event(
                "response.reasoning_summary_text.done", **place, summary_index=0, text=text
            )
            frames += self._event(
                "response.reasoning_summary_part.done",
                **place,
                summary_index=0,
                part=item["summary"][0],
            )
        else:
            call = ToolCall(self._call.id, self._call.name, text)
            item = call_item(self._head, index, call, "completed")
            frames = self._event(
                "response.function_call_arguments.done",
                **place,
                name=call.name,
                arguments=text,
            )
        self._output.append(item)
        return frames + self._event("response.output_item.done", output_index=index, item=item)

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._id, "output_index": len(self._output)}

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._number += 1
        return frame({"type": kind, "sequence_number": self._number, **fields}, kind)
