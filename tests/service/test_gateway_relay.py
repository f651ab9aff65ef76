"""The relay over real sockets: what arrives at a daemon, and what comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.gateway.app import create_app
from shared.daemons import BUILT
from tests.support.apps import make_config
from tests.support.sockets import (
    Client,
    Daemon,
    Peer,
    Script,
    answer,
    connected,
    replying,
    request,
    scripted,
    serving,
    until,
)

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The loop that the daemons run on: its transports are not asyncio's."""
    return ("asyncio", {"use_uvloop": True})


@asynccontextmanager
async def gateway(
    tmp_path: Path, script: Script, **sections: dict[str, Any]
) -> AsyncGenerator[tuple[int, Daemon]]:
    """A gateway whose storaged is a script; gives the gateway's port and the daemon."""
    async with scripted(script) as daemon:
        storaged = {"port": daemon.port, **sections.pop("storaged", {})}
        config = make_config(tmp_path, storaged=storaged, **sections)
        async with serving(create_app(config)) as port:
            yield port, daemon


async def fetch(port: int, data: bytes) -> Any:
    async with connected(port) as client:
        await client.send(data)
        return await client.read()


def error_of(reply: Any) -> dict[str, Any]:
    return json.loads(reply.body)["error"]


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("/v1/storage/objects/a%2Fb", "/storage/objects/a%2Fb"),
        ("/v1/storage/%2e%2E/x", "/storage/%2e%2E/x"),
        ("/v1/storage/../sql/./x", "/storage/../sql/./x"),
        ("/v1/storage//a///b/", "/storage//a///b/"),
        ("/v1/storage", "/storage"),
        ("/v1/storage?", "/storage?"),
        ("/v1/storage?a=%20+&a=&&b?c=/d", "/storage?a=%20+&a=&&b?c=/d"),
        ("/v1/storage/%00%ff%", "/storage/%00%ff%"),
        ("/v1/storage/a;b=c,d:e@f!$&'()*+=~", "/storage/a;b=c,d:e@f!$&'()*+=~"),
    ],
)
async def test_the_target_arrives_byte_for_byte(tmp_path: Path, target: str, seen: str) -> None:
    async with gateway(tmp_path, answer) as (port, daemon):
        assert (await fetch(port, request(target))).body == b"ok"
    assert daemon.requests[0].split(b"\r\n")[0] == f"GET {seen} HTTP/1.1".encode()


async def test_request_headers_are_this_hops_own(tmp_path: Path) -> None:
    sent = request(
        "/v1/storage/x",
        "GET",
        "Connection: keep-alive, X-Hop",
        "X-Hop: 1",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "Trailer: X-T",
        "Upgrade: h2c",
        "Proxy-Authorization: Basic abc",
        "Proxy-Connection: close",
        "Authorization: Bearer the-clients-own",
        "X-Api-Key: the-clients-own",
        "X-Forwarded-For: 10.0.0.9",
        "X-Request-Id: req-7",
        "X-Deadline-Ms: 5000",
        "Cookie: a=1",
        "Cookie: b=2",
    )
    async with gateway(tmp_path, answer) as (port, daemon):
        reply = await fetch(port, sent)
        lines = daemon.requests[0].decode().split("\r\n")[1:-2]
        assert f"host: 127.0.0.1:{daemon.port}" in lines
    assert reply.all(b"x-request-id") == [b"req-7"]
    headers = [tuple(line.split(": ", 1)) for line in lines]
    by_name = dict(headers)
    assert [value for name, value in headers if name == "cookie"] == ["a=1", "b=2"]
    assert by_name["x-request-id"] == "req-7"
    assert by_name["x-forwarded-for"] == "10.0.0.9, 127.0.0.1"
    assert 4000 < int(by_name["x-deadline-ms"]) <= 5000
    names = ["cookie", "host", "x-deadline-ms", "x-forwarded-for", "x-request-id"]
    assert sorted(by_name) == names


async def test_the_fleets_token_takes_the_place_of_the_clients(tmp_path: Path) -> None:
    async with gateway(tmp_path, answer, auth={"token": "tok"}) as (port, daemon):
        assert (await fetch(port, request())).status == 401
        wrong = request("/v1/storage/x", "GET", "Authorization: Bearer no")
        assert (await fetch(port, wrong)).status == 401
        assert daemon.requests == []
        for header in ("Authorization: bearer tok", "X-Api-Key: tok"):
            assert (await fetch(port, request("/v1/storage/x", "GET", header))).status == 200
    for seen in daemon.requests:
        assert seen.lower().count(b"authorization: bearer tok\r\n") == 1
        assert b"x-api-key" not in seen.lower()


