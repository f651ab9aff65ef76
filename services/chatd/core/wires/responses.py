"""OpenAI's responses as providers speak it; always stateless (`store: false`)."""

from __future__ import annotations

from services.chatd.core.chat import Chat, Event, Image, Message, Text, Usage
from services.chatd.core.faults import Fault, fault_of_body
from services.chatd.core.reading import Object, as_count, as_object, as_objects, as_text
from services.chatd.core.wires.base import (
    Dialect,
    EventLog,
    MakeId,
    Outgoing,
    SseReader,
    bearer,
    take_sampling,
)

# The sampling that it knows.
_OPTIONS = ("temperature", "top_p")


class ResponsesWire:
    """POST {url}/responses."""

    def build(self, chat: Chat, model: str, stream: bool, dialect: Dialect) -> Outgoing:
        """The request."""
        sampling, dropped = take_sampling(chat, dialect)
        body: Object = {
            **dialect.send,
            **chat.extra_for("responses"),
            "model": model,
            "store": False,
        }
        for name, value in sampling.items():
            if name in _OPTIONS:
                body[name] = value
            else:
                dropped = (*dropped, name)
        system = "\n\n".join(m.text for m in chat.messages if m.role == "system")
        if system:
            body["instructions"] = system
        body["input"] = [item for m in chat.messages for item in _write_items(m)]
        if chat.max_tokens is not None:
            body["max_output_tokens"] = chat.max_tokens
        if chat.effort is not None:
            body["reasoning"] = {"effort": chat.effort}
        if chat.tools:
            body["tools"] = [
                {
                    "type": "function",
                    "name": tool.name,
                    **({"description": tool.description} if tool.description else {}),
                    "parameters": tool.parameters or {"type": "object", "properties": {}},
                    # Its own default is true, where the chat protocol's is false.
                    "strict": bool(tool.strict),
                }
                for tool in chat.tools
            ]
            if chat.choice is not None:
                named = {"type": "function", "name": chat.choice.name}
                body["tool_choice"] = named if chat.choice.mode == "named" else chat.choice.mode
            if chat.parallel is not None:
                body["parallel_tool_calls"] = chat.parallel
        if chat.format is not None:
            body["text"] = {"format": _write_format(chat)}
        if stream:
            body["stream"] = True
        return Outgoing("/responses", body, dropped)

    def read_whole(self, body: Object, make_id: MakeId) -> list[Event]:
        """The events of a response."""
        log = EventLog(make_id)
        if not isinstance(body.get("output"), list):
            raise Fault("malformed", "it has no output")
        for position, item in enumerate(as_objects(body["output"])):
            _read_item(log, position, item)
        _read_end(log, body)
        return log.close()

    def open_reader(self, make_id: MakeId, max_bytes: int) -> ResponsesReader:
        """A reader of response events."""
        return ResponsesReader(make_id, max_bytes)

    def headers(self, key: str) -> dict[str, str]:
        """Bearer."""
        return bearer(key)


class ResponsesReader(SseReader):
    """response.created … response.completed."""

    def on_event(self, body: Object) -> None:
        """One event; kinds that are not known are passed over."""
        kind = as_text(body.get("type"))
        index = body.get("output_index")
        if kind in ("response.output_text.delta", "response.refusal.delta"):
            self.log.text(as_text(body.get("delta")))
        elif kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            self.log.reasoning(as_text(body.get("delta")))
        elif kind == "response.function_call_arguments.delta" and self.log.knows(index):
            self.log.arguments(index, as_text(body.get("delta")))
        elif kind == "response.output_item.added" and isinstance(index, int):
            item = as_object(body.get("item"))
            if item.get("type") == "function_call":
                self.log.call(index, as_text(item.get("call_id")), as_text(item.get("name")))
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            _read_end(self.log, as_object(body.get("response")))
            self.over = True


def _read_item(log: EventLog, position: int, item: Object) -> None:
    kind = item.get("type")
    if kind == "message":
        for part in as_objects(item.get("content")):
            log.text(as_text(part.get("text")) or as_text(part.get("refusal")))
    elif kind == "function_call":
        log.call(position, as_text(item.get("call_id")), as_text(item.get("name")))
        log.arguments(position, as_text(item.get("arguments")))
    elif kind == "reasoning":
        for part in as_objects(item.get("summary")) + as_objects(item.get("content")):
            log.reasoning(as_text(part.get("text")))


def _read_end(log: EventLog, response: Object) -> None:
    if response.get("status") == "failed":
        told = fault_of_body(response, status=500)
        raise told or Fault("status", "the response failed", status=500)
    usage = as_object(response.get("usage"))
    if usage:
        log.usage = Usage(
            input=as_count(usage.get("input_tokens")),
            output=as_count(usage.get("output_tokens")),
            cached=as_count(as_object(usage.get("input_tokens_details")).get("cached_tokens")),
            reasoning=as_count(
                as_object(usage.get("output_tokens_details")).get("reasoning_tokens")
            ),
        )
    if response.get("status") == "incomplete":
        why = as_text(as_object(response.get("incomplete_details")).get("reason"))
        log.ended("content_filter" if why == "content_filter" else "length")
    else:
        log.ended("stop")


def _write_format(chat: Chat) -> Object:
    wanted = chat.format
    if wanted is None or wanted.schema is None:
        return {"type": "json_object"}
    written: Object = {"type": "json_schema", "name": wanted.name, "schema": wanted.schema}
    if wanted.strict is not None:
        written["strict"] = wanted.strict
    return written


def _write_items(message: Message) -> list[Object]:
    if message.role == "system":
        return []
    if message.role == "tool":
        return [
            {
                "type": "function_call_output",
                "call_id": message.call_id,
                "output": message.text,
            }
        ]
    items: list[Object] = []
    if message.parts:
        kind = "output_text" if message.role == "assistant" else "input_text"
        content = [_write_part(part, kind) for part in message.parts]
        items.append({"type": "message", "role": message.role, "content": content})
    items += [
        {
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
        }
        for call in message.calls
    ]
    return items


def _write_part(part: Text | Image, kind: str) -> Object:
    if isinstance(part, Text):
        return {"type": kind, "text": part.text}
    url = part.url or f"data:{part.media_type};base64,{part.data}"
    return {"type": "input_image", "image_url": url}
