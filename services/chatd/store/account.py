"""What one chat is worth recording: who answered it, how it ended, what it took."""

from __future__ import annotations

import time
from typing import Any, Literal

from services.chatd.core.chat import Answer, Chat, Event, Usage
from services.chatd.core.pricing import PriceTable
from services.chatd.core.remembering import Kept
from services.chatd.core.routing import Target
from services.chatd.core.tokens import estimate_usage
from services.chatd.store.figures import Figures
from services.chatd.store.ledger import Ledger
from shared import context

Outcome = Literal["ok", "failed", "cancelled"]


class Account:
    """Follows one chat from its arrival to its record.

    Attributes:
        attempts: tries so far, at all providers.
        dropped: fields that the provider's protocol has no place for.
        answer: what has been said.
    """

    def __init__(
        self,
        chat: Chat,
        surface: str,
        stream: bool,
        prices: PriceTable,
        ledger: Ledger,
        figures: Figures,
    ) -> None:
        self.attempts = 0
        self.dropped: tuple[str, ...] = ()
        self.answer = Answer()
        self.name = chat.model
        self.provider = ""
        self._model = ""
        self._chat = chat
        self._surface = surface
        self._stream = stream
        self._prices = prices
        self._ledger = ledger
        self._figures = figures
        self._begun = time.monotonic()
        self._first_s: float | None = None
        self._ended = False
        self._recalled = False

    def aim(self, target: Target) -> None:
        """The next to be tried."""
        self.name, self.provider, self._model = target

    def begin_stream(self) -> None:
        """The first events are here."""
        self._first_s = time.monotonic() - self._begun
        self._figures.count_first(self.provider, self._first_s)

    def recall(self, kept: Kept) -> None:
        """The answer is one that was given before: nobody is asked, and it costs nothing."""
        self.aim(Target(kept.name, kept.provider, kept.model))
        for event in kept.events:
            self.add(event)
        self._recalled = True
        self.settle()

    def remember(self) -> tuple[str, str, str]:
        """Who answered, as a kept answer says it."""
        return self.name, self.provider, self._model

    def add(self, event: Event) -> None:
        """More of the answer."""
        self.answer.add(event)

    def settle(self) -> Usage:
        """The usage of the answer so far with its cost, reckoned where nobody counted."""
        told = self.answer.usage or estimate_usage(self._chat, self.answer)
        cost = 0.0 if self._recalled else self._prices.cost(self.provider, self._model, told)
        usage = Usage(
            told.input,
            told.output,
            told.cached,
            told.cache_written,
            told.reasoning,
            cost,
            told.estimated,
        )
        self.answer.usage = usage
        return usage

    def latency_ms(self) -> float:
        """Milliseconds since the chat came."""
        return (time.monotonic() - self._begun) * 1000

    def end(self, outcome: Outcome, error: str = "") -> None:
        """Records it, once."""
        if self._ended:
            return
        self._ended = True
        # Whoever began to answer has read the question: a client that left still pays for it.
        # A try that failed before its answer began has cost nothing that is known.
        asked = outcome == "ok" or self._first_s is not None
        usage = self.settle() if asked or (outcome == "cancelled" and self.attempts) else None
        ms = self.latency_ms()
        cost = usage.cost if usage is not None else None
        taken = None if self._recalled else usage
        self._figures.count_call(self.provider, outcome, ms / 1000, taken, cost)
        entry: dict[str, Any] = {
            "request_id": context.request_id.get(),
            "at": time.time(),
            "surface": self._surface,
            "asked": self._chat.model,
            "provider": self.provider,
            "model": self._model,
            "stream": self._stream,
            "outcome": outcome,
            "attempts": self.attempts,
            "ms": round(ms, 1),
        }
        if self._first_s is not None:
            entry["first_ms"] = round(self._first_s * 1000, 1)
        if self._recalled:
            # Its tokens were taken, and written down, when it was first given.
            entry["recalled"] = True
            usage = None
            entry["cost_usd"] = 0.0
        if error:
            entry["error"] = error
        if self.answer.finish is not None:
            entry["finish_reason"] = self.answer.finish.reason
        if usage is not None:
            entry["usage"] = {
                "input": usage.input,
                "output": usage.output,
                "cached": usage.cached,
                "cache_written": usage.cache_written,
                "reasoning": usage.reasoning,
                "estimated": usage.estimated,
            }
            entry["cost_usd"] = cost
        self._ledger.record(entry)
