"""Ollama's own protocol: POST /api/chat, one JSON object a line.

Not its /v1: that puts temperature and top_p in where they are absent.
"""

from __future__ import annotations

from typing import Any

import orjson

from services.chatd.core.chat import Chat, Event, Message, Reason, Usage
from services.chatd.core.faults import Fault, fault_of_body
from services.chatd.core.frames import LineCutter
from services.chatd.core.reading import Object, as_count, as_object, as_objects, as_text
from services.chatd.core.wires.base import (
    Dialect,
    EventLog,
    MakeId,
    Outgoing,
    bearer,
    decode,
    read_arguments,
    take_sampling,
)
from services.chatd.core.wires.chat import write_tool
from shared.errors import Invalid

# `none` is not here: it turns thinking off.
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "max"}


class OllamaWire:
    """POST {url}/api/chat."""

    def build(self, chat: Chat, model: str, stream: bool, dialect: Dialect) -> Outgoing:
        """The request. Fields of OpenAI's protocol that are unknown here have no place in it."""
        sampling, dropped = take_sampling(chat, dialect)
        # Null is OpenAI's word for "not set"; here that is absence.
        options: dict[str, Any] = {k: v for k, v in sampling.items() if v is not None}
        if chat.max_tokens is not None:
            options["num_predict"] = chat.max_tokens
        body: Object = {**dialect.send, "model": model, "stream": stream}
        body["messages"] = [_write_message(m) for m in chat.messages]
        if options:
            body["options"] = {**as_object(dialect.send.get("options")), **options}
        mode = chat.choice.mode if chat.choice is not None else "auto"
        if chat.tools and mode != "none":
            # It ignores tool_choice; a named tool is the only one that it is shown.
            body["tools"] = [
                write_tool(t.name, t.description, t.parameters or {"type": "object"}, None)
                for t in chat.tools
                if mode != "named" or (chat.choice is not None and t.name == chat.choice.name)
            ]
        if chat.format is not None:
            body["format"] = "json" if chat.format.schema is None else chat.format.schema
        if chat.effort is not None:
            body["think"] = _EFFORTS.get(chat.effort, False)
        return Outgoing("/api/chat", body, dropped)

    def read_whole(self, body: Object, make_id: MakeId) -> list[Event]:
        """The events of the one object."""
        if "message" not in body:
            raise Fault("malformed", "it has no message")
        log = EventLog(make_id)
        _take_line(log, {"done": True, **body}, 0)
        return log.close()

    def open_reader(self, make_id: MakeId, max_bytes: int) -> OllamaReader:
        """A reader of lines."""
        return OllamaReader(make_id, max_bytes)

    def headers(self, key: str) -> dict[str, str]:
        """Bearer, at ollama.com."""
        return bearer(key)


class OllamaReader:
    """Lines, until the one that is done."""

    def __init__(self, make_id: MakeId, max_bytes: int) -> None:
        self._cutter = LineCutter(max_bytes)
        self._log = EventLog(make_id)
        self._lines = 0
        self.over = False

    def feed(self, data: bytes) -> list[Event]:
        """The events that are complete now."""
        for line in self._cutter.cut(data):
            self._read(line)
        return self._log.take()

    def end(self) -> list[Event]:
        """The last events."""
        for line in self._cutter.end():
            self._read(line)
        return self._log.close()

    def _read(self, line: bytes) -> None:
        body = decode(line)
        told = fault_of_body(body, status=200)
        if told is not None:
            raise told
        self._lines += 1
        _take_line(self._log, as_object(body), self._lines)
        self.over = self._log.finish is not None


def _take_line(log: EventLog, body: Object, line: int) -> None:
    message = as_object(body.get("message"))
    log.reasoning(as_text(message.get("thinking")))
    log.text(as_text(message.get("content")))
    # Each call comes whole, in one line; several lines may bring calls.
    for position, call in enumerate(as_objects(message.get("tool_calls"))):
        function = as_object(call.get("function"))
        key = (line, position)
        log.call(key, as_text(call.get("id")), as_text(function.get("name")))
        given = function.get("arguments")
        text = given if isinstance(given, str) else orjson.dumps(given or {}).decode()
        log.arguments(key, text)
    if body.get("done") is True:
        reason: Reason = "length" if body.get("done_reason") == "length" else "stop"
        log.ended(reason)
        if "eval_count" in body or "prompt_eval_count" in body:
            log.usage = Usage(
                as_count(body.get("prompt_eval_count")), as_count(body.get("eval_count"))
            )


def _write_message(message: Message) -> Object:
    written: Object = {"role": message.role, "content": message.text}
    if message.images:
        written["images"] = [_image_data(image.data) for image in message.images]
    if message.calls:
        written["tool_calls"] = [
            {
                "id": call.id,
                "function": {"name": call.name, "arguments": _arguments(call.arguments)},
            }
            for call in message.calls
        ]
    if message.role == "tool":
        written["tool_name"] = message.name
        written["tool_call_id"] = message.call_id
    if message.reasoning:
        written["thinking"] = message.reasoning
    return written


def _arguments(text: str) -> Object:
    return as_object(read_arguments(text))


def _image_data(data: str) -> str:
    if not data:
        raise Invalid(
            "Ollama takes images as data only. Send the image itself as a data: URL.",
            details={"field": "messages"},
        )
    return data
