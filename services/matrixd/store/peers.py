"""The daemons that matrixd stands on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from shared.clients.base import ServiceClient
from shared.clients.catalogd import CatalogdClient
from shared.clients.embedd import EmbeddClient
from shared.clients.queryd import QuerydClient
from shared.clients.storaged import StoragedClient
from shared.clients.vectord import VectordClient
from shared.config import Config
from shared.errors import LakehouseError, RateLimited, Timeout, Unavailable, Upstream
from shared.runtime import Transports

T = TypeVar("T")

# What may be better in a moment; anything else is an answer.
PASSING = (Unavailable, Timeout, Upstream, RateLimited)
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0


@dataclass(frozen=True, slots=True)
class Peers:
    """A client of each."""

    embedd: EmbeddClient
    vectord: VectordClient
    queryd: QuerydClient
    catalogd: CatalogdClient
    storaged: StoragedClient

    @classmethod
    def of(cls, config: Config, transports: Transports | None) -> Peers:
        """The clients that the configuration names."""
        return cls(
            EmbeddClient(config, transports),
            VectordClient(config, transports),
            QuerydClient(config, transports),
            CatalogdClient(config, transports),
            StoragedClient(config, transports),
        )

    def all(self) -> tuple[ServiceClient, ...]:
        """All of them."""
        return self.embedd, self.vectord, self.queryd, self.catalogd, self.storaged

    async def aclose(self) -> None:
        """Closes their connections."""
        for client in self.all():
            await client.aclose()


class Patience:
    """Calls that are tried again while a peer is away.

    Args:
        limit_s: how long a peer may be away, from the first failure on, before its last error
            is raised.
        waiting: told the reason at each failure, and None when it works again.
    """

    def __init__(self, limit_s: float, waiting: Callable[[str | None], None]) -> None:
        self._limit_s = limit_s
        self._waiting = waiting

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of `work`, however often it takes.

        Raises:
            LakehouseError: it was refused, or kept failing past the limit.
        """
        loop = asyncio.get_running_loop()
        until: float | None = None
        pause = _FIRST_PAUSE_S
        while True:
            try:
                result = await work()
            except PASSING as error:
                # From the first failure on: what was asked for may have worked long before it.
                until = until or loop.time() + self._limit_s
                if loop.time() + pause > until:
                    raise
                self._waiting(error.message)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
            else:
                if pause > _FIRST_PAUSE_S:
                    self._waiting(None)
                return result


def tell(error: LakehouseError) -> str:
    """An error as it stands in a job or a corpus's answer."""
    return f"{error.code}: {error.message}"
