"""The edge around every daemon: what holds for each request, whatever its route."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from shared import context
from shared.errors import Conflict
from shared.runtime import create_base
from tests.support.apps import client_of, make_config

pytestmark = pytest.mark.anyio


class Number(BaseModel):
    value: int


class World:
    """What the handlers of the app under test saw and wait for."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()


def make_app(tmp_path: Path, world: World, **sections: Mapping[str, Any]) -> FastAPI:
    checks = {"disk": "ok"}

    async def ready() -> dict[str, str]:
        return checks

    app = create_base("storaged", make_config(tmp_path, **sections), ready=ready)
    app.state.checks = checks

    @app.post("/number")
    async def post_number(number: Number) -> Number:
        return number

    @app.get("/items/{name}")
    async def get_item(name: str) -> dict[str, Any]:
        return {"name": name, "left_s": context.remaining_s(), "id": context.request_id.get()}

    @app.get("/conflict")
    async def get_conflict() -> None:
        raise Conflict("Already there.", details={"name": "x"}, headers={"Retry-After": "7"})

    @app.get("/crash")
    async def get_crash() -> None:
        raise RuntimeError("secret detail of the server")

    @app.post("/eat")
    async def eat(request: Request) -> dict[str, int]:
        return {"bytes": sum([len(piece) async for piece in request.stream()])}

    @app.get("/wait")
    async def wait() -> str:
        world.entered.set()
        try:
            await world.release.wait()
        except asyncio.CancelledError:
            world.cancelled.set()
            raise
        return "done"

    @app.get("/break")
    async def break_off() -> StreamingResponse:
        async def pieces() -> AsyncGenerator[bytes]:
            yield b"first"
            raise RuntimeError("in the middle")

        return StreamingResponse(pieces())

    return app


@pytest.fixture
async def world() -> World:
    return World()


async def test_health_is_open_and_ready_tells_reasons(tmp_path: Path, world: World) -> None:
    app = make_app(tmp_path, world, auth={"token": "tok"})
    async with client_of(app) as client:
        health = await client.get("/health")
        assert health.status_code == 200
        assert health.json()["service"] == "storaged"
        assert (await client.get("/ready")).status_code == 401
        bearer = {"authorization": "Bearer tok"}
        assert (await client.get("/ready", headers=bearer)).json()["status"] == "ready"
        app.state.checks["disk"] = "full"
        refused = await client.get("/ready", headers=bearer)
        assert refused.status_code == 503
        assert "disk: full" in refused.json()["error"]["message"]


async def test_token_is_required_everywhere_else(tmp_path: Path, world: World) -> None:
    async with client_of(make_app(tmp_path, world, auth={"token": "tok"})) as client:
        for path in ("/items/a", "/metrics", "/openapi.json", "/absent"):
            answer = await client.get(path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        assert (await client.get("/items/a", headers={"x-api-key": "tok"})).status_code == 200


async def test_errors_have_the_envelope_and_hide_the_servers_inside(
    tmp_path: Path, world: World
) -> None:
    async with client_of(make_app(tmp_path, world)) as client:
        answers = {
            "not_found": await client.get("/absent"),
            "method_not_allowed": await client.put("/number"),
            "invalid": await client.post("/number", json={"value": "x"}),
            "conflict": await client.get("/conflict"),
            "internal": await client.get("/crash"),
        }
        for code, answer in answers.items():
            error = answer.json()["error"]
            assert set(error) == {"code", "message", "details", "service", "request_id"}
            assert error["code"] == code
            assert error["service"] == "storaged"
            assert error["request_id"] == answer.headers["x-request-id"]
        assert answers["conflict"].headers["retry-after"] == "7"
        assert answers["method_not_allowed"].headers["allow"] == "POST"
        assert answers["invalid"].json()["error"]["details"]["problems"][0]["where"] == "body.value"
        assert "secret" not in answers["internal"].text


async def test_request_id_is_taken_or_made(tmp_path: Path, world: World) -> None:
    async with client_of(make_app(tmp_path, world)) as client:
        kept = await client.get("/items/a", headers={"x-request-id": "mine-1"})
        assert kept.headers["x-request-id"] == kept.json()["id"] == "mine-1"
        made = await client.get("/items/a", headers={"x-request-id": "not safe"})
        assert made.headers["x-request-id"] != "not safe"


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("127.0.0.1:99", 200), ("[::1]:3", 200), ("evil.example", 421)],
)
async def test_host_allow_list(tmp_path: Path, world: World, host: str, status: int) -> None:
    async with client_of(make_app(tmp_path, world)) as client:
        assert (await client.get("/health", headers={"host": host})).status_code == status


