"""OpenAI's chat completions as providers speak it: vLLM, llama.cpp, OpenRouter, Kimi and others."""

from __future__ import annotations

from typing import Any

from services.chatd.core.chat import Chat, Event, Image, Message, Reason, Text, Usage
from services.chatd.core.faults import Fault
from services.chatd.core.reading import (
    Object,
    as_count,
    as_object,
    as_objects,
    as_text,
)
from services.chatd.core.wires.base import (
    Dialect,
    EventLog,
    MakeId,
    Outgoing,
    SseReader,
    bearer,
    take_sampling,
)

_REASONS: dict[str, Reason] = {
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class ChatWire:
    """POST {url}/chat/completions."""

    def build(self, chat: Chat, model: str, stream: bool, dialect: Dialect) -> Outgoing:
        """The request; fields that are not known here go on as they came."""
        options, dropped = take_sampling(chat, dialect)
        body: Object = {**dialect.send, **chat.extra_for("chat"), **options, "model": model}
        body["messages"] = [_write_message(m, dialect) for m in chat.messages]
        if chat.max_tokens is not None:
            body[dialect.max_tokens_field] = chat.max_tokens
        if chat.effort is not None:
            if dialect.reasoning_field == "reasoning":
                body["reasoning"] = {"effort": chat.effort}
            else:
                body["reasoning_effort"] = chat.effort
        if chat.tools:
            body["tools"] = [
                write_tool(t.name, t.description, t.parameters, t.strict) for t in chat.tools
            ]
            if chat.choice is not None:
                named = {"type": "function", "function": {"name": chat.choice.name}}
                body["tool_choice"] = named if chat.choice.mode == "named" else chat.choice.mode
            if chat.parallel is not None:
                body["parallel_tool_calls"] = chat.parallel
        if chat.format is not None:
            body["response_format"] = _write_format(chat)
        if stream:
            # Always: what is streamed is counted like what is not.
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
        return Outgoing("/chat/completions", body, dropped)

    def read_whole(self, body: Object, make_id: MakeId) -> list[Event]:
        """The events of a completion."""
        choices = as_objects(body.get("choices"))
        if not choices:
            raise Fault("malformed", "it has no choices")
        log = EventLog(make_id)
        read_delta(log, as_object(choices[0].get("message")))
        log.usage = read_usage(body.get("usage"))
        _end(log, choices[0].get("finish_reason") or "stop")
        return log.close()

    def open_reader(self, make_id: MakeId, max_bytes: int) -> ChatReader:
        """A reader of chunks."""
        return ChatReader(make_id, max_bytes)

    def headers(self, key: str) -> dict[str, str]:
        """Bearer."""
        return bearer(key)


class ChatReader(SseReader):
    """Chunks, until `[DONE]` or a finish reason."""

    def on_event(self, body: Object) -> None:
        """One chunk."""
        self.log.usage = read_usage(body.get("usage")) or self.log.usage
        for choice in as_objects(body.get("choices"))[:1]:
            # Kimi tells the usage inside the last choice.
            self.log.usage = read_usage(choice.get("usage")) or self.log.usage
            read_delta(self.log, as_object(choice.get("delta")))
            if choice.get("finish_reason"):
                _end(self.log, choice["finish_reason"])

    def on_done(self) -> None:
        """`[DONE]` ends an answer whose finish reason was left out, if there is one."""
        if self.log.finish is None and self.log.said_something:
            self.log.ended("stop")


def _end(log: EventLog, reason: object) -> None:
    if reason == "error":
        raise Fault("status", "the answer ended in an error", status=500)
    log.ended(_REASONS.get(as_text(reason), "stop"))


def read_delta(log: EventLog, delta: Object) -> None:
    """Takes in a delta, or a whole message, which has the same fields."""
    log.reasoning(as_text(delta.get("reasoning_content")) or as_text(delta.get("reasoning")))
    content = delta.get("content")
    if isinstance(content, str):
        log.text(content)
    else:
        log.text("".join(as_text(part.get("text")) for part in as_objects(content)))
    log.text(as_text(delta.get("refusal")))
    for position, call in enumerate(as_objects(delta.get("tool_calls"))):
        function = as_object(call.get("function"))
        id, name = as_text(call.get("id")), as_text(function.get("name"))
        key: Any = call.get("index") if isinstance(call.get("index"), int) else position
        # Some number every call 0; an id that is new tells another call.
        if id and log.knows(key):
            key = (key, id)
        log.call(key, id, name)
        log.arguments(key, as_text(function.get("arguments")))
    called = as_object(delta.get("function_call"))
    if called:
        log.call("function_call", "", as_text(called.get("name")))
        log.arguments("function_call", as_text(called.get("arguments")))


def read_usage(value: object) -> Usage | None:
    """Tokens as OpenAI counts them; None where they are not told."""
    usage = as_object(value)
    if "prompt_tokens" not in usage and "completion_tokens" not in usage:
        return None
    prompt = as_object(usage.get("prompt_tokens_details"))
    output = as_object(usage.get("completion_tokens_details"))
    cost = usage.get("cost")
    return Usage(
        input=as_count(usage.get("prompt_tokens")),
        output=as_count(usage.get("completion_tokens")),
        # Kimi tells it at the top.
        cached=as_count(prompt.get("cached_tokens")) or as_count(usage.get("cached_tokens")),
        reasoning=as_count(output.get("reasoning_tokens")),
        cost=float(cost) if isinstance(cost, int | float) else None,
    )


def write_tool(name: str, description: str, parameters: Any, strict: bool | None) -> Object:
    """A tool as OpenAI's chat has it."""
    function: Object = {"name": name}
    if description:
        function["description"] = description
    if parameters is not None:
        function["parameters"] = parameters
    if strict is not None:
        function["strict"] = strict
    return {"type": "function", "function": function}


def _write_format(chat: Chat) -> Object:
    wanted = chat.format
    if wanted is None or wanted.schema is None:
        return {"type": "json_object"}
    schema: Object = {"name": wanted.name, "schema": wanted.schema}
    if wanted.description:
        schema["description"] = wanted.description
    if wanted.strict is not None:
        schema["strict"] = wanted.strict
    return {"type": "json_schema", "json_schema": schema}


def _write_message(message: Message, dialect: Dialect) -> Object:
    written: Object = {"role": message.role}
    if message.images:
        written["content"] = [_write_part(part) for part in message.parts]
    else:
        written["content"] = message.text
    if message.role == "tool":
        written["tool_call_id"] = message.call_id
    if message.calls:
        written["content"] = message.text or None
        written["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.calls
        ]
    if message.reasoning:
        written[dialect.reasoning_field] = message.reasoning
    return written


def _write_part(part: Text | Image) -> Object:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    url = part.url or f"data:{part.media_type};base64,{part.data}"
    return {"type": "image_url", "image_url": {"url": url}}