async def test_response_headers_lose_only_the_hops_own(tmp_path: Path) -> None:
    script = replying(
        b"HTTP/1.1 207 Whatever\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nDate: yesterday\r\n"
        b"Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n"
        b'Trailer: X-T\r\nUpgrade: h2c\r\nX-Request-Id: theirs\r\nETag: "e"\r\n'
        b"Content-Length: 2\r\n\r\nok"
    )
    async with gateway(tmp_path, script) as (port, _):
        reply = await fetch(port, request("/v1/storage/x", "GET", "X-Request-Id: mine"))
    assert (reply.status, reply.body) == (207, b"ok")
    assert sorted(reply.headers) == [
        (b"content-length", b"2"),
        (b"date", b"yesterday"),
        (b"etag", b'"e"'),
        (b"set-cookie", b"a"),
        (b"set-cookie", b"b"),
        (b"x-request-id", b"mine"),
    ]


@pytest.mark.parametrize(
    ("raw", "status", "body"),
    [
        (OK, 200, b"ok"),
        (b"HTTP/1.1 204 No Content\r\nx: y\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\netag: e\r\n\r\n", 304, b""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, b""),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, b"ok"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
            b"1;ext=1\r\no\r\n1\r\nk\r\n0\r\nx-trailer: 1\r\n\r\n",
            200,
            b"ok",
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + OK, 200, b"ok"),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nno", 500, b"no"),
    ],
)
async def test_every_framing_of_an_answer_keeps_its_connection(
    tmp_path: Path, raw: bytes, status: int, body: bytes
) -> None:
    async with gateway(tmp_path, replying(raw)) as (port, daemon):
        for _ in range(3):
            reply = await fetch(port, request())
            assert (reply.status, reply.body, reply.complete) == (status, body, True)
            assert reply.all(b"x-trailer") == []
        assert len(daemon.peers) == 1


async def test_head_has_the_length_and_no_body_and_keeps_its_connection(tmp_path: Path) -> None:
    script = replying(b"HTTP/1.1 200 OK\r\ncontent-length: 9000\r\n\r\n")
    async with gateway(tmp_path, script) as (port, daemon):
        async with connected(port) as client:
            for _ in range(3):
                await client.send(request("/v1/storage/x", "HEAD"))
                reply = await client.read(head_only=True)
                assert reply is not None
                assert reply.all(b"content-length") == [b"9000"]
        assert len(daemon.peers) == 1


async def test_answers_that_end_with_their_connection_are_whole(tmp_path: Path) -> None:
    script = replying(b"HTTP/1.1 200 OK\r\n\r\n", b"all of it", close=True)
    async with gateway(tmp_path, script) as (port, daemon):
        for _ in range(2):
            reply = await fetch(port, request())
            assert (reply.body, reply.complete) == (b"all of it", True)
        assert len(daemon.peers) == 2


async def test_connection_close_is_obeyed(tmp_path: Path) -> None:
    script = replying(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")
    async with gateway(tmp_path, script) as (port, daemon):
        for _ in range(2):
            assert (await fetch(port, request())).body == b"ok"
        assert len(daemon.peers) == 2


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "HTTP/1.1"),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nok", "HTTP/1.1"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1",
        ),
        (b"HTTP/1.1 200 OK\r\nbad\x00name: 1\r\n\r\n", "HTTP/1.1"),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 200_000, "does not end"),
        (b"", "without an answer"),
        (b"HTTP/1.1 200", "broke its answer off"),
    ],
)
async def test_a_broken_answer_is_502(tmp_path: Path, raw: bytes, why: str) -> None:
    async with gateway(tmp_path, replying(raw, close=True)) as (port, _):
        reply = await fetch(port, request("/v1/storage/x", "POST", body=b"x"))
    assert reply.status == 502
    error = error_of(reply)
    assert error["code"] == "upstream"
    assert error["details"] == {"daemon": "storaged"}
    assert error["message"].startswith("storaged ")
    assert why in error["message"]


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    ],
)
async def test_a_cut_answer_never_looks_whole(tmp_path: Path, raw: bytes) -> None:
    async with gateway(tmp_path, replying(raw, close=True)) as (port, _):
        reply = await fetch(port, request())
        assert (reply.body, reply.complete) == (b"half", False)


