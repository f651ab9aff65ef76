"""pathwayd with embedd and fake_ollama behind it, in one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from services.embedd.app import create_app as create_embedd
from services.fake_ollama.app import create_app as create_fake_ollama
from services.pathwayd.app import create_app
from shared.config import Config
from tests.support.apps import make_config, running


class Switch(httpx.AsyncBaseTransport):
    """A transport to embedd that can be cut off, made to hang, and counted."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.inner = inner
        self.down = False
        self.hangs = False
        self.texts = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("refused")
        if self.hangs:
            await asyncio.sleep(60)
        if request.url.path == "/embed":
            self.texts += request.content.count(b'","') + 1
        return await self.inner.handle_async_request(request)


class World:
    """pathwayd, and the switch that its embedd hangs on."""

    def __init__(
        self, client: httpx.AsyncClient, embedd: Switch, config: Config, app: FastAPI
    ) -> None:
        self.client = client
        self.app = app
        self.embedd = embedd
        self.config = config

    async def add(self, content: Any, expect: int = 201, **more: Any) -> dict[str, Any]:
        """Adds a trace."""
        return await self.post("/pathway/traces", {"content": content, **more}, expect)

    async def post(
        self, path: str, body: Any, expect: int = 200, headers: Mapping[str, str] | None = None
    ) -> Any:
        """A POST that must answer with a status; gives the body."""
        answer = await self.client.post(path, json=body, headers=headers)
        assert answer.status_code == expect, answer.text
        return answer.json()

    async def put(
        self, path: str, body: Any, expect: int = 200, headers: Mapping[str, str] | None = None
    ) -> Any:
        """A PUT that must answer with a status; gives the body."""
        answer = await self.client.put(path, json=body, headers=headers)
        assert answer.status_code == expect, answer.text
        return answer.json()

    async def get(self, path: str, expect: int = 200) -> Any:
        """A GET that must answer with a status; gives the body."""
        answer = await self.client.get(path)
        assert answer.status_code == expect, answer.text
        return answer.json()

    async def search(self, query: str | None = None, **more: Any) -> dict[str, Any]:
        """A search; gives the whole answer."""
        body = {**({} if query is None else {"query": query}), **more}
        return await self.post("/pathway/search", body)

    async def ids(self, query: str | None = None, **more: Any) -> list[str]:
        """The ids that a search finds."""
        return [hit["id"] for hit in (await self.search(query, **more))["hits"]]

    async def until_ready(self) -> None:
        """Waits until the traces are loaded."""

        async def is_loaded() -> bool:
            return (await self.get("/pathway/stats"))["status"] == "ready"

        await until(is_loaded)

    async def until_embedded(self) -> None:
        """Waits until no trace waits for a vector."""

        async def is_done() -> bool:
            vectors = (await self.get("/pathway/stats"))["vectors"]
            return vectors["pending"] == 0 and vectors["model"] is not None

        await until(is_done)


async def until(what: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Waits for an async condition.

    Raises:
        TimeoutError: it does not come true.
    """
    async with asyncio.timeout(seconds):
        while not await what():
            await asyncio.sleep(0.01)


MODELS = {
    name: {"capabilities": ["embedding"], "embedding_length": length}
    for name, length in (("fake-embed:latest", 256), ("other-embed:latest", 64))
}


def config_of(tmp_path: Path, **keys: Any) -> Config:
    """Settings of pathwayd; by default it embeds with the fake's first model."""
    embedd, fake = {"default_model": "fake"}, {"models": MODELS}
    return make_config(tmp_path, pathwayd=keys, embedd=embedd, fake_ollama=fake)


@asynccontextmanager
async def world(config: Config) -> AsyncGenerator[World]:
    """Runs the three apps until the block ends."""
    async with (
        embedd_running(config) as switch,
        pathwayd(config, switch) as made,
    ):
        yield made


@asynccontextmanager
async def embedd_running(config: Config) -> AsyncGenerator[Switch]:
    """embedd over a fake Ollama, behind a switch."""
    async with (
        running(create_fake_ollama(config)) as fake,
        running(create_embedd(config, transports={"fake_ollama": fake})) as embedd,
    ):
        yield Switch(embedd)


@asynccontextmanager
async def pathwayd(
    config: Config, switch: Switch, **transports: httpx.AsyncBaseTransport
) -> AsyncGenerator[World]:
    """pathwayd alone, over an embedd that runs already, and whatever else does."""
    app = create_app(config, transports={"embedd": switch, **transports})
    async with (
        running(app) as transport,
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        made = World(client, switch, config, app)
        await made.until_ready()
        yield made
