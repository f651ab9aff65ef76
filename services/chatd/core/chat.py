"""The one internal form of a chat: what was asked, and what comes back as events.

Every client's protocol is read into `Chat` and every provider's into events, so that n
protocols here and m there take n + m translations. A whole answer is events too, only all at
once: what is streamed and what is not cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
Reason = Literal["stop", "length", "tool_calls", "content_filter"]


Mark = Mapping[str, Any] | None
"""What a caller of Anthropic's protocol says about caching up to here; others have no word."""


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text."""

    text: str
    mark: Mark = None


@dataclass(frozen=True, slots=True)
class Image:
    """An image: base64 `data` of a `media_type`, or the `url` of one elsewhere."""

    media_type: str = ""
    data: str = ""
    url: str = ""
    mark: Mark = None


Part = Text | Image


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a model made. `arguments` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str
    mark: Mark = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        calls: of an assistant.
        call_id, name: which call a tool's message answers, and the tool's name.
        failed: the tool reports an error.
        reasoning, signature: what an assistant thought, with its provider's seal.
        mark: of a tool's message.
    """

    role: Role
    parts: tuple[Part, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    name: str = ""
    failed: bool = False
    reasoning: str = ""
    signature: str = ""
    mark: Mark = None

    @property
    def text(self) -> str:
        """All of its text."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def images(self) -> list[Image]:
        """All of its images."""
        return [part for part in self.parts if isinstance(part, Image)]


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that may be called; `parameters` is a JSON schema."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    strict: bool | None = None
    mark: Mark = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether tools are called: `name` is the one to call where the mode is `named`."""

    mode: Literal["auto", "none", "required", "named"]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Format:
    """The form of the answer: any JSON, or JSON of a schema."""

    schema: Mapping[str, Any] | None = None
    name: str = "answer"
    description: str = ""
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Chat:
    """What was asked.

    Attributes:
        model: as the caller named it.
        options: sampling fields that the caller set (temperature, top_p, top_k, seed, stop,
            presence_penalty, frequency_penalty). One that is not set is absent, and stays so
            to the provider; one that is null is None, which only OpenAI's protocol knows.
        max_tokens: None when not set.
        effort: none, minimal, low, medium, high or xhigh; None when not set.
        extra: fields that are not known here, of the protocol `spoken`; they go on to
            providers that speak it, and to no others.
    """

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    choice: Choice | None = None
    parallel: bool | None = None
    format: Format | None = None
    max_tokens: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    effort: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    spoken: Literal["chat", "messages", "responses"] = "chat"

    def extra_for(self, wire: str) -> Mapping[str, Any]:
        """What to send on over a wire."""
        return self.extra if self.spoken == wire else {}


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of what the model thinks, or the seal of it."""

    text: str
    signature: str = ""


@dataclass(frozen=True, slots=True)
class CallStart:
    """A tool call begins. Indices count from 0 without gaps."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallDelta:
    """More of a call's arguments."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Why the answer ended; `stop` is the stop sequence that was met, if that is known."""

    reason: Reason
    stop: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens: `input` with all that was cached in it, `output` with the reasoning in it.

    `cost` is in US dollars where the provider tells it; `estimated` where nobody counted.
    """

    input: int
    output: int
    cached: int = 0
    cache_written: int = 0
    reasoning: int = 0
    cost: float | None = None
    estimated: bool = False


Event = TextDelta | ReasoningDelta | CallStart | CallDelta | Finish | Usage


class Answer:
    """An answer as its events have it so far."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[tuple[str, str, list[str]]] = []
        self.signature = ""
        self.finish: Finish | None = None
        self.usage: Usage | None = None
        for event in events:
            self.add(event)

    def add(self, event: Event) -> None:
        """Takes one more event in."""
        if isinstance(event, TextDelta):
            self._text.append(event.text)
        elif isinstance(event, CallDelta):
            self._calls[event.index][2].append(event.arguments)
        elif isinstance(event, ReasoningDelta):
            self._reasoning.append(event.text)
            self.signature = event.signature or self.signature
        elif isinstance(event, CallStart):
            self._calls.append((event.id, event.name, []))
        elif isinstance(event, Finish):
            self.finish = event
        else:
            self.usage = event

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        """All reasoning so far."""
        return "".join(self._reasoning)

    @property
    def calls(self) -> list[ToolCall]:
        """All tool calls so far."""
        return [ToolCall(id, name, "".join(pieces)) for id, name, pieces in self._calls]

    @property
    def reason(self) -> Reason:
        """Why it ended."""
        return self.finish.reason if self.finish is not None else "stop"
