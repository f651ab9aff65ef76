"""From a chat to the provider that answers it: tries, waits, fallbacks, and the record of it.

Nothing is tried again once the first events are handed on: from there on a failure is told.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import random
from typing import Any, Generic, TypeVar

from services.chatd.core.breaker import Pass
from services.chatd.core.chat import Chat, Event
from services.chatd.core.faults import Fault, error_of
from services.chatd.core.pricing import PriceTable
from services.chatd.core.remembering import Answers, is_whole, key_of
from services.chatd.core.retry import RetryRule
from services.chatd.core.routing import Target, resolve
from services.chatd.core.surfaces.base import Head
from services.chatd.store.account import Account
from services.chatd.store.figures import Figures
from services.chatd.store.flow import Flow, Reply
from services.chatd.store.ledger import Ledger
from services.chatd.store.provider import Provider
from shared import context
from shared.errors import LakehouseError, NotFound, RateLimited, Unavailable
from shared.sections.base import MiB
from shared.sections.chat import ChatdSection

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Done(Generic[T]):
    value: T


@dataclass(frozen=True, slots=True)
class _Failed:
    error: LakehouseError
    can_fall_back: bool = True


class Dispatcher:
    """Answers chats.

    Args:
        section: limits and fallback chains.
        tiers: models of [models] by tier.
        providers: by name, with a key or without.
        prices, ledger, figures: where what was spent is reckoned and kept.
    """

    def __init__(
        self,
        section: ChatdSection,
        tiers: Mapping[str, str],
        providers: Mapping[str, Provider],
        prices: PriceTable,
        ledger: Ledger,
        figures: Figures,
    ) -> None:
        self.tiers = tiers
        self.providers = providers
        self._section = section
        self._prices = prices
        self._ledger = ledger
        self._figures = figures
        self._answers = Answers(section.cache_mb * MiB, section.cache_ttl_s)

    def find_targets(self, name: str) -> list[Target]:
        """The chain of a name: what it means, then its fallbacks in order.

        Raises:
            NotFound: the name, or one of its fallbacks, is an unknown tier.
        """
        first = resolve(name, self.tiers, self.providers)
        fallbacks = self._section.fallbacks
        others = fallbacks.get(name) or fallbacks.get(first.name) or ()
        return [first, *(resolve(other, self.tiers, self.providers) for other in others)]

    async def complete(self, chat: Chat, surface: str) -> Reply:
        """A whole answer, at temperature 0 maybe one that was given before.

        Raises:
            LakehouseError: nobody gave one.
        """
        account = self._open_account(chat, surface, stream=False)
        key = key_of(chat, surface) if self._answers.enabled else None
        kept = self._answers.get(key, time.monotonic()) if key else None
        if kept is not None:
            account.recall(kept)
            account.end("ok")
            self._figures.recalled.inc()
            return Reply(account.answer, self._make_head(account), account)
        taken: list[Event] = []

        async def attempt(provider: Provider, target: Target, leave: Pass) -> None:
            events, account.dropped = await provider.complete(chat, target.model)
            taken[:] = events
            for event in events:
                account.add(event)
            provider.breaker.succeed(leave)
            provider.slots.release()

        await self._try_all(chat, account, attempt)
        if key is not None and is_whole(account.answer):
            self._answers.put(key, taken, account.remember(), time.monotonic())
        account.end("ok")
        return Reply(account.answer, self._make_head(account), account)

    async def stream(self, chat: Chat, surface: str) -> Flow:
        """A streamed answer, once its first events are here. It must be closed.

        Raises:
            LakehouseError: nobody began one.
        """
        account = self._open_account(chat, surface, stream=True)

        async def attempt(provider: Provider, target: Target, leave: Pass) -> Flow:
            stream, account.dropped = await provider.open(chat, target.model)
            return Flow(stream, provider, target.model, leave, account, self._figures)

        flow = await self._try_all(chat, account, attempt)
        account.begin_stream()
        flow.head = self._make_head(account)
        return flow

    async def _try_all(
        self,
        chat: Chat,
        account: Account,
        attempt: Callable[[Provider, Target, Pass], Awaitable[T]],
    ) -> T:
        """Goes down the chain. `attempt` takes over place and leave when it succeeds."""
        first: LakehouseError | None = None
        skipped: list[dict[str, Any]] = []
        try:
            for target in self.find_targets(chat.model):
                account.aim(target)
                result = await self._try_one(target, account, attempt)
                if isinstance(result, _Done):
                    return result.value
                first = first or result.error
                skipped.append({"model": target.name, "error": result.error.message})
                if not result.can_fall_back or account.attempts >= self._section.max_attempts:
                    break
        except asyncio.CancelledError:
            account.end("cancelled")
            raise
        except LakehouseError as error:
            account.end("failed", error.code)
            raise
        assert first is not None
        if len(skipped) > 1:
            first.details["tried"] = skipped
        account.end("failed", first.code)
        raise first

    async def _try_one(
        self,
        target: Target,
        account: Account,
        attempt: Callable[[Provider, Target, Pass], Awaitable[T]],
    ) -> _Done[T] | _Failed:
        section = self._section
        provider = self.providers.get(target.provider)
        if provider is None or not provider.registered:
            return _Failed(unregistered(target, provider))
        rule = RetryRule(
            provider.section.attempts,
            section.retry_base_s,
            section.retry_max_s,
            section.retry_after_max_s,
        )
        tried = 0
        while True:
            try:
                await provider.slots.acquire()
            except RateLimited:
                return _Failed(_too_busy(target.provider))
            leave = provider.breaker.enter(time.monotonic())
            if leave is None:
                provider.slots.release()
                return _Failed(_resting(provider))
            tried += 1
            account.attempts += 1
            try:
                return _Done(await attempt(provider, target, leave))
            except Fault as error:
                fault = error
            except BaseException:
                provider.breaker.abandon(leave)
                provider.slots.release()
                raise
            provider.slots.release()
            self._note_fault(provider, fault, leave)
            wait_s = rule.wait_s(fault, tried, random)
            left_s = context.remaining_s()
            told = error_of(fault, provider.name, target.model)
            out_of_time = wait_s is not None and left_s is not None and wait_s >= left_s
            if wait_s is None or out_of_time or account.attempts >= section.max_attempts:
                return _Failed(told, fault.can_fall_back)
            await asyncio.sleep(wait_s)

    def _note_fault(self, provider: Provider, fault: Fault, leave: Pass) -> None:
        """Tells figures and breaker of a failed try."""
        self._figures.count_fault(provider.name, fault.kind)
        if fault.is_sickness:
            provider.breaker.fail(leave, time.monotonic())
        else:
            provider.breaker.succeed(leave)  # whoever refuses is well

    def _open_account(self, chat: Chat, surface: str, *, stream: bool) -> Account:
        self._ledger.check()
        return Account(chat, surface, stream, self._prices, self._ledger, self._figures)

    def _make_head(self, account: Account) -> Head:
        return Head(secrets.token_hex(12), int(time.time()), account.name, account.provider)


def unregistered(target: Target, provider: Provider | None) -> NotFound:
    """Why a model cannot be asked for, and what to do."""
    if provider is None:
        why = f"Add a table [chatd.providers.{target.provider}], or use another model."
    else:
        why = provider.place.missing
    return NotFound(
        f"The provider {target.provider} of {target.name} is not registered. {why}",
        details={"model": target.name, "provider": target.provider},
    )


def _too_busy(provider: str) -> RateLimited:
    return RateLimited(
        f"As many requests as chatd.providers.{provider}.concurrency and queue allow are at "
        f"{provider} already. Try again shortly.",
        details={"provider": provider},
        headers={"Retry-After": "1"},
    )


def _resting(provider: Provider) -> Unavailable:
    wait_s = provider.breaker.wait_s(time.monotonic())
    return Unavailable(
        f"The provider {provider.name} keeps failing and is left alone for a moment. "
        "Try again later, or use another model.",
        details={"provider": provider.name},
        headers={"Retry-After": str(max(1, round(wait_s + 0.49)))},
    )
