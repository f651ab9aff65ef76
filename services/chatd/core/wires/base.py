"""What all wires share: requests on their way out, events on their way in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import orjson

from services.chatd.core.chat import (
    CallDelta,
    CallStart,
    Chat,
    Event,
    Finish,
    Message,
    Reason,
    ReasoningDelta,
    TextDelta,
    Usage,
)
from services.chatd.core.faults import Fault, fault_of_body
from services.chatd.core.frames import EventCutter, ServerEvent
from services.chatd.core.reading import Object, as_object

# Fields of sampling: what `fixed_sampling` leaves out.
SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
)
MakeId = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Dialect:
    """In what a provider differs from others of its wire; from its table in the configuration.

    Attributes:
        max_tokens_field: how the chat wire calls the limit.
        messages_max_tokens: what the messages wire sends where the caller set none: it must.
        reasoning_field: how the chat wire calls reasoning in messages.
        fixed_sampling: this model takes no sampling fields.
        send: further fields of every body.
    """

    max_tokens_field: str = "max_tokens"
    messages_max_tokens: int = 4096
    reasoning_field: str = "reasoning_content"
    fixed_sampling: bool = False
    send: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Outgoing(NamedTuple):
    """A request for a provider: path below its url, body, and fields that were left out."""

    path: str
    body: Object
    dropped: tuple[str, ...] = ()


class Reader(Protocol):
    """Reads one streamed answer. `over` tells that nothing more of it can come."""

    over: bool

    def feed(self, data: bytes) -> list[Event]:
        """The events that are complete now.

        Raises:
            Fault: the provider told an error, or sent what is no event.
        """
        ...

    def end(self) -> list[Event]:
        """The last events, when the bytes have ended.

        Raises:
            Fault: the answer had not.
        """
        ...


class Wire(Protocol):
    """One protocol of providers."""

    def build(self, chat: Chat, model: str, stream: bool, dialect: Dialect) -> Outgoing:
        """The request.

        Raises:
            Invalid: it asks for what this protocol cannot say.
        """
        ...

    def read_whole(self, body: Object, make_id: MakeId) -> list[Event]:
        """The events of an answer that is not streamed.

        Raises:
            Fault: it is none.
        """
        ...

    def open_reader(self, make_id: MakeId, max_bytes: int) -> Reader:
        """A reader for one stream, whose events are at most so large."""
        ...

    def headers(self, key: str) -> dict[str, str]:
        """Headers that carry the key, and those that the protocol wants."""
        ...


class EventLog:
    """Events of one answer as they are found, put in order.

    Finish and usage are held back until the answer is whole, and come last. Calls get
    indices without gaps, an id where they have none, and their name once.
    """

    def __init__(self, make_id: MakeId) -> None:
        self._make_id = make_id
        self._events: list[Event] = []
        self._calls: dict[Hashable, int] = {}
        self._bare: set[int] = set()  # calls without arguments so far
        self._count = 0
        self.finish: Finish | None = None
        self.usage: Usage | None = None
        self.said_something = False

    def text(self, text: str) -> None:
        """More text."""
        if text:
            self.said_something = True
            self._events.append(TextDelta(text))

    def reasoning(self, text: str, signature: str = "") -> None:
        """More reasoning."""
        if text or signature:
            self.said_something = True
            self._events.append(ReasoningDelta(text, signature))

    def knows(self, key: Hashable) -> bool:
        """Whether a call under this key has begun."""
        return key in self._calls

    def call(self, key: Hashable, id: str, name: str) -> None:
        """A call begins under a key of the protocol's own; again for one is nothing."""
        if key in self._calls:
            return
        index = self._count
        self._count += 1
        self._calls[key] = index
        if id:
            # A repeat that carries the id again is the same call, not another one.
            self._calls[(key, id)] = index
        self._bare.add(index)
        self.said_something = True
        self._events.append(CallStart(index, id or self._make_id(), name))

    def arguments(self, key: Hashable, text: str) -> None:
        """More of a call's arguments."""
        if text:
            index = self._calls[key]
            self._bare.discard(index)
            self._events.append(CallDelta(index, text))

    def ended(self, reason: Reason, stop: str | None = None) -> None:
        """The answer ended, for this reason. Calls that were made are one by themselves."""
        if reason == "stop" and self._count:
            reason = "tool_calls"
        self.finish = Finish(reason, stop)

    def take(self) -> list[Event]:
        """What was found since the last call."""
        events, self._events = self._events, []
        return events

    def close(self) -> list[Event]:
        """The last events.

        Raises:
            Fault: nothing said why the answer ended, so it may be half of one.
        """
        if self.finish is None:
            raise Fault("cut", "the stream ended before the answer did")
        for index in sorted(self._bare):
            self._events.append(CallDelta(index, "{}"))
        self._bare.clear()
        self._events.append(self.finish)
        if self.usage is not None:
            self._events.append(self.usage)
        return self.take()


class SseReader(ABC):
    """Base of the readers of server-sent events: cuts, decodes, and finds errors."""

    def __init__(self, make_id: MakeId, max_bytes: int) -> None:
        self._cutter = EventCutter(max_bytes)
        self.log = EventLog(make_id)
        self.over = False

    def feed(self, data: bytes) -> list[Event]:
        """The events that are complete now."""
        for event in self._cutter.cut(data):
            self._take(event)
        return self.log.take()

    def end(self) -> list[Event]:
        """The last events."""
        for event in self._cutter.end():
            self._take(event)
        return self.log.close()

    def _take(self, event: ServerEvent) -> None:
        if event.data == b"[DONE]":
            self.over = True
            self.on_done()
            return
        if self.over:
            return
        body = decode(event.data)
        told = fault_of_body(body, status=200)
        if told is not None:
            raise told
        self.on_event(as_object(body))

    def on_done(self) -> None:  # noqa: B027 - most wires have nothing left to do then
        """The stream says that it is over."""

    @abstractmethod
    def on_event(self, body: Object) -> None:
        """One event."""


def take_turns(
    messages: Iterable[Message],
    write: Callable[[Message], list[Object]],
    *,
    assistant: str,
    content: str,
) -> list[Object]:
    """Messages with those of one side after another joined, where sides must take turns.

    Args:
        write: a message as pieces of what is said.
        assistant: what the wire calls that side; the other is `user`.
        content: the field that holds the pieces.
    """
    turns: list[Object] = []
    for message in messages:
        if message.role == "system":
            continue
        role = assistant if message.role == "assistant" else "user"
        pieces = write(message)
        if turns and turns[-1]["role"] == role:
            turns[-1][content] += pieces
        else:
            turns.append({"role": role, content: pieces})
    return turns


def decode(data: bytes) -> object:
    """JSON.

    Raises:
        Fault: it is none.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        raise Fault("malformed", "it is no JSON") from None


def take_sampling(chat: Chat, dialect: Dialect) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The sampling fields to send, and those that are left out."""
    if not dialect.fixed_sampling:
        return dict(chat.options), ()
    kept = {name: value for name, value in chat.options.items() if name not in SAMPLING}
    return kept, tuple(name for name in chat.options if name in SAMPLING)


def bearer(key: str) -> dict[str, str]:
    """The key as most take it; no header without one."""
    return {"authorization": f"Bearer {key}"} if key else {}


def read_arguments(text: str) -> object:
    """A call's arguments as the object that some protocols want; text that is none as it is."""
    try:
        return orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return {"_raw": text}
