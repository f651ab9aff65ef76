"""An answer on its way: whole, or a stream that has begun."""

from __future__ import annotations

import time
from dataclasses import dataclass

from services.chatd.core.breaker import Pass
from services.chatd.core.chat import Answer, Event, Usage
from services.chatd.core.faults import Fault, error_of
from services.chatd.core.surfaces.base import Head
from services.chatd.store.account import Account
from services.chatd.store.figures import Figures
from services.chatd.store.provider import Provider
from services.chatd.store.stream import Stream


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, settled."""

    answer: Answer
    head: Head
    account: Account


class Flow:
    """A stream that has begun at a provider, with its place there.

    Args:
        stream: open, its first events read.
        leave: to be ended with how it went.
        account: follows it; recorded when the flow is closed.
    """

    head: Head

    def __init__(
        self,
        stream: Stream,
        provider: Provider,
        model: str,
        leave: Pass,
        account: Account,
        figures: Figures,
    ) -> None:
        self.account = account
        self._stream = stream
        self._provider = provider
        self._model = model
        self._leave: Pass | None = leave
        self._figures = figures
        self._error = ""

    @property
    def over(self) -> bool:
        """Whether all events have been given."""
        return self._stream.over

    def take(self) -> list[Event]:
        """The first events."""
        return self._pass_on(self._stream.take())

    async def next(self) -> list[Event]:
        """The next events; not to be called once `over`.

        Raises:
            LakehouseError: the stream broke off.
        """
        try:
            return self._pass_on(await self._stream.next())
        except Exception as error:
            section = self._provider.section
            silent = f"sent nothing further for {section.chunk_timeout_s:g} s"
            if self._stream.late:
                silent = "did not finish within the time that there was"
            fault = self._provider.fault_of(error, silent)
            if not isinstance(fault, Fault):
                raise
            self._fail(fault)
            told = error_of(fault, self._provider.name, self._model)
            self._error = told.code
            raise told from None

    async def aclose(self) -> None:
        """Ends it, however far it came: place, leave and record. The connection is cut unless
        the stream is over."""
        provider = self._provider
        if self._leave is not None:
            leave, self._leave = self._leave, None
            if self.over:
                provider.breaker.succeed(leave)
            else:
                provider.breaker.abandon(leave)
        provider.slots.release()
        if self._error:
            self.account.end("failed", self._error)
        else:
            self.account.end("ok" if self.over else "cancelled")
        await self._stream.aclose()

    def _pass_on(self, events: list[Event]) -> list[Event]:
        for event in events:
            self.account.add(event)
        if not self.over:
            return events
        # Usage comes last and with its cost, whether the provider told it or not.
        usage = self.account.settle()
        kept: list[Event] = [event for event in events if not isinstance(event, Usage)]
        return [*kept, usage]

    def _fail(self, fault: Fault) -> None:
        self._figures.count_fault(self._provider.name, fault.kind)
        if self._leave is not None:
            leave, self._leave = self._leave, None
            if fault.is_sickness:
                self._provider.breaker.fail(leave, time.monotonic())
            else:
                self._provider.breaker.succeed(leave)
