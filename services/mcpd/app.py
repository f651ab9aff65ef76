"""Wiring of mcpd: the protocol's path, and the routes that every daemon has."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from prometheus_client import Counter
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from services.mcpd.store.door import Door
from shared.clients.gateway import Gateway, at_gateway
from shared.config import Config
from shared.errors import Unavailable
from shared.runtime import Transports, create_base
from shared.wire.mcpd import MCP_PATH


def create_app(config: Config, *, transports: Transports | None = None) -> FastAPI:
    """Builds the daemon.

    Args:
        config: section `mcpd`, the gateway's address, and the token.
        transports: in-process transports by service name; only "gateway" is looked at.
    """
    entrance = _Entrance()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        gateway = Gateway(at_gateway(config), transports)
        entrance.gateway = gateway
        entrance.door = Door(gateway, config.mcpd, calls)
        try:
            yield
        finally:
            await entrance.door.close()
            await gateway.aclose()

    async def check() -> dict[str, str]:
        """Whether the gateway is there; what is behind it is its own to tell."""
        if entrance.gateway is None:
            return {"gateway": "not started yet"}
        return {"gateway": await entrance.gateway.edge.check()}

    app = create_base("mcpd", config, lifespan=lifespan, ready=check)
    calls = Counter(
        "lakehouse_mcpd_tool_calls_total",
        "Calls of tools by outcome: ok, refused (the model's to mend), failed",
        ("tool", "outcome"),
        registry=app.state.metrics.registry,
    )
    app.router.routes.append(Route(MCP_PATH, endpoint=entrance))
    _describe(app)
    return app


class _Entrance:
    """The route's ASGI app: the door, once the daemon has started."""

    gateway: Gateway | None = None
    door: Door | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.door is None:
            raise Unavailable("mcpd has not started yet. Try again shortly.")
        await self.door(scope, receive, send)


def _describe(app: FastAPI) -> None:
    """Puts the protocol's path into the API's document: the framework does not know it."""
    build = app.openapi

    def openapi() -> dict[str, Any]:
        document = build()
        document["paths"][MCP_PATH] = {
            "post": {
                "tags": ["mcp"],
                "summary": "Model Context Protocol",
                "description": "One JSON-RPC request of MCP, stateless. Its tools are listed by "
                "`tools/list`; docs/mcpd.md shows how clients are configured.",
                "operationId": "post_mcp",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"type": "object"}}},
                },
                "responses": {"200": {"description": "A JSON-RPC response"}},
            }
        }
        return document

    app.openapi = openapi
