"""The base of all clients: what it passes on, and what it makes of a peer's trouble."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request

from shared import context
from shared.clients.base import ServiceClient
from shared.errors import Conflict, InsufficientStorage, Timeout, Unavailable, Upstream
from shared.runtime import create_base
from tests.support.apps import make_config, running

pytestmark = pytest.mark.anyio

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def client_of_socket(tmp_path: Path, serve: Serve) -> AsyncGenerator[ServiceClient]:
    """A client of a raw server that answers as `serve` likes."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = ServiceClient(make_config(tmp_path, storaged={"port": port}), "storaged")
    async with server:
        try:
            yield client
        finally:
            await client.aclose()


async def read_request(reader: asyncio.StreamReader) -> None:
    await reader.readuntil(b"\r\n\r\n")


@pytest.fixture
def peer(tmp_path: Path) -> FastAPI:
    app = create_base("storaged", make_config(tmp_path))

    @app.get("/echo")
    async def echo(request: Request) -> dict[str, str]:
        return dict(request.headers)

    @app.get("/conflict")
    async def conflict() -> None:
        raise Conflict("Another one is there.", details={"name": "x"})

    @app.get("/full")
    async def full() -> None:
        raise InsufficientStorage("The disk is full.")

    @app.get("/crash")
    async def crash() -> None:
        raise RuntimeError("inside")

    return app


async def test_passes_on_request_id_deadline_and_token(tmp_path: Path, peer: FastAPI) -> None:
    config = make_config(tmp_path, auth={"token": "tok"})
    async with running(peer) as transport:
        client = ServiceClient(config, "storaged", {"storaged": transport})
        id_token = context.request_id.set("abc")
        deadline_token = context.deadline.set(time.monotonic() + 9)
        seen = (await client.request("GET", "/echo")).json()
        context.request_id.reset(id_token)
        context.deadline.reset(deadline_token)
        await client.aclose()
    assert seen["x-request-id"] == "abc"
    assert seen["authorization"] == "Bearer tok"
    assert 8000 < int(seen["x-deadline-ms"]) <= 9000


async def test_refusals_keep_their_class_and_crashes_become_upstream(
    tmp_path: Path, peer: FastAPI
) -> None:
    async with running(peer) as transport:
        client = ServiceClient(make_config(tmp_path), "storaged", {"storaged": transport})
        with pytest.raises(Conflict, match="Another one") as conflict:
            await client.request("GET", "/conflict")
        assert conflict.value.details == {"name": "x"}
        with pytest.raises(InsufficientStorage, match="disk is full"):
            await client.request("GET", "/full")
        with pytest.raises(Upstream):
            await client.request("GET", "/crash")
        assert await client.check() == "ok"
        await client.aclose()


async def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    client = ServiceClient(make_config(tmp_path), "storaged")
    with pytest.raises(Unavailable, match="cannot be reached"):
        await client.request("GET", "/echo")
    assert "cannot be reached" in await client.check()
    await client.aclose()


async def test_a_check_ends_before_whoever_asked_for_it_gives_up(tmp_path: Path) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with client_of_socket(tmp_path, hang) as client:
        limit_s = make_config(tmp_path).gateway.ready_timeout_s
        async with asyncio.timeout(limit_s):
            assert "storaged did not answer" in await client.check()


async def test_silence_is_a_timeout(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with client_of_socket(tmp_path, silent) as client:
        with pytest.raises(Timeout, match="did not answer in time"):
            await client.request("GET", "/echo", timeout_s=0.1)


async def test_no_call_is_made_past_the_deadline(tmp_path: Path) -> None:
    client = ServiceClient(make_config(tmp_path), "storaged")
    token = context.deadline.set(time.monotonic() - 1)
    with pytest.raises(Timeout, match="time is over"):
        await client.request("GET", "/echo")
    context.deadline.reset(token)
    await client.aclose()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        b"not http at all\r\n\r\n",
    ],
    ids=["closed", "short body", "cut chunk", "nonsense"],
)
async def test_a_broken_answer_is_upstream_and_never_a_short_one(
    tmp_path: Path, answer: bytes
) -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with client_of_socket(tmp_path, broken) as client:
        with pytest.raises(Upstream):
            await client.request("GET", "/echo")


async def test_an_error_without_an_envelope_is_still_told(tmp_path: Path) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops")
        await writer.drain()
        writer.close()

    async with client_of_socket(tmp_path, plain) as client:
        with pytest.raises(Upstream, match="storaged answered 500"):
            await client.request("GET", "/echo")


async def test_streams_give_pieces(tmp_path: Path, peer: FastAPI) -> None:
    async with running(peer) as transport:
        client = ServiceClient(make_config(tmp_path), "storaged", {"storaged": transport})
        async with client.stream("GET", "/echo") as response:
            assert isinstance(response, httpx.Response)
            pieces = [piece async for piece in response.aiter_raw()]
        assert b"".join(pieces).startswith(b"{")
        await client.aclose()
