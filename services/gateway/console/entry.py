"""The console's place in the gateway: nothing of it is loaded before somebody looks at it."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Any

from services.gateway.console.door import CONSOLE, Door
from shared.config import Config
from shared.edge import Receive, Scope, Send
from shared.heap import return_freed_memory
from shared.pool import BlockingPool
from shared.runtime import Transports

# Reports and templates are read, and the console itself is loaded, beside the event loop.
_THREADS, _WAITING = 1, 64


def is_console(path: str) -> bool:
    """Whether a path is the console's."""
    return path.startswith(CONSOLE) and path[len(CONSOLE) : len(CONSOLE) + 1] in ("", "/")


class LazyConsole:
    """An ASGI app that becomes the console at its first request.

    Args:
        config: the whole configuration.
        door: who is let in.
        figures: gives the gateway's own `/metrics`.
        transports: in-process transports by service name, for tests.
    """

    def __init__(
        self,
        config: Config,
        door: Door,
        figures: Callable[[], bytes],
        transports: Transports | None,
    ) -> None:
        self._config = config
        self._door = door
        self._figures = figures
        self._transports = transports
        self._pool = BlockingPool("console", _THREADS, _WAITING)
        self._console: Any = None
        self._lock = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["lakehouse.route"] = CONSOLE
        if self._console is None:
            await self._load()
        await self._console(scope, receive, send)

    async def aclose(self) -> None:
        """Ends what the console has begun."""
        if self._console is not None:
            await self._console.aclose()
        self._pool.close()

    async def _load(self) -> None:
        async with self._lock:
            if self._console is None:
                # In a thread: loading takes longer than a proxied request may wait.
                module = await self._pool.run(
                    importlib.import_module, "services.gateway.console.app"
                )
                self._console = module.Console(
                    self._config, self._door, self._figures, self._pool, self._transports
                )
                await self._pool.run(return_freed_memory)
