"""Anthropic's messages as providers speak it."""

from __future__ import annotations

import orjson

from services.chatd.core.chat import Chat, Event, Image, Mark, Message, Reason, Text, Usage
from services.chatd.core.faults import Fault
from services.chatd.core.reading import Object, as_count, as_object, as_objects, as_text
from services.chatd.core.wires.base import (
    Dialect,
    EventLog,
    MakeId,
    Outgoing,
    SseReader,
    read_arguments,
    take_sampling,
    take_turns,
)

VERSION = "2023-06-01"
_REASONS: dict[str, Reason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_OPTIONS = ("temperature", "top_p", "top_k")
_MODES = {"auto": "auto", "none": "none", "required": "any", "named": "tool"}
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "max"}


class MessagesWire:
    """POST {url}/messages."""

    def build(self, chat: Chat, model: str, stream: bool, dialect: Dialect) -> Outgoing:
        """The request. A sampling field that is absent or null stays out of it."""
        sampling, dropped = take_sampling(chat, dialect)
        limit = chat.max_tokens if chat.max_tokens is not None else dialect.messages_max_tokens
        body: Object = {
            **dialect.send,
            **chat.extra_for("messages"),
            "model": model,
            "max_tokens": limit,
        }
        for name, value in sampling.items():
            if value is None:
                continue
            if name in _OPTIONS:
                body[name] = value
            elif name == "stop":
                body["stop_sequences"] = [value] if isinstance(value, str) else value
            else:
                dropped = (*dropped, name)
        _write_system(body, chat.messages)
        body["messages"] = take_turns(
            chat.messages, _write_blocks, assistant="assistant", content="content"
        )
        if chat.tools:
            body["tools"] = [
                {
                    "name": tool.name,
                    **({"description": tool.description} if tool.description else {}),
                    "input_schema": tool.parameters or {"type": "object", "properties": {}},
                    **_mark(tool.mark),
                }
                for tool in chat.tools
            ]
            _write_choice(body, chat)
        output: Object = {}
        if chat.effort is not None and chat.effort != "none":
            output["effort"] = _EFFORTS.get(chat.effort, "high")
        if chat.format is not None:
            schema = chat.format.schema or {"type": "object"}
            output["format"] = {"type": "json_schema", "schema": schema}
        if output:
            body["output_config"] = output
        if stream:
            body["stream"] = True
        return Outgoing("/messages", body, dropped)

    def read_whole(self, body: Object, make_id: MakeId) -> list[Event]:
        """The events of a message."""
        if not isinstance(body.get("content"), list):
            raise Fault("malformed", "it has no content")
        log = EventLog(make_id)
        for position, block in enumerate(as_objects(body["content"])):
            _begin_block(log, position, block)
            if block.get("type") == "tool_use":
                log.arguments(position, orjson.dumps(block.get("input") or {}).decode())
        log.usage = read_usage(as_object(body.get("usage")))
        end(log, body)
        return log.close()

    def open_reader(self, make_id: MakeId, max_bytes: int) -> MessagesReader:
        """A reader of message events."""
        return MessagesReader(make_id, max_bytes)

    def headers(self, key: str) -> dict[str, str]:
        """The key by Anthropic's own header."""
        found = {"anthropic-version": VERSION}
        if key:
            found["x-api-key"] = key
        return found


class MessagesReader(SseReader):
    """message_start … message_stop."""

    def __init__(self, make_id: MakeId, max_bytes: int) -> None:
        super().__init__(make_id, max_bytes)
        self._usage: Object = {}

    def on_event(self, body: Object) -> None:
        """One event; kinds that are not known are passed over, as the protocol asks."""
        kind = body.get("type")
        index = body.get("index")
        if kind == "content_block_delta":
            delta = as_object(body.get("delta"))
            self.log.text(as_text(delta.get("text")))
            self.log.reasoning(as_text(delta.get("thinking")), as_text(delta.get("signature")))
            if delta.get("type") == "input_json_delta" and self.log.knows(index):
                self.log.arguments(index, as_text(delta.get("partial_json")))
        elif kind == "content_block_start":
            _begin_block(self.log, index, as_object(body.get("content_block")))
        elif kind == "message_start":
            self._usage = as_object(as_object(body.get("message")).get("usage"))
        elif kind == "message_delta":
            # Its counts are of the whole message so far, and it may leave some out.
            told = as_object(body.get("usage"))
            self._usage = {**self._usage, **{k: v for k, v in told.items() if v is not None}}
            self.log.usage = read_usage(self._usage)
            delta = as_object(body.get("delta"))
            if delta.get("stop_reason"):
                end(self.log, delta)
        elif kind == "message_stop":
            self.over = True


