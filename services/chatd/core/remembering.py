"""Answers that need not be asked for again: which they are, and how many are kept."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from services.chatd.core.chat import Answer, Chat, Event

# What an answer takes beside its texts, about.
_BASE_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer that was given: its events, and what it was asked of."""

    events: tuple[Event, ...]
    name: str
    provider: str
    model: str
    bytes: int
    until: float


def key_of(chat: Chat, surface: str) -> str | None:
    """What two chats that ask for the very same have in common; None for one that wants chance.

    Only at temperature 0 is the same answer meant to come again.
    """
    temperature = chat.options.get("temperature")
    if isinstance(temperature, bool) or temperature != 0:
        return None
    text = json.dumps([surface, asdict(chat)], sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def is_whole(answer: Answer) -> bool:
    """Whether an answer came to its own end; one that was cut short is not kept."""
    return answer.finish is not None and answer.finish.reason in ("stop", "tool_calls")


class Answers:
    """The answers of late, the least used going first.

    Args:
        max_bytes: of all together; 0 keeps none.
        ttl_s: how long an answer is given again.
    """

    def __init__(self, max_bytes: int, ttl_s: float) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._bytes = 0

    @property
    def enabled(self) -> bool:
        """Whether any are kept."""
        return self._max_bytes > 0

    def get(self, key: str, now: float) -> Kept | None:
        """The answer to a chat, if one is kept."""
        found = self._kept.get(key)
        if found is None:
            return None
        if found.until <= now:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return found

    def put(
        self, key: str, events: Sequence[Event], target: tuple[str, str, str], now: float
    ) -> None:
        """Keeps an answer, unless it alone is too large."""
        size = _BASE_BYTES + len(repr(events))
        if size > self._max_bytes:
            return
        if key in self._kept:
            self._drop(key)
        self._kept[key] = Kept(tuple(events), *target, size, now + self._ttl_s)
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: str) -> None:
        self._bytes -= self._kept.pop(key).bytes


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else repr(value)
