"""What a pretend model says: decided by the request alone, so that the same one repeats it.

Without tools or a format it echoes the last message. It calls a tool when the last message
is a user's and names the tool (`get_weather`, or "get weather"), with arguments that conform
to the tool's parameters. A script may put anything else in place of this.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from services.fake_ollama.core.embedding import tokenize
from services.fake_ollama.core.schema import conform
from shared.wire.fake_ollama import Message, ScriptRule, Tool

# Words of the question that an answer repeats.
ECHOED_WORDS = 40
_CAPITALISED = re.compile(r"\b[A-Z][\w-]+")
_NUMBERS = re.compile(r"-?\d+(?:\.\d+)?")

DoneReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Call:
    """One tool call."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """Everything that a model gave back, before any protocol's shape."""

    content: str
    thinking: str = ""
    calls: list[Call] = field(default_factory=list[Call])
    done_reason: DoneReason = "stop"
    prompt_tokens: int = 0
    output_tokens: int = 0

    def pieces(self) -> list[str]:
        """The content as a stream gives it: a word at a time."""
        return split_pieces(self.content)

    def thinking_pieces(self) -> list[str]:
        """The thinking, likewise."""
        return split_pieces(self.thinking)


def split_pieces(text: str) -> list[str]:
    """The text in words with the space before them; joined they give the text."""
    return re.findall(r"\s*\S+|\s+$", text)


def answer_chat(
    messages: Sequence[Message],
    *,
    tools: Sequence[Tool] = (),
    output_format: Any = None,
    options: Mapping[str, Any] | None = None,
    think: bool = False,
    rule: ScriptRule | None = None,
) -> Answer:
    """The answer to a chat.

    Args:
        messages: at least one.
        tools: that may be called.
        output_format: None, "json", or a JSON schema.
        options: Ollama's; `num_predict` and `stop` are heeded.
        think: whether thinking is shown.
        rule: a script's word on it.
    """
    last = messages[-1]
    question = last.content or ""
    prompt = sum(len(tokenize(message.content or "")) for message in messages)
    prompt += sum(len(tokenize(json.dumps(t.model_dump(exclude_none=True)))) for t in tools)
    calls = _choose_calls(question, tools) if last.role == "user" else []
    content = "" if calls else _compose(question, output_format)
    thinking = f"The last message has {len(tokenize(question))} tokens." if think else ""
    if rule is not None:
        if rule.tool_calls is not None:
            calls = [make_call(c.name, c.arguments) for c in rule.tool_calls]
            content = ""
        if rule.content is not None:
            content = rule.content
        if rule.thinking is not None:
            thinking = rule.thinking
    content, reason = _limit(content, options or {})
    if rule is not None and rule.done_reason is not None:
        reason = rule.done_reason
    return Answer(
        content=content,
        thinking=thinking,
        calls=calls,
        done_reason=reason,
        prompt_tokens=prompt,
        output_tokens=len(tokenize(content)) + len(tokenize(thinking)) + len(calls),
    )


def make_call(name: str, arguments: dict[str, Any]) -> Call:
    """A call with an id that follows from what is called."""
    said = json.dumps([name, arguments], sort_keys=True)
    return Call(f"call_{hashlib.sha256(said.encode()).hexdigest()[:8]}", name, arguments)


def _compose(question: str, output_format: Any) -> str:
    echo = " ".join(question.split()[:ECHOED_WORDS])
    if isinstance(output_format, dict):
        return json.dumps(conform(output_format, echo or "empty"), ensure_ascii=False)
    if output_format == "json":
        return json.dumps({"answer": echo}, ensure_ascii=False)
    return f"You said: {echo}" if echo else "You said nothing."


def _choose_calls(question: str, tools: Sequence[Tool]) -> list[Call]:
    lowered = question.lower()
    calls: list[Call] = []
    for tool in tools:
        name = tool.function.name
        if name and (name.lower() in lowered or name.lower().replace("_", " ") in lowered):
            calls.append(make_call(name, _fill_arguments(tool.function.parameters, question)))
    return calls


def _fill_arguments(parameters: dict[str, Any] | None, question: str) -> dict[str, Any]:
    """Arguments that conform, with numbers and names taken from the question in order."""
    if not parameters:
        return {}
    numbers = _NUMBERS.findall(question)
    names = _CAPITALISED.findall(question)[1:] or _CAPITALISED.findall(question)
    filled: dict[str, Any] = {}
    properties: dict[str, dict[str, Any]] = parameters.get("properties") or {}
    for key, schema in properties.items():
        kind = schema.get("type")
        plain = not {"enum", "const", "format"} & schema.keys()
        if kind in ("integer", "number") and plain and numbers:
            number = float(numbers.pop(0))
            filled[key] = int(number) if kind == "integer" else number
        elif kind == "string" and plain and names:
            filled[key] = names.pop(0)
        else:
            filled[key] = conform({**parameters, **schema}, question)
    return filled


def _limit(content: str, options: Mapping[str, Any]) -> tuple[str, DoneReason]:
    """The content as `stop` and `num_predict` leave it, and why it ended."""
    stops: Any = options.get("stop") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        content = content.partition(str(stop))[0]
    most: Any = options.get("num_predict")
    pieces = split_pieces(content)
    if isinstance(most, int) and 0 <= most < len(pieces):
        return "".join(pieces[:most]), "length"
    return content, "stop"