def _begin_block(log: EventLog, index: object, block: Object) -> None:
    kind = block.get("type")
    if kind == "text":
        log.text(as_text(block.get("text")))
    elif kind == "thinking":
        log.reasoning(as_text(block.get("thinking")), as_text(block.get("signature")))
    elif kind == "tool_use" and isinstance(index, int):
        log.call(index, as_text(block.get("id")), as_text(block.get("name")))


def end(log: EventLog, body: Object) -> None:
    """Takes in why a message ended."""
    stop = as_text(body.get("stop_sequence")) or None
    log.ended(_REASONS.get(as_text(body.get("stop_reason")), "stop"), stop)


def read_usage(usage: Object) -> Usage | None:
    """Tokens as Anthropic counts them: its input leaves out what was cached."""
    if "input_tokens" not in usage and "output_tokens" not in usage:
        return None
    cached = as_count(usage.get("cache_read_input_tokens"))
    written = as_count(usage.get("cache_creation_input_tokens"))
    return Usage(
        input=as_count(usage.get("input_tokens")) + cached + written,
        output=as_count(usage.get("output_tokens")),
        cached=cached,
        cache_written=written,
    )


def _write_choice(body: Object, chat: Chat) -> None:
    if chat.choice is None and chat.parallel is None:
        return
    mode = chat.choice.mode if chat.choice is not None else "auto"
    choice: Object = {"type": _MODES[mode]}
    if chat.choice is not None and mode == "named":
        choice["name"] = chat.choice.name
    if chat.parallel is not None and mode != "none":
        choice["disable_parallel_tool_use"] = not chat.parallel
    body["tool_choice"] = choice


def _mark(mark: Mark) -> Object:
    return {} if mark is None else {"cache_control": mark}


def _write_system(body: Object, messages: tuple[Message, ...]) -> None:
    parts = [p for m in messages if m.role == "system" for p in m.parts if isinstance(p, Text)]
    if any(part.mark is not None for part in parts):
        body["system"] = [_write_part(part) for part in parts]
        return
    system = "\n\n".join(m.text for m in messages if m.role == "system")
    if system:
        body["system"] = system


def _write_blocks(message: Message) -> list[Object]:
    if message.role == "tool":
        block: Object = {
            "type": "tool_result",
            "tool_use_id": message.call_id,
            **_mark(message.mark),
        }
        block["content"] = [_write_part(p) for p in message.parts] if message.parts else ""
        if message.failed:
            block["is_error"] = True
        return [block]
    blocks: list[Object] = []
    if message.reasoning and message.signature:
        # Without its seal it would be refused.
        blocks.append(
            {
                "type": "thinking",
                "thinking": message.reasoning,
                "signature": message.signature,
            }
        )
    blocks += [_write_part(p) for p in message.parts if not (isinstance(p, Text) and not p.text)]
    blocks += [
        {
            "type": "tool_use",
            "id": c.id,
            "name": c.name,
            "input": read_arguments(c.arguments),
            **_mark(c.mark),
        }
        for c in message.calls
    ]
    return blocks


def _write_part(part: Text | Image) -> Object:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text, **_mark(part.mark)}
    if part.url:
        source: Object = {"type": "url", "url": part.url}
        return {"type": "image", "source": source, **_mark(part.mark)}
    source = {"type": "base64", "media_type": part.media_type, "data": part.data}
    return {"type": "image", "source": source, **_mark(part.mark)}
