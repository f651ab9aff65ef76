"""embedd with fake_ollama behind it, in one process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from services.embedd.app import create_app
from services.fake_ollama.app import create_app as create_fake_ollama
from shared.clients.fake_ollama import FakeOllamaClient
from shared.config import Config
from tests.support.apps import make_config, running


class World:
    """The two apps: `embedd` is asked over HTTP, `ollama` is steered."""

    def __init__(self, config: Config, embedd: httpx.AsyncClient, ollama: FakeOllamaClient) -> None:
        self.config = config
        self.embedd = embedd
        self.ollama = ollama

    async def embed(self, *texts: str, **more: Any) -> httpx.Response:
        """POST /embed with the fake's model unless another is named."""
        return await self.embedd.post("/embed", json={"texts": texts, "model": "fake", **more})

    async def figure(self, name: str) -> float:
        """One of embedd's metrics, by name and labels as /metrics writes them."""
        lines = (await self.embedd.get("/metrics")).text.splitlines()
        found = [line for line in lines if line.startswith(f"{name} ")]
        return float(found[0].split()[-1]) if found else 0.0

    async def texts_received(self) -> list[list[str]]:
        """Inputs of the embedding calls that reached the fake."""
        return [
            seen.json_body["input"]
            for seen in await self.ollama.requests()
            if seen.path in ("/api/embed", "/v1/embeddings")
        ]


@asynccontextmanager
async def world(tmp_path: Path, **sections: Mapping[str, Any]) -> AsyncGenerator[World]:
    """Runs both; `sections` are settings as for `make_config`."""
    config = make_config(tmp_path, **sections)
    async with running(create_fake_ollama(config)) as fake:
        transports = {"fake_ollama": fake, "api": fake}
        async with (
            running(create_app(config, transports=transports)) as transport,
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
        ):
            ollama = FakeOllamaClient(config, transports)
            yield World(config, client, ollama)
            await ollama.aclose()
