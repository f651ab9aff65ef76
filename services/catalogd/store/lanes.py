"""One commit at a time per dataset, without a thread for each that waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Lanes:
    """Runs work of one name one after another, and of different names side by side.

    A caller who goes away while waiting is gone from the lane; one who goes away while its
    work runs leaves it running, and the lane stays taken until it is done.
    """

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: dict[str, int] = {}

    async def run(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """The result of `work`, once it is this caller's turn."""
        lock = self._locks.setdefault(name, asyncio.Lock())
        self._users[name] = self._users.get(name, 0) + 1
        try:
            await lock.acquire()
        except BaseException:
            self._leave(name)
            raise
        task = asyncio.ensure_future(work())

        def finish(done: asyncio.Future[T]) -> None:
            lock.release()
            self._leave(name)
            if not done.cancelled():
                # Read, so that a failure whose caller went away is not reported as unhandled.
                done.exception()

        task.add_done_callback(finish)
        return await asyncio.shield(task)

    def _leave(self, name: str) -> None:
        self._users[name] -= 1
        if not self._users[name]:
            del self._users[name], self._locks[name]
