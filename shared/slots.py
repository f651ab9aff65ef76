"""Bounded concurrency: places for requests under way, and a bounded queue for one."""

from __future__ import annotations

import asyncio
from collections import deque

from shared.errors import RateLimited


class Slots:
    """At most `limit` requests under way and `max_queue` waiting, first come first served."""

    def __init__(self, limit: int, max_queue: int) -> None:
        self.limit = limit
        self.max_queue = max_queue
        self.active = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> None:
        """Takes a place, waiting for one if all are taken.

        Raises:
            RateLimited: the queue is full as well.
        """
        if self.active < self.limit:
            self.active += 1
            return
        if len(self._waiting) >= self.max_queue:
            raise RateLimited(
                f"{self.limit} requests are under way and {self.max_queue} are waiting. "
                "Try again shortly.",
                headers={"Retry-After": "1"},
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()  # the place came in the same moment; pass it on
            else:
                self._waiting.remove(turn)
            raise

    def release(self) -> None:
        """Gives the place to the next in the queue, or back."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.active -= 1
