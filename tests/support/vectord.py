"""What vectord's tests share: clustered vectors, and the daemon beside a real storaged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import numpy as np

from services.storaged.app import create_app as create_storaged
from services.vectord.app import create_app
from shared.config import Config
from tests.support.apps import running

Floats = np.ndarray[Any, np.dtype[np.float32]]


def cluster_vectors(count: int, dim: int, centres: int, seed: int) -> tuple[Floats, Floats, Any]:
    """Vectors around centres, queries of the same kind, and each vector's centre."""
    rng = np.random.default_rng(seed)
    middle = rng.standard_normal((centres, dim))
    around = rng.integers(0, centres, count)
    vectors = middle[around] + 0.6 * rng.standard_normal((count, dim))
    asked = middle[rng.integers(0, centres, 60)] + 0.6 * rng.standard_normal((60, dim))
    return vectors.astype(np.float32), asked.astype(np.float32), around


class Down(httpx.AsyncBaseTransport):
    """A transport to a daemon that can be cut off and come back."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.inner = inner
        self.down = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("refused")
        return await self.inner.handle_async_request(request)


@asynccontextmanager
async def vectord_running(
    config: Config, storaged: httpx.AsyncBaseTransport
) -> AsyncGenerator[httpx.AsyncClient]:
    """vectord over a storaged that runs already; not waited for."""
    app = create_app(config, transports={"storaged": storaged})
    async with (
        running(app) as transport,
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        yield client


@asynccontextmanager
async def storaged_running(config: Config) -> AsyncGenerator[Down]:
    """A real storaged that can be cut off."""
    async with AsyncExitStack() as stack:
        yield Down(await stack.enter_async_context(running(create_storaged(config))))


async def until(what: Any, seconds: float = 20) -> None:
    """Waits for an async condition.

    Raises:
        TimeoutError: it does not come true.
    """
    async with asyncio.timeout(seconds):
        while not await what():
            await asyncio.sleep(0.01)


async def until_ready(client: httpx.AsyncClient) -> None:
    """Waits until vectord is ready."""

    async def is_ready() -> bool:
        return (await client.get("/ready")).status_code == 200

    await until(is_ready)
