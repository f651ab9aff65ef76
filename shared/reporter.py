"""Telling observerd what happened, without ever waiting for it.

`tell` puts an event into a bounded list and returns; a task sends what has gathered. When
observerd is away or slow, events are dropped and counted, never queued without end, and no
request of the daemon that reports is slower or fails for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Any

from shared.errors import LakehouseError

logger = logging.getLogger("lakehouse.reporter")

Send = Callable[[Sequence[dict[str, Any]]], Awaitable[object]]

# What waits to be sent, and what goes in one request.
CAPACITY = 2000
BATCH = 200
# Events gather this long before they are sent. Seconds.
GATHER_S = 0.05
# After a failure observerd is left alone this long. Seconds.
REST_S = 1.0
# At a stop, the longest that what is left may take. Seconds.
LAST_S = 1.0


class Reporter:
    """Sends events in the background.

    Args:
        send: takes a batch; raises a LakehouseError when it cannot.
        dropped: told how many events were given up.
    """

    def __init__(self, send: Send, dropped: Callable[[int], None]) -> None:
        self._send = send
        self._dropped = dropped
        self._waiting: deque[dict[str, Any]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def tell(self, event: dict[str, Any]) -> None:
        """Takes an event to be sent later; drops and counts it when too many wait."""
        if len(self._waiting) >= CAPACITY or self._closing.is_set():
            self._dropped(1)
            return
        self._waiting.append(event)
        if self._task is None or self._task.done():
            # In a context of its own: what it sends does not belong to the request in hand.
            self._task = asyncio.get_running_loop().create_task(self._run(), context=Context())

    async def _run(self) -> None:
        while self._waiting:
            await self._pause(GATHER_S)
            count = min(BATCH, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(count)]
            try:
                await self._send(batch)
            except LakehouseError as error:
                self._dropped(count)
                logger.info("%d events were not recorded: %s", count, error.message)
                await self._pause(REST_S)
            except Exception:
                # An event that cannot be written as JSON, say. It must not stop the others.
                self._dropped(count)
                logger.warning("%d events could not be sent", count, exc_info=True)
            except asyncio.CancelledError:
                self._dropped(count)
                raise

    async def _pause(self, seconds: float) -> None:
        """Waits, but not past the beginning of the stop."""
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            pass

    async def aclose(self) -> None:
        """Sends what waits, within a second, and drops the rest."""
        self._closing.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=LAST_S)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._dropped(len(self._waiting))
        self._waiting.clear()
