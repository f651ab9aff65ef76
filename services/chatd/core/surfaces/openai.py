"""OpenAI's chat completions towards clients. The rules its SDKs rely on stand in docs/chatd.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from services.chatd.core.chat import (
    Answer,
    CallDelta,
    CallStart,
    Chat,
    Choice,
    Event,
    Finish,
    Format,
    Image,
    Message,
    Part,
    ReasoningDelta,
    Text,
    TextDelta,
    Tool,
    ToolCall,
    Usage,
)
from services.chatd.core.surfaces.base import Head, frame, known_usage, read_image, refuse
from shared.errors import LakehouseError
from shared.protocols import openai_error
from shared.wire.chatd_openai import (
    ChatFields,
    ChatMessage,
    ContentPart,
    NamedTool,
    OpenAIChatRequest,
)

_OPTIONS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
)
DONE = b"data: [DONE]\n\n"


def read_request(asked: OpenAIChatRequest) -> Chat:
    """The chat that is asked for.

    Raises:
        Invalid: it asks for what there is not here.
    """
    if asked.n not in (None, 1):
        raise refuse("n", "one answer is given to a request. Ask n times for n answers.")
    if asked.logprobs:
        raise refuse("logprobs", "they are not passed on. Leave logprobs out.")
    if asked.functions is not None or asked.function_call is not None:
        raise refuse("functions", "send tools and tool_choice, which took their place.")
    if asked.modalities not in (None, ["text"]):
        raise refuse("modalities", "text is the only one here.")
    return read_fields(asked, dict(asked.model_extra or {}))


def read_fields(asked: ChatFields, extra: dict[str, Any]) -> Chat:
    """The chat of the fields that /chat and /v1/chat/completions share."""
    given = asked.model_fields_set
    limit = asked.max_completion_tokens
    choice = asked.tool_choice
    return Chat(
        model=asked.model,
        messages=read_messages(asked.messages),
        tools=tuple(
            Tool(
                t.function.name,
                t.function.description or "",
                t.function.parameters,
                t.function.strict,
            )
            for t in asked.tools or ()
        ),
        choice=None if choice is None else _read_choice(choice),
        parallel=asked.parallel_tool_calls,
        format=_read_format(asked),
        max_tokens=asked.max_tokens if limit is None else limit,
        options={name: getattr(asked, name) for name in _OPTIONS if name in given},
        effort="xhigh" if asked.reasoning_effort == "max" else asked.reasoning_effort,
        extra=extra,
    )


def read_messages(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """The messages; those of tools get the name of the tool that was called."""
    names: dict[str, str] = {}
    read: list[Message] = []
    for message in messages:
        calls = tuple(
            ToolCall(c.id, c.function.name, c.function.arguments) for c in message.tool_calls or ()
        )
        names.update({call.id: call.name for call in calls})
        call_id = message.tool_call_id or ""
        if message.role == "tool" and not call_id:
            raise refuse("messages", "a message of role tool needs its tool_call_id.")
        read.append(
            Message(
                role="system" if message.role == "developer" else message.role,
                parts=_read_content(message),
                calls=calls,
                call_id=call_id,
                name=names.get(call_id, message.name or ""),
                reasoning=message.reasoning_content or message.reasoning or "",
            )
        )
    return tuple(read)


def _read_content(message: ChatMessage) -> tuple[Part, ...]:
    content = message.content
    if content is None:
        return (Text(message.refusal),) if message.refusal else ()
    if isinstance(content, str):
        return (Text(content),)
    return tuple(_read_part(part) for part in content)


def _read_part(part: ContentPart) -> Text | Image:
    if part.type == "text":
        return Text(part.text or "")
    if part.type == "refusal":
        return Text(part.refusal or "")
    if part.type == "image_url" and part.image_url is not None:
        return read_image(part.image_url.url)
    raise refuse(
        "messages", f"content of type {part.type[:40]!r} is not supported; text and image_url are."
    )


def _read_choice(choice: Any) -> Choice:
    if isinstance(choice, NamedTool):
        return Choice("named", choice.function.name)
    return Choice(choice)


def _read_format(asked: ChatFields) -> Format | None:
    wanted = asked.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return Format()
    schema = wanted.json_schema
    if schema is None or schema.value is None:
        raise refuse("response_format", "type json_schema needs json_schema.schema.")
    return Format(schema.value, schema.name, schema.description or "", schema.strict)


def write_usage(usage: Usage) -> dict[str, Any]:
    """Tokens as OpenAI counts them."""
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def write_calls(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    """Tool calls of a whole answer."""
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in calls
    ]


def write_whole(answer: Answer, head: Head) -> dict[str, Any]:
    """A chat completion."""
    calls = answer.calls
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer.text or (None if calls else ""),
        "refusal": None,
    }
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if calls:
        message["tool_calls"] = write_calls(calls)
    return {
        "id": f"chatcmpl-{head.id}",
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": answer.reason,
                "logprobs": None,
            }
        ],
        "usage": write_usage(known_usage(answer.usage)),
    }


class ChunkWriter:
    """A chat completion in chunks.

    `id` and `created` are those of the head in every chunk; role first, a chunk of its own
    for the finish reason, then usage if it was asked for, then `[DONE]`.
    """

    def __init__(self, head: Head, include_usage: bool) -> None:
        start = {
            "id": f"chatcmpl-{head.id}",
            "object": "chat.completion.chunk",
            "created": head.created,
            "model": head.model,
        }
        # All but the delta is the same in every chunk.
        self._start = b"data: " + orjson.dumps(start)[:-1]
        self._before = self._start + b',"choices":[{"index":0,"delta":'
        usage = b',"usage":null' if include_usage else b""
        self._after = b',"finish_reason":null}]' + usage + b"}\n\n"
        self._last = b"}]" + usage + b"}\n\n"
        self._include_usage = include_usage
        self._usage: Usage | None = None

    def begin(self) -> bytes:
        """The role."""
        return self._chunk({"role": "assistant", "content": ""})

    def write(self, events: Sequence[Event]) -> bytes:
        """A chunk an event."""
        return b"".join(self._write(event) for event in events)

    def _write(self, event: Event) -> bytes:
        if isinstance(event, TextDelta):
            return self._chunk({"content": event.text})
        if isinstance(event, ReasoningDelta):
            return self._chunk({"reasoning_content": event.text}) if event.text else b""
        if isinstance(event, CallStart):
            call = {
                "index": event.index,
                "id": event.id,
                "type": "function",
                "function": {"name": event.name, "arguments": ""},
            }
            return self._chunk({"tool_calls": [call]})
        if isinstance(event, CallDelta):
            more = {"index": event.index, "function": {"arguments": event.arguments}}
            return self._chunk({"tool_calls": [more]})
        if isinstance(event, Finish):
            reason = orjson.dumps(event.reason)
            return self._before + b'{},"finish_reason":' + reason + self._last
        self._usage = event
        return b""

    def end(self) -> bytes:
        """Usage, if it was asked for, and the end."""
        if not self._include_usage:
            return DONE
        usage = orjson.dumps(write_usage(known_usage(self._usage)))
        return self._start + b',"choices":[],"usage":' + usage + b"}\n\n" + DONE

    def fail(self, error: LakehouseError, request_id: str) -> bytes:
        """The error as its own event; no `[DONE]`, for it is not done."""
        return frame(openai_error(error))

    def _chunk(self, delta: dict[str, Any]) -> bytes:
        return self._before + orjson.dumps(delta) + self._after