async def test_a_cut_answer_to_an_old_client_is_a_reset(tmp_path: Path) -> None:
    script = replying(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", close=True
    )
    async with gateway(tmp_path, script) as (port, _), connected(port) as client:
        await client.send(b"GET /v1/storage/x HTTP/1.0\r\nHost: localhost\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await client.reader.read()


async def test_old_clients_get_no_chunks(tmp_path: Path) -> None:
    script = replying(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    async with gateway(tmp_path, script) as (port, _), connected(port) as client:
        await client.send(b"GET /v1/storage/x HTTP/1.0\r\nHost: localhost\r\n\r\n")
        head, _, body = (await client.reader.read()).partition(b"\r\n\r\n")
        assert body == b"ok"
        assert b"transfer-encoding" not in head


async def test_rubbish_behind_an_answer_never_reaches_the_next_one(tmp_path: Path) -> None:
    poisoned = OK + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"
    async with gateway(tmp_path, replying(poisoned)) as (port, daemon):
        for _ in range(3):
            assert (await fetch(port, request())).body == b"ok"
        assert len(daemon.peers) == 3


async def test_a_late_second_answer_never_reaches_the_next_request(tmp_path: Path) -> None:
    async def script(daemon: Daemon, peer: Peer) -> None:
        await answer_once(daemon, peer)
        await peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison")
        await peer.wait_closed()

    async with gateway(tmp_path, script) as (port, daemon):
        assert (await fetch(port, request())).body == b"ok"
        await until(daemon.peers[0].closed.is_set)
        assert (await fetch(port, request())).body == b"ok"


async def answer_once(daemon: Daemon, peer: Peer) -> None:
    daemon.requests.append(await peer.read_request())
    await peer.write(OK)


# Connections that a daemon closes.


async def close_on_second(daemon: Daemon, peer: Peer) -> None:
    """Answers one request a connection; the second one it reads and hangs up on."""
    await answer_once(daemon, peer)
    daemon.requests.append(await peer.read_request())


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [
        ("GET", b"", 200),
        ("HEAD", b"", 200),
        ("DELETE", b"", 200),
        ("PUT", b"whole", 200),
        ("POST", b"whole", 502),
        ("PATCH", b"whole", 502),
        ("POST", b"", 502),
    ],
)
async def test_only_what_may_be_repeated_is_and_once(
    tmp_path: Path, method: str, body: bytes, status: int
) -> None:
    async with gateway(tmp_path, close_on_second) as (port, daemon):
        async with connected(port) as client:
            await client.send(request())
            assert await client.read() is not None
            await client.send(request("/v1/storage/x", method, body=body))
            reply = await client.read(head_only=method == "HEAD")
            assert reply is not None
            assert reply.status == status
        assert len(daemon.requests) == (3 if status == 200 else 2)
        assert len(daemon.peers) == (2 if status == 200 else 1)


async def test_a_fresh_connection_is_never_retried(tmp_path: Path) -> None:
    async with gateway(tmp_path, replying(b"", close=True)) as (port, daemon):
        assert (await fetch(port, request())).status == 502
        assert len(daemon.peers) == 1


async def test_a_streamed_body_is_never_repeated(tmp_path: Path) -> None:
    async def script(daemon: Daemon, peer: Peer) -> None:
        await answer_once(daemon, peer)
        daemon.requests.append(await peer.read_head())
        await peer.reader.readexactly(10)

    async with gateway(tmp_path, script) as (port, daemon), connected(port) as client:
        await client.send(request())
        assert await client.read() is not None
        await client.send(request("/v1/storage/x", "PUT", "Content-Length: 10") + b"12345")
        await until(lambda: len(daemon.requests) == 2)
        await client.send(b"67890")
        reply = await client.read()
        assert reply is not None
        assert reply.status == 502
        assert len(daemon.peers) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_connection_closed_while_idle_costs_nobody_anything(
    tmp_path: Path, method: str
) -> None:
    async def script(daemon: Daemon, peer: Peer) -> None:
        await answer_once(daemon, peer)

    async with gateway(tmp_path, script) as (port, daemon):
        for number in range(4):
            assert (await fetch(port, request("/v1/storage/x", method))).status == 200
            await until(daemon.peers[number].closed.is_set)
        assert len(daemon.peers) == 4


# What cannot be reached.


async def test_a_daemon_that_is_down_is_503_and_one_that_hangs_504(tmp_path: Path) -> None:
    async def hang(daemon: Daemon, peer: Peer) -> None:
        await peer.wait_closed()

    limits = {"answer_margin_s": 0.0}
    async with gateway(tmp_path, hang, storaged={"request_timeout_s": 0.5}, gateway=limits) as (
        port,
        daemon,
    ):
        down = await fetch(port, request("/v1/sql"))
        assert down.status == 503
        assert error_of(down)["details"] == {"daemon": "queryd"}
        assert "scripts/fleet.py up" in error_of(down)["message"]
        assert down.all(b"retry-after") == [b"1"]
        silent = await fetch(port, request())
        assert silent.status == 504
        assert "storaged did not answer" in error_of(silent)["message"]
        await until(daemon.peers[0].closed.is_set)


async def test_a_daemon_that_falls_silent_in_its_answer_is_broken_off(tmp_path: Path) -> None:
    async def script(daemon: Daemon, peer: Peer) -> None:
        await peer.read_head()
        await peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        await peer.wait_closed()

    async with gateway(tmp_path, script, gateway={"silence_timeout_s": 0.5}) as (port, daemon):
        reply = await fetch(port, request())
        assert (reply.body, reply.complete) == (b"half", False)
        await until(daemon.peers[0].closed.is_set)


async def test_the_clients_deadline_ends_the_wait(tmp_path: Path) -> None:
    async def script(daemon: Daemon, peer: Peer) -> None:
        await peer.read_head()
        await peer.wait_closed()

    async with gateway(tmp_path, script) as (port, daemon):
        reply = await fetch(port, request("/v1/storage/x", "GET", "X-Deadline-Ms: 100"))
        assert reply.status == 504
        await until(daemon.peers[0].closed.is_set)


async def test_absent_daemons_and_prefixes_answer_in_each_callers_shape(tmp_path: Path) -> None:
    here = {"daemons": [name for name in BUILT if name != "mcpd"]}
    async with gateway(tmp_path, answer, fleet=here) as (port, _):
        absent = await fetch(port, request("/v1/mcp/tools"))
        assert absent.status == 503
        assert error_of(absent)["details"] == {"daemon": "mcpd"}
        assert "not part of this fleet" in error_of(absent)["message"]
        assert absent.all(b"x-should-retry") == [b"false"]
        unknown = await fetch(port, request("/v1/absent"))
        assert unknown.status == 404
        assert "/v1/storage" in error_of(unknown)["details"]["prefixes"]
        openai = await fetch(port, request("/v1/chat/completions", "POST", body=b"{}"))
        assert set(error_of(openai)) == {"message", "type", "param", "code"}
        assert (openai.status, openai.all(b"retry-after")) == (503, [b"1"])
        anthropic = json.loads((await fetch(port, request("/v1/messages"))).body)
        assert (anthropic["type"], set(anthropic["error"])) == ("error", {"type", "message"})
        iceberg = await fetch(port, request("/v1/iceberg/v1/config"))
        assert error_of(iceberg)["code"] == 503
        refused = await fetch(port, request("/v1/models", host="evil.example"))
        assert (refused.status, set(error_of(refused))) == (421, set(error_of(openai)))


async def test_requests_are_counted_by_route_and_daemons_own_paths_stay_out(
    tmp_path: Path,
) -> None:
    async with gateway(tmp_path, answer) as (port, _):
        for number in range(3):
            await fetch(port, request(f"/v1/storage/{number}"))
        figures = (await fetch(port, request("/metrics"))).body.decode()
    assert 'requests_total{method="GET",route="/v1/storage/*",status="200"} 3.0' in figures


async def use_many(client: Client, count: int) -> None:
    for number in range(count):
        await client.send(request(f"/v1/storage/{number}"))
        reply = await client.read()
        assert reply is not None
        assert reply.body == b"%d" % number


async def test_many_at_once_share_connections_and_mix_nothing_up(tmp_path: Path) -> None:
    async def script(daemon: Daemon, peer: Peer) -> None:
        while True:
            number = (await peer.read_head()).split(b" ")[1].rsplit(b"/", 1)[1]
            await asyncio.sleep(0)
            await peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(number))
            await peer.write(number)

    async with gateway(tmp_path, script) as (port, daemon):

        async def one() -> None:
            async with connected(port) as client:
                await use_many(client, 20)

        await asyncio.gather(*(one() for _ in range(16)))
        assert len(daemon.peers) <= 16
