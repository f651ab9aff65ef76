"""The gateway's app: the proxy path, the console, and the few routes of its own.

It is a FastAPI app like every daemon's. What lies under `/v1` belongs to other daemons and
is carried there by raw ASGI, around the framework: the framework's share of a small proxied
request would be as large as the relay's own.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
from fastapi import FastAPI, Response

from services.gateway.console.door import OPENED, AddressCheck, Door
from services.gateway.console.entry import LazyConsole, is_console
from services.gateway.core.openapi import merge_documents
from services.gateway.core.pages import content_security_policy
from services.gateway.core.routing import find_shape
from services.gateway.core.shapes import shape_error
from services.gateway.store.fleet import Cached, FleetReader
from services.gateway.store.pool import Pool, QuietClock
from services.gateway.store.relay import Relay
from shared.config import Config
from shared.daemons import BUILT
from shared.edge import App, Edge, Receive, Scope, Send
from shared.errors import LakehouseError
from shared.runtime import Transports, create_base
from shared.version import VERSION

SERVICE = "gateway"
# Probes, figures and the console are the gateway's own; these are other daemons'.
PROXIED = "/v1"
# A daemon whose part is missing from the API document is asked again this soon. Seconds.
RETRY_DOCUMENT_S = 2.0
DOCS_PAGE = Path(__file__).parent / "pages" / "docs.html"


class Gateway(FastAPI):
    """A FastAPI app in front of which the proxy path stands, and the console."""

    proxy: App | None = None
    console: App | None = None
    door: Door | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request: to the proxy path, the console, or the routes of this app."""
        if self.proxy is not None and scope["type"] == "http" and is_proxied(scope["path"]):
            await self.proxy(scope, receive, send)
            return
        if self.console is not None and scope["type"] == "http":
            if is_console(scope["path"]):
                await self.console(scope, receive, send)
                return
            if self.door is not None and self.door.token and scope["path"] in OPENED:
                scope, send = self.door.admit(scope, send)
        await super().__call__(scope, receive, send)


def is_proxied(path: str) -> bool:
    """Whether a request belongs to the proxy path, whose errors are in its callers' shapes."""
    return path.startswith(PROXIED) and path[len(PROXIED) : len(PROXIED) + 1] in ("", "/")


def create_app(config: Config, *, transports: Transports | None = None) -> FastAPI:
    """The gateway.

    Args:
        config: all of it: the daemons' sections say where they are.
        transports: in-process transports by daemon, for `/ready` and the API document. The
            proxy path always goes over sockets.
    """
    section = config.gateway
    daemons = [name for name in config.fleet.daemons or BUILT if name != SERVICE]
    fleet = FleetReader(config, daemons, ready_s=section.ready_timeout_s, transports=transports)
    pools = {
        name: Pool(
            name,
            config.daemon(name).address,
            connect_s=section.connect_timeout_s,
            first_byte_s=config.daemon(name).request_timeout_s + section.answer_margin_s,
            between_s=section.silence_timeout_s,
        )
        for name in daemons
    }
    clock = QuietClock(pools.values())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        clock.start()
        try:
            yield
        finally:
            clock.stop()
            for pool in pools.values():
                pool.close()
            await console.aclose()
            await fleet.aclose()

    app = create_base(
        SERVICE,
        config,
        lifespan=lifespan,
        ready=fleet.check_all,
        app_class=Gateway,
        openapi_url=None,
    )
    assert isinstance(app, Gateway)
    app.proxy = Edge(
        Relay(pools=pools, token=config.token),
        service=SERVICE,
        config=config,
        section=section,
        metrics=app.state.metrics,
        access_log=app.state.access_log,
        render_error=render_error,
    )
    app.door = Door(config)
    console = LazyConsole(config, app.door, app.state.metrics.render, transports)
    app.console = Edge(
        console,
        service=SERVICE,
        config=config,
        # Uploads and models' answers pass there; its pages have a shorter time of their own.
        section=section.model_copy(update={"request_timeout_s": config.ingestd.request_timeout_s}),
        metrics=app.state.metrics,
        access_log=app.state.access_log,
        gatekeeper=AddressCheck(app.door.gatekeeper),
    )
    add_documents(app, config, fleet)
    return app


def render_error(scope: Scope, error: LakehouseError, service: str, request_id: str) -> bytes:
    """An error body in the shape that the path's callers read."""
    shape = find_shape(scope["raw_path"])
    body = shape_error(shape, error, service=service, request_id=request_id)
    return orjson.dumps(body, default=str)


def add_documents(app: FastAPI, config: Config, fleet: FleetReader) -> None:
    """Adds `/openapi.json` and `/docs`: the whole fleet's API as one document."""

    async def make_document() -> tuple[bytes, float]:
        found, missing = await fleet.read_documents()
        document = merge_documents(
            {**found, SERVICE: app.openapi()},
            missing,
            version=VERSION,
            with_token=bool(config.token),
        )
        max_age_s = config.gateway.document_max_age_s
        return orjson.dumps(document), min(max_age_s, RETRY_DOCUMENT_S) if missing else max_age_s

    document = Cached(make_document, time.monotonic)
    page = DOCS_PAGE.read_bytes()
    page_headers = {
        "content-security-policy": content_security_policy(page.decode("utf-8")),
        "x-content-type-options": "nosniff",
    }

    @app.get("/openapi.json", include_in_schema=False)
    async def get_document() -> Response:
        """The fleet's OpenAPI document."""
        return Response(await document.get(), media_type="application/json")

    @app.get("/docs", include_in_schema=False)
    async def get_docs() -> Response:
        """A page that shows the document. It loads nothing from anywhere else."""
        return Response(page, media_type="text/html; charset=utf-8", headers=page_headers)
