"""What the fleet's parent loads before it forks, so that all daemons hold one copy of it.

A page of memory is shared until someone writes to it, and Python writes to an object's
reference count whenever it looks at it. So what a daemon would do to these objects anyway is
done here once: measured, 24 MiB of a daemon's own became 15.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
from collections.abc import Iterable

# What every daemon imports anyway. Importing any of these starts no thread and no loop.
SHARED_MODULES = (
    "aiohttp",
    "fastapi",
    "httptools",
    "httpx",
    "httpx_aiohttp",
    "orjson",
    "prometheus_client",
    "shared.clients.base",
    "shared.runtime",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.httptools_impl",
)
# These bring libraries that no other daemon needs; they import them after the fork.
BRING_THEIR_OWN = frozenset({"catalogd"})


def preload(names: Iterable[str]) -> None:
    """Imports what the named daemons share and what is light of their own, and freezes it."""
    for module in SHARED_MODULES:
        importlib.import_module(module)
    for name in names:
        if name not in BRING_THEIR_OWN:
            # One that cannot be imported says so in its own process, and harms no other.
            with contextlib.suppress(Exception):
                importlib.import_module(f"services.{name}.app")
    _build_an_app()
    gc.collect()
    gc.freeze()


def _build_an_app() -> None:
    """Makes what frameworks make at their first use."""
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Body(BaseModel):
        text: str | None = None
        items: list[int] = []

    app = FastAPI()

    @app.post("/warm")
    async def post_warm(body: Body, limit: int = 1) -> Body:
        return body
