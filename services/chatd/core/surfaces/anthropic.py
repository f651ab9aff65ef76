"""Anthropic's messages towards clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
from services.chatd.core.reading import as_count, as_object, write_json
from services.chatd.core.surfaces.base import Head, frame, known_usage, refuse
from services.chatd.core.wires.base import read_arguments
from shared.errors import LakehouseError
from shared.protocols import anthropic_error
from shared.wire.chatd_anthropic import (
    AnthropicChoice,
    Block,
    CountTokensRequest,
    MessagesRequest,
)

_MODES: dict[str, Any] = {"auto": "auto", "any": "required", "none": "none", "tool": "named"}
_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
# Thinking budgets up to which an effort is meant, for providers that know efforts alone.
_BUDGETS = ((2048, "low"), (8192, "medium"))


def read_request(asked: MessagesRequest) -> Chat:
    """The chat that is asked for.

    Raises:
        Invalid: it asks for what there is not here.
    """
    options: dict[str, Any] = {
        name: getattr(asked, name)
        for name in ("temperature", "top_p", "top_k")
        if name in asked.model_fields_set
    }
    if asked.stop_sequences:
        options["stop"] = asked.stop_sequences
    chat = read_input(asked)
    choice = asked.tool_choice
    config = asked.output_config
    wanted = config.format if config is not None else None
    parallel = choice.disable_parallel_tool_use if choice is not None else None
    return Chat(
        model=asked.model,
        messages=chat.messages,
        tools=chat.tools,
        choice=None if choice is None else _read_choice(choice),
        parallel=None if parallel is None else not parallel,
        format=None if wanted is None else Format(wanted.value),
        max_tokens=asked.max_tokens,
        options=options,
        effort=_read_effort(asked),
        extra=chat.extra,
        spoken="messages",
    )


def read_input(asked: CountTokensRequest) -> Chat:
    """What the model would read: messages and tools."""
    for tool in asked.tools or ():
        if tool.type not in (None, "custom"):
            raise refuse("tools", f"{tool.type!r} runs on Anthropic's servers; define your own.")
    messages: list[Message] = []
    if asked.system is not None:
        messages.append(Message("system", _read_parts(asked.system)))
    names: dict[str, str] = {}
    for message in asked.messages:
        if isinstance(message.content, str):
            messages.append(Message(message.role, (Text(message.content),)))
        else:
            messages += _read_turn(message.role, message.content, names)
    return Chat(
        model=asked.model,
        messages=tuple(messages),
        tools=tuple(
            Tool(t.name, t.description or "", t.input_schema, t.strict, t.cache_control)
            for t in asked.tools or ()
        ),
        extra=dict(asked.model_extra or {}),
        spoken="messages",
    )


def _read_turn(role: Any, blocks: Sequence[Block], names: dict[str, str]) -> list[Message]:
    """A turn's messages: results of tools are messages of their own here, before the rest."""
    results: list[Message] = []
    parts: list[Part] = []
    calls: list[ToolCall] = []
    reasoning = signature = ""
    for block in blocks:
        if block.type == "tool_result":
            content = block.content or ""
            name = names.get(block.tool_use_id, "")
            results.append(
                Message(
                    "tool",
                    _read_parts(content),
                    call_id=block.tool_use_id,
                    name=name,
                    failed=block.is_error,
                    mark=block.cache_control,
                )
            )
        elif block.type == "tool_use":
            names[block.id] = block.name
            arguments = write_json(block.input or {}).decode()
            calls.append(ToolCall(block.id, block.name, arguments, block.cache_control))
        elif block.type == "thinking":
            reasoning += block.thinking
            signature = block.signature or signature
        elif block.type != "redacted_thinking":
            parts.append(_read_block(block))
    if not (parts or calls or reasoning):
        return results
    turn = Message(role, tuple(parts), tuple(calls), reasoning=reasoning, signature=signature)
    return [*results, turn]


def _read_parts(content: str | Sequence[Block]) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (Text(content),) if content else ()
    return tuple(_read_block(block) for block in content)


def _read_block(block: Block) -> Part:
    if block.type == "text":
        return Text(block.text, block.cache_control)
    source = block.source
    if block.type == "image" and source is not None:
        if source.type == "base64":
            return Image(source.media_type, source.data, mark=block.cache_control)
        if source.type == "url":
            return Image(url=source.url, mark=block.cache_control)
    raise refuse(
        "messages",
        f"content of type {block.type[:40]!r} is not supported here; text, "
        "image, tool_use, tool_result and thinking are.",
    )


