"""chatd over real sockets, with fake providers behind it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from services.chatd.app import create_app
from shared.config import Config
from tests.support.apps import make_config
from tests.support.providers import Fake, fake
from tests.support.sockets import serving

# The wires, each the name of a provider that speaks it.
WIRES = ("ollama", "chat", "messages", "responses", "gemini")
# Fast enough for tests, long enough for a busy machine.
QUICK = {"retry_base_s": 0.002, "retry_max_s": 0.01}


# The providers of the shipped configuration, at fakes.
CLOUDS: dict[str, dict[str, Any]] = {
    "ollama": {"wire": "ollama"},
    "ollama_cloud": {"wire": "ollama", "key": "OLLAMA_CLOUD_KEY"},
    "openrouter": {
        "key": "OPENROUTER_API_KEY",
        "path": "/api/v1",
        "reasoning_field": "reasoning",
        "send": {"usage": {"include": True}},
    },
    "opencode": {
        "key": "OPENCODE_API_KEY",
        "path": "/zen/v1",
        "wires": {"gpt-*": "responses", "claude-*": "messages", "gemini-*": "gemini"},
    },
    "kimi": {
        "key": "KIMI_API_KEY",
        "path": "/v1",
        "max_tokens_field": "max_completion_tokens",
        "fixed_sampling": ["kimi-*"],
    },
}


def write_key(tmp_path: Path, provider: str, text: str, mode: int = 0o600) -> None:
    """A key file for the world's `keys_dir`."""
    folder = tmp_path / "keys"
    folder.mkdir(exist_ok=True)
    file = folder / f"{provider}.env"
    file.write_text(text)
    file.chmod(mode)


def write_all_keys(tmp_path: Path) -> None:
    """A key file for every provider that wants one."""
    for name, table in CLOUDS.items():
        if "key" in table:
            write_key(tmp_path, name, f"{table['key']}=sk-{name}\n")


@dataclass
class World:
    """A running chatd, a client of it, and the providers by name."""

    config: Config
    app: FastAPI
    port: int
    client: httpx.AsyncClient
    fakes: Mapping[str, Fake]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def chat(self, model: str, text: str = "hi", **fields: Any) -> httpx.Response:
        """POST /chat."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        return await self.client.post("/chat", json=body)

    async def complete(self, model: str, text: str = "hi", **fields: Any) -> httpx.Response:
        """POST /v1/chat/completions."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        return await self.client.post("/v1/chat/completions", json=body)

    async def figure(self, name: str) -> float:
        """One of the metrics, by name and labels as /metrics writes them."""
        lines = (await self.client.get("/metrics")).text.splitlines()
        found = [line for line in lines if line.startswith(f"{name} ")]
        return float(found[0].split()[-1]) if found else 0.0

    async def records(self, count: int) -> list[dict[str, Any]]:
        """The ledger's records, once there are so many."""
        folder = self.config.data_dir("chatd") / "ledger"
        deadline = time.monotonic() + 5
        while True:
            found: list[dict[str, Any]] = []
            for file in sorted(folder.glob("*.jsonl")):
                for line in file.read_text().splitlines():
                    found += find_records(json.loads(line))
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, f"{len(found)} records of {count}"
            await asyncio.sleep(0.01)


def find_records(value: Any) -> list[dict[str, Any]]:
    """The ledger's record in a line of the journal, wherever the journal puts it."""
    if not isinstance(value, dict):
        return []
    if "surface" in value:
        return [value]
    return [found for inner in value.values() for found in find_records(inner)]


@asynccontextmanager
async def world(
    tmp_path: Path,
    *,
    providers: Mapping[str, Mapping[str, Any]] | None = None,
    models: Mapping[str, Any] | None = None,
    auth: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AsyncGenerator[World]:
    """Runs chatd with a fake for each table of `providers`, by default one a wire.

    A table's `path` is put behind the fake's address; `url` in it takes the fake's place.
    """
    tables = providers if providers is not None else {wire: {"wire": wire} for wire in WIRES}
    async with AsyncExitStack() as stack:
        fakes: dict[str, Fake] = {}
        sections: dict[str, Any] = {}
        for name, table in tables.items():
            given = dict(table)
            path = given.pop("path", "")
            if "url" not in given and "daemon" not in given:
                fakes[name] = await stack.enter_async_context(fake(given.get("wire", "chat")))
                given["url"] = fakes[name].url + path
            sections[name] = given
        chatd = {**QUICK, "keys_dir": tmp_path / "keys", **settings, "providers": sections}
        more = {"models": models} if models is not None else {}
        if auth is not None:
            more["auth"] = auth
        config = make_config(tmp_path, chatd=chatd, **more)
        app = create_app(config)
        port = await stack.enter_async_context(serving(app))
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}",
                timeout=20,
                trust_env=False,
                # No TLS here, and reading the system's certificates takes a fifth of a test.
                verify=False,
            )
        )
        yield World(config, app, port, client, fakes)


def events_of(text: str) -> list[Any]:
    """The data of server-sent events; `[DONE]` as it stands."""
    found: list[Any] = []
    for block in text.split("\n\n"):
        data = "\n".join(line[6:] for line in block.split("\n") if line.startswith("data: "))
        if data:
            found.append(data if data == "[DONE]" else json.loads(data))
    return found
