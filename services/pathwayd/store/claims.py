"""One change at a time to one thing: a trace, an Idempotency-Key, a content."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager


class Claims:
    """Named locks that exist only while somebody holds or wants them."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._wanted: dict[str, int] = {}

    @asynccontextmanager
    async def hold(self, names: Iterable[str]) -> AsyncGenerator[None]:
        """Holds all of the names; taken in one order, so that nobody waits in a circle."""
        wanted = sorted(set(names))
        held: list[asyncio.Lock] = []
        for name in wanted:
            self._wanted[name] = self._wanted.get(name, 0) + 1
        try:
            for name in wanted:
                lock = self._locks.setdefault(name, asyncio.Lock())
                await lock.acquire()
                held.append(lock)
            yield
        finally:
            for lock in held:
                lock.release()
            for name in wanted:
                self._wanted[name] -= 1
                if not self._wanted[name]:
                    del self._wanted[name]
                    self._locks.pop(name, None)