def _read_choice(choice: AnthropicChoice) -> Choice:
    return Choice(_MODES[choice.type], choice.name)


def _read_effort(asked: MessagesRequest) -> str | None:
    if asked.output_config is not None and asked.output_config.effort is not None:
        effort = asked.output_config.effort
        return "xhigh" if effort == "max" else effort
    thinking = as_object((asked.model_extra or {}).get("thinking"))
    if thinking.get("type") == "disabled":
        return "none"
    if thinking.get("type") != "enabled":
        return None
    budget = as_count(thinking.get("budget_tokens"))
    return next((effort for most, effort in _BUDGETS if budget <= most), "high")


def write_usage(usage: Usage) -> dict[str, Any]:
    """Tokens as Anthropic counts them: the input without what was cached."""
    return {
        "input_tokens": max(0, usage.input - usage.cached - usage.cache_written),
        "output_tokens": usage.output,
        "cache_read_input_tokens": usage.cached,
        "cache_creation_input_tokens": usage.cache_written,
    }


def _stop_fields(finish: Finish | None) -> dict[str, Any]:
    if finish is not None and finish.reason == "stop" and finish.stop is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": finish.stop}
    reason = finish.reason if finish is not None else "stop"
    return {"stop_reason": _STOP_REASONS[reason], "stop_sequence": None}


def write_whole(answer: Answer, head: Head) -> dict[str, Any]:
    """A message."""
    content: list[dict[str, Any]] = []
    if answer.reasoning:
        content.append(
            {"type": "thinking", "thinking": answer.reasoning, "signature": answer.signature}
        )
    if answer.text:
        content.append({"type": "text", "text": answer.text})
    content += [
        {
            "type": "tool_use",
            "id": call.id,
            "name": call.name,
            "input": as_object(read_arguments(call.arguments)),
        }
        for call in answer.calls
    ]
    return {
        "id": f"msg_{head.id}",
        "type": "message",
        "role": "assistant",
        "model": head.model,
        "content": content,
        **_stop_fields(answer.finish),
        "usage": write_usage(known_usage(answer.usage)),
    }


class MessageWriter:
    """A message in events. Blocks follow one another; each ends before the next begins."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._index = -1
        self._kind = ""
        self._finish: Finish | None = None
        self._usage: Usage | None = None

    def begin(self) -> bytes:
        """message_start. What was read is known at the end only, and told there."""
        message = {
            "id": f"msg_{self._head.id}",
            "type": "message",
            "role": "assistant",
            "model": self._head.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        return _event("message_start", message=message)

    def write(self, events: Sequence[Event]) -> bytes:
        """Blocks and their deltas."""
        return b"".join(self._write(event) for event in events)

    def _write(self, event: Event) -> bytes:
        if isinstance(event, TextDelta):
            start = self._open("text", {"type": "text", "text": ""})
            return start + self._delta({"type": "text_delta", "text": event.text})
        if isinstance(event, ReasoningDelta):
            block = {"type": "thinking", "thinking": "", "signature": ""}
            frames = self._open("thinking", block)
            if event.text:
                frames += self._delta({"type": "thinking_delta", "thinking": event.text})
            if event.signature:
                frames += self._delta({"type": "signature_delta", "signature": event.signature})
            return frames
        if isinstance(event, CallStart):
            block = {"type": "tool_use", "id": event.id, "name": event.name, "input": {}}
            return self._open(f"call {event.index}", block)
        if isinstance(event, CallDelta):
            delta = {"type": "input_json_delta", "partial_json": event.arguments}
            return self._delta(delta)
        if isinstance(event, Finish):
            self._finish = event
        else:
            self._usage = event
        return b""

    def end(self) -> bytes:
        """The last block's end, why it ended, and the tokens."""
        frames = self._close()
        usage = write_usage(known_usage(self._usage))
        frames += _event("message_delta", delta=_stop_fields(self._finish), usage=usage)
        return frames + _event("message_stop")

    def fail(self, error: LakehouseError, request_id: str) -> bytes:
        """An error event."""
        return frame(anthropic_error(error, request_id), "error")

    def _open(self, kind: str, block: dict[str, Any]) -> bytes:
        if self._kind == kind:
            return b""
        frames = self._close()
        self._kind = kind
        self._index += 1
        return frames + _event("content_block_start", index=self._index, content_block=block)

    def _close(self) -> bytes:
        if not self._kind:
            return b""
        self._kind = ""
        return _event("content_block_stop", index=self._index)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", index=self._index, delta=delta)


def _event(kind: str, **fields: Any) -> bytes:
    return frame({"type": kind, **fields}, kind)
