"""The gateway's own routes: the fleet's readiness and its API as one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.gateway.app import create_app, is_proxied
from services.gateway.core.routing import find_route
from services.gateway.store.fleet import Cached
from shared.config import Config
from shared.daemons import BUILT
from shared.runtime import create_base
from tests.support.apps import client_of, make_config, running

pytestmark = pytest.mark.anyio

DAEMONS = [name for name in BUILT if name != "gateway"]
PATHS = {
    "storaged": "/storage/objects",
    "catalogd": "/catalog/datasets",
    "ingestd": "/ingest",
    "queryd": "/sql",
}


class Standin:
    """A daemon of the fleet with the base every daemon has and one route."""

    def __init__(self, name: str, config: Config) -> None:
        self.checks = {"disk": "ok"}
        self.hang = False
        self.down = False

        async def ready() -> dict[str, str]:
            if self.hang:
                await asyncio.sleep(60)
            return self.checks

        self.app = create_base(name, config, ready=ready)
        self.app.get(PATHS.get(name, "/none"))(self.route)

    async def route(self) -> dict[str, str]:
        return {}


class Wire(httpx.AsyncBaseTransport):
    """The way to a stand-in, which can be down."""

    def __init__(self, standin: Standin, transport: httpx.AsyncBaseTransport) -> None:
        self.standin = standin
        self.transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.standin.down:
            raise httpx.ConnectError("refused")
        return await self.transport.handle_async_request(request)


@asynccontextmanager
async def fleet(
    tmp_path: Path, **sections: dict[str, Any]
) -> AsyncGenerator[tuple[httpx.AsyncClient, dict[str, Standin]]]:
    """A gateway whose daemons are stand-ins in this process."""
    config = make_config(tmp_path, **sections)
    standins = {name: Standin(name, config) for name in DAEMONS}
    async with AsyncExitStack() as stack:
        transports = {
            name: Wire(standin, await stack.enter_async_context(running(standin.app)))
            for name, standin in standins.items()
        }
        app = create_app(config, transports=transports)
        yield await stack.enter_async_context(client_of(app)), standins


async def test_ready_tells_of_every_daemon(tmp_path: Path) -> None:
    async with fleet(tmp_path) as (client, standins):
        answer = await client.get("/ready")
        assert answer.status_code == 200
        assert answer.json()["checks"] == dict.fromkeys(DAEMONS, "ok")
        standins["queryd"].checks["workers"] = "none alive"
        refused = await client.get("/ready")
        assert refused.status_code == 503
        checks = refused.json()["error"]["details"]["checks"]
        assert "workers: none alive" in checks["queryd"]
        assert checks["storaged"] == "ok"


async def test_ready_tells_who_is_down(tmp_path: Path) -> None:
    async with fleet(tmp_path) as (client, standins):
        standins["storaged"].down = True
        refused = await client.get("/ready")
    assert refused.status_code == 503
    assert "storaged cannot be reached" in refused.json()["error"]["message"]


async def test_ready_waits_for_nobody_longer_than_its_time(tmp_path: Path) -> None:
    limits = {"ready_timeout_s": 0.3}
    async with fleet(tmp_path, gateway=limits) as (client, standins):
        for name in ("storaged", "queryd"):
            standins[name].hang = True
        begun = time.monotonic()
        refused = await client.get("/ready")
        # Both at once, so once the time and not twice.
        assert 0.25 < time.monotonic() - begun < 0.55
    checks = refused.json()["error"]["details"]["checks"]
    assert checks["storaged"].startswith("storaged did not answer in ")
    assert checks["catalogd"] == "ok"


async def test_the_document_shows_the_whole_fleet(tmp_path: Path) -> None:
    async with fleet(tmp_path, auth={"token": "tok"}) as (client, _):
        assert (await client.get("/openapi.json")).status_code == 401
        answer = await client.get("/openapi.json", headers={"authorization": "Bearer tok"})
    document = answer.json()
    shown = {f"/v1{PATHS[name]}" for name in DAEMONS if name in PATHS}
    assert set(document["paths"]) == shown | {"/health", "/ready", "/metrics"}
    assert document["x-missing"] == {}
    assert document["security"] == [{"fleet_token": []}]
    for path in shown:
        route = find_route(path.encode())
        assert route is not None
        assert document["paths"][path]["get"]["tags"] == [route.daemon]
    # The envelope means the same everywhere, so it is there once.
    assert [n for n in document["components"]["schemas"] if "Envelope" in n] == ["ErrorEnvelope"]


async def test_a_missing_part_is_said_and_fetched_when_it_is_back(tmp_path: Path) -> None:
    limits = {"document_max_age_s": 0.0}
    async with fleet(tmp_path, gateway=limits) as (client, standins):
        standins["queryd"].down = True
        document = (await client.get("/openapi.json")).json()
        assert list(document["x-missing"]) == ["queryd"]
        assert "/v1/sql" not in document["paths"]
        assert "/v1/storage/objects" in document["paths"]
        standins["queryd"].down = False
        document = (await client.get("/openapi.json")).json()
        assert document["x-missing"] == {}
        assert "/v1/sql" in document["paths"]


async def test_docs_come_with_all_they_need(tmp_path: Path) -> None:
    async with fleet(tmp_path) as (client, _):
        page = await client.get("/docs")
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "//" not in page.text.replace("// A schema", "").replace("// Built", "")


async def test_unknown_routes_of_its_own_are_404_in_the_envelope(tmp_path: Path) -> None:
    async with fleet(tmp_path) as (client, _):
        for path in ("/absent", "/v12", "/storage/objects"):
            answer = await client.get(path)
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("path", "proxied"),
    [("/v1", True), ("/v1/", True), ("/v1/x", True), ("/v1x", False), ("/", False), ("/V1", False)],
)
async def test_the_proxy_path_is_v1_and_what_is_beneath(path: str, proxied: bool) -> None:
    assert is_proxied(path) is proxied


async def test_a_cached_value_is_made_once_and_again_when_it_is_old() -> None:
    now, made = 0.0, 0

    async def make() -> tuple[bytes, float]:
        nonlocal made
        made += 1
        await asyncio.sleep(0)
        return b"%d" % made, 10.0

    cached = Cached(make, lambda: now)
    assert set(await asyncio.gather(*(cached.get() for _ in range(5)))) == {b"1"}
    now = 9.9
    assert await cached.get() == b"1"
    now = 10.0
    assert await cached.get() == b"2"


async def test_a_failed_making_is_not_kept() -> None:
    fail = True

    async def make() -> tuple[bytes, float]:
        if fail:
            raise RuntimeError("not now")
        return b"value", 10.0

    cached = Cached(make, lambda: 0.0)
    with pytest.raises(RuntimeError):
        await cached.get()
    fail = False
    assert await cached.get() == b"value"
