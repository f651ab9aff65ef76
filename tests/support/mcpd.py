"""mcpd for tests: its server over a gateway that answers as told."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from mcp import Client

from services.mcpd.store.server import build_server
from shared.clients.gateway import Gateway, at_gateway
from tests.support.apps import make_config

Answer = tuple[int, Any] | Callable[[httpx.Request], tuple[int, Any]]


class FakeGateway(httpx.AsyncBaseTransport):
    """Answers `METHOD path` as `answers` says, 404 otherwise, and keeps what it was asked."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.answers = dict(answers)
        self.asked: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.asked.append(request)
        told = self.answers.get(f"{request.method} {request.url.path}")
        if told is None:
            return httpx.Response(404, json=envelope("not_found", "There is nothing here."))
        status, body = told(request) if callable(told) else told
        return httpx.Response(status, json=body)

    def body(self) -> Any:
        """What the last request carried."""
        return json.loads(self.asked[-1].content)


def envelope(code: str, message: str, **details: Any) -> dict[str, Any]:
    """An error as the fleet's daemons answer it."""
    inner = {"code": code, "message": message, "details": details}
    return {"error": {**inner, "service": "queryd", "request_id": "r"}}


@asynccontextmanager
async def mcp_client(
    tmp_path: Path, gateway: FakeGateway, *, mode: str = "auto", **section: Any
) -> AsyncGenerator[Client]:
    """A client of the server, without a transport between them."""
    config = at_gateway(make_config(tmp_path, mcpd=section))
    clients = Gateway(config, {"gateway": gateway})
    try:
        server = build_server(clients, config.mcpd)
        async with Client(server, mode=mode) as client:  # type: ignore[arg-type]
            yield client
    finally:
        await clients.aclose()


def text_of(result: Any) -> str:
    """The text of a tool's answer."""
    return "\n".join(part.text for part in result.content)
