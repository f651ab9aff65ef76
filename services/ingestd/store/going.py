"""How an ingest goes: as a request that is told of every failure, or as a job that waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.ingestd.core.progress import Track
from shared.errors import LakehouseError, RateLimited, Timeout, Unavailable, Upstream

T = TypeVar("T")

# What may be otherwise in a while: a daemon that starts again, or has too much to do.
_PASSING = (Unavailable, Timeout, Upstream, RateLimited)
_FIRST_WAIT_S = 0.25
_LONGEST_WAIT_S = 15.0


class Going:
    """An ingest as a request does it: nothing is kept, and nobody waits for a daemon.

    Attributes:
        track: its progress.
        named: the id under which an earlier life of a job meant to register, if it came so far.
        queued: it waited in a queue of its own already.
    """

    queued = False
    named: str | None = None

    def __init__(self, patience_s: float = 0.0) -> None:
        self.track = Track()
        self._patience_s = patience_s

    async def register_as(self, ingest_id: str) -> None:
        """It is about to be registered under this id."""
        self.track.enter("registering")

    def unseal(self) -> None:
        """It was not registered; what comes is another attempt."""

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Makes a call that may be repeated, until it succeeds or patience is over."""
        began = time.monotonic()
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                return await call()
            except _PASSING as error:
                if time.monotonic() - began + wait_s > self._patience_s:
                    raise
                self._say(error, wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            self.track.update(note=None)

    def _say(self, error: LakehouseError, wait_s: float) -> None:
        self.track.update(note=f"{error.message} Trying again in {wait_s:g} s.")
