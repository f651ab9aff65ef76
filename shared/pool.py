"""The one place where blocking work leaves the event loop.

Each daemon has one explicitly limited pool for its files, SQL and native libraries. Work
that is under way is never torn in the middle: a caller who goes away stops waiting, while
the function runs to its end and keeps its slot until then, so that the limit is true.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from shared.errors import RateLimited

P = ParamSpec("P")
T = TypeVar("T")


class BlockingPool:
    """At most `threads` functions at once and `max_queue` waiting for a thread.

    No thread exists before the first call, so a pool may be made before a fork.
    """

    def __init__(self, name: str, threads: int, max_queue: int) -> None:
        self.name = name
        self.limit = threads + max_queue
        self.in_flight = 0
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `fn` in a thread with the caller's context and gives its result.

        Raises:
            RateLimited: as many calls are running and waiting as the pool allows.
        """
        if self.in_flight >= self.limit:
            raise RateLimited(
                f"{self.name} has {self.limit} calls in hand already. Try again shortly.",
                headers={"Retry-After": "1"},
            )
        self.in_flight += 1
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        try:
            future = loop.run_in_executor(self._executor, lambda: context.run(fn, *args, **kwargs))
        except BaseException:
            self.in_flight -= 1
            raise
        future.add_done_callback(self._release)
        # Shielded: cancelling the caller must not mark the slot free while the thread runs.
        return await asyncio.shield(future)

    def _release(self, future: asyncio.Future[T]) -> None:
        self.in_flight -= 1
        if not future.cancelled():
            # Read, so that a failure whose caller went away is not reported as unhandled.
            future.exception()

    def close(self) -> None:
        """Waits for what is running; nothing further is accepted."""
        self._executor.shutdown(wait=True, cancel_futures=True)