async def test_header_cap_and_single_host(tmp_path: Path, world: World) -> None:
    async with client_of(make_app(tmp_path, world)) as client:
        large = await client.get("/health", headers={"x-large": "a" * 40_000})
        assert large.status_code == 431
        twice = httpx.Request(
            "GET", "http://localhost/health", headers=[("host", "localhost"), ("host", "localhost")]
        )
        assert (await client.send(twice)).status_code == 400


async def test_body_cap_by_declaration_and_by_count(tmp_path: Path, world: World) -> None:
    async def pieces() -> AsyncGenerator[bytes]:
        for _ in range(10):
            yield b"x" * 20

    app = make_app(tmp_path, world, storaged={"max_body_bytes": 100})
    async with client_of(app) as client:
        declared = await client.post("/eat", content=b"x" * 101)
        counted = await client.post("/eat", content=pieces())
        for refused in (declared, counted):
            assert refused.status_code == 413
            assert refused.json()["error"]["details"] == {"limit_bytes": 100}
            assert refused.headers["connection"] == "close"
        assert (await client.post("/eat", content=b"x" * 100)).json() == {"bytes": 100}


async def test_deadline_is_told_to_the_handler_and_kept(tmp_path: Path, world: World) -> None:
    async with client_of(make_app(tmp_path, world)) as client:
        answer = await client.get("/items/a", headers={"x-deadline-ms": "5000"})
        assert 4 < answer.json()["left_s"] <= 5
        late = await client.get("/wait", headers={"x-deadline-ms": "30"})
        assert late.status_code == 504
        assert world.cancelled.is_set()


async def test_places_queue_and_429(tmp_path: Path, world: World) -> None:
    app = make_app(tmp_path, world, storaged={"max_concurrency": 1, "max_queue": 1})
    async with client_of(app) as client:
        first = asyncio.create_task(client.get("/wait"))
        await world.entered.wait()
        second = asyncio.create_task(client.get("/items/queued"))
        while not _waiting(app):
            await asyncio.sleep(0)
        third = await client.get("/items/refused")
        assert third.status_code == 429
        assert third.headers["retry-after"] == "1"
        assert (await client.get("/health")).status_code == 200
        world.release.set()
        assert (await first).json() == "done"
        assert (await second).json()["name"] == "queued"


def _waiting(app: FastAPI) -> int:
    from shared.edge import Edge

    layer: Any = app.middleware_stack
    while not isinstance(layer, Edge):
        layer = layer.app
    return len(layer.slots._waiting)


async def test_a_client_that_leaves_cancels_its_handler(tmp_path: Path, world: World) -> None:
    app = make_app(tmp_path, world)
    left = asyncio.Event()
    sent: list[Any] = []
    first = True

    async def receive() -> dict[str, Any]:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": b"", "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/wait",
        "raw_path": b"/wait",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "scheme": "http",
        "http_version": "1.1",
    }
    serving = asyncio.create_task(app(scope, receive, send))
    await world.entered.wait()
    left.set()
    await asyncio.wait_for(serving, 2)
    assert world.cancelled.is_set()
    assert sent == []
    async with client_of(app) as client:
        figures = (await client.get("/metrics")).text
    assert 'lakehouse_requests_total{method="GET",route="/wait",status="499"} 1.0' in figures


async def test_a_response_that_fails_midway_is_never_ended_cleanly(
    tmp_path: Path, world: World
) -> None:
    messages: list[Any] = []
    requests = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not requests:
            await asyncio.Event().wait()
        return requests.pop()

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/break",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "client": None,
    }
    await make_app(tmp_path, world)(scope, receive, send)
    assert messages[1]["body"] == b"first"
    assert all(m.get("more_body", True) for m in messages[1:])


async def test_metrics_count_by_route_template(tmp_path: Path, world: World) -> None:
    async with client_of(make_app(tmp_path, world)) as client:
        for name in "abc":
            await client.get(f"/items/{name}")
        figures = (await client.get("/metrics")).text
    assert (
        'lakehouse_requests_total{method="GET",route="/items/{name}",status="200"} 3.0' in figures
    )
    assert 'lakehouse_request_seconds_count{route="/items/{name}"} 3.0' in figures


async def test_document_tells_the_envelope_and_no_framework_errors(
    tmp_path: Path, world: World
) -> None:
    async with client_of(make_app(tmp_path, world)) as client:
        document = (await client.get("/openapi.json")).json()
    responses = document["paths"]["/number"]["post"]["responses"]
    assert set(responses) == {"200", "4XX", "5XX"}
    assert "HTTPValidationError" not in document["components"]["schemas"]
