"""vectord's threads: searches, writes, loading and background building apart from each other."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from shared.config import VectordSection
from shared.pool import BlockingPool

T = TypeVar("T")
# How much lower the priority of building is than that of searching.
_NICE = 10
# Background work waits its turn, however many indexes there are.
_MANY = 100_000


class Pools:
    """One limited pool per kind of work, so that none waits for another kind."""

    def __init__(self, section: VectordSection) -> None:
        waiting = section.max_concurrency * 4
        self.search = BlockingPool("vectord-search", section.search_threads, waiting)
        self.write = BlockingPool("vectord-write", 2, waiting)
        self.load = BlockingPool("vectord-load", 2, _MANY)
        self.build = BlockingPool("vectord-build", 1, _MANY)

    @staticmethod
    def as_background(fn: Callable[[], T]) -> T:
        """Runs `fn` at low priority; the threads that it starts inherit that."""
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        return fn()

    def close(self) -> None:
        """Waits for what is running."""
        for pool in (self.search, self.write, self.load, self.build):
            pool.close()
