"""How every daemon is built and run: the base app, and `serve`.

`create_base` gives a FastAPI app with `/health`, `/ready`, `/metrics`, the error envelope
and the edge around it. `serve` is what `python -m services.<name>` and the systemd units
call; the fleet launcher calls `run` in each forked child. Importing this starts nothing.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from shared.config import Config, ConfigError, load
from shared.daemons import ROOT
from shared.edge import Edge, RenderError, render_envelope
from shared.errors import BY_STATUS, Internal, Invalid, MethodNotAllowed, NotFound, Unavailable
from shared.http1 import make_protocol
from shared.keepalive import SERVER_KEEP_ALIVE_S
from shared.logs import AccessLog, configure_logging, is_json
from shared.metrics import CONTENT_TYPE, Metrics
from shared.version import VERSION
from shared.wire.base import ErrorEnvelope, Health, Ready

DEFAULT_CONFIG = ROOT / "config" / "lakehouse.toml"

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
ReadyCheck = Callable[[], Awaitable[dict[str, str]]]
Transports = Mapping[str, httpx.AsyncBaseTransport]
CreateApp = Callable[[Config], FastAPI]


_REF, _ERROR = "#/components/schemas/{model}", ErrorEnvelope.__name__


def create_base(
    service: str,
    config: Config,
    *,
    lifespan: Lifespan | None = None,
    ready: ReadyCheck | None = None,
    render_error: RenderError = render_envelope,
    app_class: type[FastAPI] = FastAPI,
    **fastapi_kwargs: Any,
) -> FastAPI:
    """A FastAPI app with everything that all daemons share.

    Args:
        service: the daemon's name.
        config: the whole configuration.
        lifespan: the daemon's own start and stop; runs after any fork.
        ready: checks of its dependencies, "ok" or the reason why not, by name.
        render_error: error bodies for daemons that speak a foreign protocol.
        app_class: a FastAPI of the daemon's own, where a path must not pay for the framework.
        fastapi_kwargs: passed on to FastAPI.

    `app.state.metrics` is the daemon's `Metrics`, for figures of its own, and
    `app.state.access_log` its access log.
    """
    metrics = Metrics()
    started = time.monotonic()
    app = app_class(
        title=service,
        version=VERSION,
        lifespan=lifespan or _no_lifespan,
        docs_url=None,
        # A redirect would name the daemon's own address to a client of the gateway.
        redirect_slashes=False,
        redoc_url=None,
        # Its own figures and traces look at the environment in every request.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        **fastapi_kwargs,
    )
    app.state.metrics = metrics
    app.state.access_log = AccessLog(
        service,
        sys.stderr if config.log.level in ("debug", "info") else None,
        is_json(config.log, sys.stderr),
    )
    app.add_middleware(
        Edge,  # pyright: ignore[reportArgumentType] # an ASGI class of other type names
        service=service,
        config=config,
        section=config.daemon(service),
        metrics=metrics,
        access_log=app.state.access_log,
        render_error=render_error,
    )
    app.add_exception_handler(RequestValidationError, _refuse_invalid)
    app.add_exception_handler(HTTPException, _refuse_http)

    @app.get("/health", tags=["probes"])
    async def get_health() -> Health:
        """Alive. No auth, no detail."""
        uptime = round(time.monotonic() - started, 3)
        return Health(service=service, version=VERSION, uptime_s=uptime)

    @app.get("/ready", tags=["probes"])
    async def get_ready() -> Ready:
        """Whether every dependency answers; 503 with the reasons when one does not."""
        checks = await ready() if ready else {}
        bad = {name: reason for name, reason in checks.items() if reason != "ok"}
        if bad:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in bad.items())
            raise Unavailable(f"{service} is not ready: {reasons}", details={"checks": checks})
        return Ready(status="ready", service=service, checks=checks)

    @app.get("/metrics", tags=["probes"], response_class=Response)
    async def get_metrics() -> Response:
        """Figures in Prometheus text."""
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    _describe_errors(app)
    return app


@asynccontextmanager
async def _no_lifespan(_: FastAPI) -> AsyncGenerator[None]:
    yield


async def _refuse_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = [
        {"where": ".".join(str(part) for part in problem["loc"]), "problem": problem["msg"]}
        for problem in error.errors()
    ]
    first = problems[0] if problems else {"where": "body", "problem": "is not valid"}
    raise Invalid(
        f"The request is not valid: {first['where']}: {first['problem']}",
        details={"problems": problems[:20]},
    )


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 404:
        raise NotFound(f"There is no route {path} here. GET /openapi.json lists the routes.")
    headers = dict(error.headers or {})
    if error.status_code == 405:
        told = headers.pop("Allow", headers.pop("allow", "another method"))
        allowed = ", ".join(_list_methods(request)) or told
        headers["Allow"] = allowed
        raise MethodNotAllowed(f"{path} takes {allowed}, not {request.method}.", headers=headers)
    cls = BY_STATUS.get(error.status_code, Invalid if error.status_code < 500 else Internal)
    raise cls(str(error.detail), headers=headers)


def _list_methods(request: Request) -> list[str]:
    """What a path takes, by all of its routes: the framework tells of the first one alone."""
    found: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is Match.PARTIAL:
            found |= route.methods or set()
    return sorted(found)


def _describe_errors(app: FastAPI) -> None:
    """Puts the envelope into the document, in place of FastAPI's own 422: validation answers 400.

    Here and not as `responses` of the app, of which FastAPI makes two validators for each route:
    a third of the time that an app takes to be made.
    """
    build = app.openapi

    def openapi() -> dict[str, Any]:
        document = build()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for operations in document.get("paths", {}).values():
            for operation in operations.values():
                responses = operation.setdefault("responses", {})
                responses.pop("422", None)
                for status, description in (("4XX", "Client Error"), ("5XX", "Server Error")):
                    content = {"application/json": {"schema": {"$ref": _REF.format(model=_ERROR)}}}
                    responses.setdefault(status, {"description": description, "content": content})
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        envelope = ErrorEnvelope.model_json_schema(ref_template=_REF)
        schemas.update(envelope.pop("$defs", {}))
        schemas[_ERROR] = envelope
        return document

    app.openapi = openapi


def run(name: str, create_app: CreateApp, config: Config) -> None:
    """Runs one daemon in this process until SIGTERM or SIGINT, then drains."""
    configure_logging(config.log, name)
    section = config.daemon(name)
    app = create_app(config)
    # What is here now stays. Looking through all of it for garbage stops the loop for tens of
    # milliseconds each time; a daemon of a fleet has had it done before the fork.
    gc.freeze()
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=section.host,
            port=section.port,
            http=make_protocol(name, config.http.max_header_bytes),
            loop="uvloop",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=SERVER_KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(config.fleet.drain_s),
            backlog=2048,
        )
    )
    server.run()
    if not server.started:
        raise SystemExit(3)


def serve(name: str, create_app: CreateApp) -> None:
    """Entry of `python -m services.<name> --config FILE`: reads the one place's settings."""
    parser = argparse.ArgumentParser(prog=f"python -m services.{name}")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="the TOML file")
    arguments = parser.parse_args()
    try:
        config = load(arguments.config, os.environ)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    logging.captureWarnings(True)
    run(name, create_app, config)
