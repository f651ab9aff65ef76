"""Google's generateContent as providers speak it."""

from __future__ import annotations

import re
from typing import Any

import orjson

from services.chatd.core.chat import Chat, Event, Image, Message, Reason, Text, Usage
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
from shared.errors import NotFound

_OPTIONS = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "named": "ANY"}
_REASONS: dict[str, Reason] = {"MAX_TOKENS": "length", "STOP": "stop"}
_EFFORTS = {"none": "minimal", "xhigh": "high"}
# What Google documents for calls in a history that its own model did not make, or whose seal
# the client's protocol could not carry.
_NAME = re.compile(r"[A-Za-z0-9._\-:@/]+")
_UNSEALED = "skip_thought_signature_validator"


class GeminiWire:
    """POST {url}/models/{model}:generateContent."""

    def build(self, chat: Chat, model: str, stream: bool, dialect: Dialect) -> Outgoing:
        """The request."""
        sampling, dropped = take_sampling(chat, dialect)
        settings: dict[str, Any] = {}
        for name, value in sampling.items():
            if value is None:
                continue
            if name in _OPTIONS:
                settings[_OPTIONS[name]] = value
            elif name == "stop":
                settings["stopSequences"] = [value] if isinstance(value, str) else value
            else:
                dropped = (*dropped, name)
        if chat.max_tokens is not None:
            settings["maxOutputTokens"] = chat.max_tokens
        if chat.effort is not None:
            effort = _EFFORTS.get(chat.effort, chat.effort)
            settings["thinkingConfig"] = {"thinkingLevel": effort}
        if chat.format is not None:
            settings["responseMimeType"] = "application/json"
            if chat.format.schema is not None:
                settings["responseJsonSchema"] = chat.format.schema
        body: Object = {
            **dialect.send,
            "contents": take_turns(chat.messages, _write_parts, assistant="model", content="parts"),
        }
        system = "\n\n".join(m.text for m in chat.messages if m.role == "system")
        if system:
            body["systemInstruction"] = {"parts": [{"text": system}]}
        if settings:
            body["generationConfig"] = settings
        if chat.tools:
            declared: list[Object] = []
            for tool in chat.tools:
                function: Object = {"name": tool.name}
                if tool.description:
                    function["description"] = tool.description
                if tool.parameters is not None:
                    function["parametersJsonSchema"] = tool.parameters
                declared.append(function)
            body["tools"] = [{"functionDeclarations": declared}]
            if chat.choice is not None:
                wanted: Object = {"mode": _MODES[chat.choice.mode]}
                if chat.choice.mode == "named":
                    wanted["allowedFunctionNames"] = [chat.choice.name]
                body["toolConfig"] = {"functionCallingConfig": wanted}
        verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
        # It becomes part of the address, so it must stay a name.
        if not _NAME.fullmatch(model) or ".." in model:
            raise NotFound(
                f"There is no model {model[:100]!r}: letters, digits and . _ - : @ / only.",
                details={"model": model[:100]},
            )
        return Outgoing(f"/models/{model}:{verb}", body, dropped)

    def read_whole(self, body: Object, make_id: MakeId) -> list[Event]:
        """The events of an answer."""
        log = EventLog(make_id)
        _take(log, body, 0)
        if log.finish is None:
            raise Fault("malformed", "it has no candidate that ended")
        return log.close()

    def open_reader(self, make_id: MakeId, max_bytes: int) -> GeminiReader:
        """A reader of partial answers."""
        return GeminiReader(make_id, max_bytes)

    def headers(self, key: str) -> dict[str, str]:
        """The key by Google's own header."""
        return {"x-goog-api-key": key} if key else {}


class GeminiReader(SseReader):
    """Partial answers, the last with a finish reason."""

    def __init__(self, make_id: MakeId, max_bytes: int) -> None:
        super().__init__(make_id, max_bytes)
        self._number = 0

    def on_event(self, body: Object) -> None:
        """One partial answer."""
        self._number += 1
        _take(self.log, body, self._number)


def _take(log: EventLog, body: Object, number: int) -> None:
    usage = as_object(body.get("usageMetadata"))
    if usage:
        thoughts = as_count(usage.get("thoughtsTokenCount"))
        log.usage = Usage(
            input=as_count(usage.get("promptTokenCount")),
            output=as_count(usage.get("candidatesTokenCount")) + thoughts,
            cached=as_count(usage.get("cachedContentTokenCount")),
            reasoning=thoughts,
        )
    if as_object(body.get("promptFeedback")).get("blockReason"):
        log.ended("content_filter")
    for candidate in as_objects(body.get("candidates"))[:1]:
        parts = as_objects(as_object(candidate.get("content")).get("parts"))
        for position, part in enumerate(parts):
            text = as_text(part.get("text"))
            if part.get("thought") is True:
                log.reasoning(text)
            else:
                log.text(text)
            call = as_object(part.get("functionCall"))
            if call:
                key = (number, position)
                log.call(key, as_text(call.get("id")), as_text(call.get("name")))
                log.arguments(key, orjson.dumps(call.get("args") or {}).decode())
        reason = as_text(candidate.get("finishReason"))
        if reason:
            log.ended(_REASONS.get(reason, "content_filter"))


def _write_parts(message: Message) -> list[Object]:
    if message.role == "tool":
        answer = {"error": message.text} if message.failed else {"result": message.text}
        return [{"functionResponse": {"name": message.name, "response": answer}}]
    parts: list[Object] = [_write_part(part) for part in message.parts]
    for number, call in enumerate(message.calls):
        part: Object = {"functionCall": {"name": call.name, "args": read_arguments(call.arguments)}}
        if number == 0:
            part["thoughtSignature"] = _UNSEALED
        parts.append(part)
    return parts


def _write_part(part: Text | Image) -> Object:
    if isinstance(part, Text):
        return {"text": part.text}
    if part.url:
        return {"fileData": {"fileUri": part.url}}
    return {"inlineData": {"mimeType": part.media_type, "data": part.data}}
