"""Bodies and streams through the gateway: both ways, with back-pressure, until someone leaves."""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.gateway.app import create_app
from services.gateway.store import connection as connection_module
from tests.support.apps import make_config
from tests.support.sockets import (
    Client,
    Daemon,
    Peer,
    Script,
    connected,
    request,
    scripted,
    serving,
    until,
)

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
# What is promised between a client's leaving and the daemon's knowing. Seconds.
GONE_S = 0.25
MiB = 1024 * 1024


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The loop that the daemons run on: its transports are not asyncio's."""
    return ("asyncio", {"use_uvloop": True})


@asynccontextmanager
async def gateway(
    tmp_path: Path, script: Script, **sections: dict[str, Any]
) -> AsyncGenerator[tuple[int, Daemon]]:
    async with scripted(script) as daemon:
        config = make_config(tmp_path, storaged={"port": daemon.port}, **sections)
        async with serving(create_app(config)) as port:
            yield port, daemon


async def read_chunked(peer: Peer) -> bytes:
    """A chunked body as the daemon reads it."""
    body = b""
    while size := int(await peer.reader.readuntil(b"\r\n"), 16):
        body += (await peer.reader.readexactly(size + 2))[:-2]
    assert await peer.reader.readexactly(2) == b"\r\n"
    return body


async def test_a_streamed_upload_arrives_as_it_is_sent(tmp_path: Path) -> None:
    pieces: list[bytes] = []

    async def script(daemon: Daemon, peer: Peer) -> None:
        daemon.requests.append(await peer.read_head())
        for _ in range(3):
            pieces.append(await peer.reader.readexactly(4))
        await peer.write(OK)
        await peer.wait_closed()

    async with gateway(tmp_path, script) as (port, daemon), connected(port) as client:
        await client.send(request("/v1/storage/x", "PUT", "Content-Length: 12"))
        for number, piece in enumerate((b"aaaa", b"bbbb", b"cccc")):
            await client.send(piece)
            await until(lambda: len(pieces) == number + 1)  # noqa: B023 # waited for in here
        reply = await client.read()
        assert reply is not None
        assert reply.body == b"ok"
    assert b"content-length: 12\r\n" in daemon.requests[0]
    assert pieces == [b"aaaa", b"bbbb", b"cccc"]


async def test_a_chunked_upload_is_chunked_on(tmp_path: Path) -> None:
    async def script(daemon: Daemon, peer: Peer) -> None:
        daemon.requests.append(await peer.read_head())
        daemon.requests.append(await read_chunked(peer))
        await peer.write(OK)
        await peer.wait_closed()

    async with gateway(tmp_path, script) as (port, daemon), connected(port) as client:
        await client.send(request("/v1/storage/x", "PUT", "Transfer-Encoding: chunked"))
        await until(lambda: len(daemon.requests) == 1)
        await client.send(b"5;ext=x\r\nhello\r\n1\r\n!\r\n")
        await client.send(b"0\r\nX-Trailer: smuggled\r\n\r\n")
        reply = await client.read()
        assert reply is not None
        assert reply.status == 200
    assert b"transfer-encoding: chunked\r\n" in daemon.requests[0]
    assert daemon.requests[1] == b"hello!"


async def test_an_upload_keeps_its_connection_for_the_next_request(tmp_path: Path) -> None:
    async def script(daemon: Daemon, peer: Peer) -> None:
        while True:
            daemon.requests.append(await peer.read_head())
            await peer.reader.readexactly(200_000)
            await peer.write(OK)

    async with gateway(tmp_path, script) as (port, daemon), connected(port) as client:
        for _ in range(3):
            head = request("/v1/storage/x", "PUT", "Content-Length: 200000")
            await client.send(head + b"x" * 200_000)
            reply = await client.read()
            assert reply is not None
            assert reply.status == 200
        assert len(daemon.peers) == 1


async def test_both_directions_at_once(tmp_path: Path) -> None:
    async def echo(daemon: Daemon, peer: Peer) -> None:
        await peer.read_head()
        await peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n")
        for _ in range(3):
            await peer.write(await peer.reader.readexactly(4))
        await peer.wait_closed()

    async with gateway(tmp_path, echo) as (port, _), connected(port) as client:
        await client.send(request("/v1/storage/x", "PUT", "Content-Length: 12"))
        assert b"200" in await client.reader.readuntil(b"\r\n\r\n")
        for piece in (b"aaaa", b"bbbb", b"cccc"):
            await client.send(piece)
            assert await client.reader.readexactly(4) == piece


async def test_continue_is_asked_of_the_daemon(tmp_path: Path) -> None:
    async def script(daemon: Daemon, peer: Peer) -> None:
        daemon.requests.append(await peer.read_head())
        await peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        daemon.requests.append(await peer.reader.readexactly(5))
        await peer.write(OK)
        await peer.wait_closed()

    async with gateway(tmp_path, script) as (port, daemon), connected(port) as client:
        head = request("/v1/storage/x", "PUT", "Expect: 100-continue", "Content-Length: 5")
        await client.send(head)
        assert b"100" in await client.reader.readuntil(b"\r\n\r\n")
        await client.send(b"hello")
        reply = await client.read()
        assert reply is not None
        assert reply.body == b"ok"
    assert b"expect: 100-continue\r\n" in daemon.requests[0]
    assert daemon.requests[1] == b"hello"


async def test_a_refusal_instead_of_continue_spares_the_upload(tmp_path: Path) -> None:
    async def script(daemon: Daemon, peer: Peer) -> None:
        await peer.read_head()
        await peer.write(b"HTTP/1.1 412 No\r\ncontent-length: 2\r\n\r\nno")
        assert await peer.reader.read() == b""

    async with gateway(tmp_path, script) as (port, daemon), connected(port) as client:
        head = request("/v1/storage/x", "PUT", "Expect: 100-continue", "Content-Length: 5")
        await client.send(head)
        first = await client.reader.readuntil(b"\r\n\r\n")
        assert first.startswith(b"HTTP/1.1 412")
        assert b"connection: close\r\n" in first
        await until(daemon.peers[0].closed.is_set)


async def test_a_daemon_that_says_nothing_does_not_hold_the_upload_back(tmp_path: Path) -> None:
    async def script(daemon: Daemon, peer: Peer) -> None:
        await peer.read_head()
        await peer.reader.readexactly(5)
        await peer.write(OK)
        await peer.wait_closed()

    async with gateway(tmp_path, script) as (port, _), connected(port) as client:
        head = request("/v1/storage/x", "PUT", "Expect: 100-continue", "Content-Length: 5")
        await client.send(head)
        assert b"100" in await client.reader.readuntil(b"\r\n\r\n")
        await client.send(b"hello")
        reply = await client.read()
        assert reply is not None
        assert reply.body == b"ok"


@pytest.mark.parametrize("framing", ["Content-Length: 50000000", "Transfer-Encoding: chunked"])
async def test_an_answer_before_the_uploads_end_is_read_by_its_client(
    tmp_path: Path, framing: str
) -> None:
    async def refuse(daemon: Daemon, peer: Peer) -> None:
        await peer.read_head()
        await peer.reader.readexactly(10)
        await peer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await peer.wait_closed()

    async with gateway(tmp_path, refuse) as (port, daemon), connected(port) as client:
        await client.send(request("/v1/storage/x", "PUT", framing))
        piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        reading = asyncio.create_task(client.read())
        while not reading.done():
            await client.send(piece)
        reply = await reading
        assert reply is not None
        assert (reply.status, reply.body) == (413, b"no")
        await until(daemon.peers[0].closed.is_set)


async def test_the_body_cap_counts_what_is_received(tmp_path: Path) -> None:
    seen = 0

    async def script(daemon: Daemon, peer: Peer) -> None:
        nonlocal seen
        await peer.read_head()
        while data := await peer.reader.read(65536):
            seen += len(data)

    limits = {"max_body_bytes": 100_000}
    async with gateway(tmp_path, script, gateway=limits) as (port, daemon):
        async with connected(port) as client:
            await client.send(request("/v1/storage/x", "PUT", "Content-Length: 100001"))
            declared = await client.read()
            assert declared is not None
            assert declared.status == 413
        assert daemon.peers == []
        async with connected(port) as client:
            await client.send(request("/v1/storage/x", "PUT", "Transfer-Encoding: chunked"))
            await until(lambda: len(daemon.peers) == 1)
            for _ in range(12):
                await client.send(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
            counted = await client.read()
            assert counted is not None
            assert counted.status == 413
        await until(daemon.peers[0].closed.is_set)
        assert seen < 110_000


async def test_events_pass_one_by_one(tmp_path: Path) -> None:
    gate = asyncio.Semaphore(0)

    async def script(daemon: Daemon, peer: Peer) -> None:
        await peer.read_head()
        await peer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        for number in range(5):
            await gate.acquire()
            event = b"data: %d\n\n" % number
            await peer.write(b"%x\r\n%b\r\n" % (len(event), event))
        await peer.write(b"0\r\n\r\n")
        await peer.wait_closed()

    async with gateway(tmp_path, script) as (port, _), connected(port) as client:
        await client.send(request())
        # The head comes before the first event, and each event before the next is made.
        assert b"text/event-stream" in await client.reader.readuntil(b"\r\n\r\n")
        for number in range(5):
            gate.release()
            assert b"data: %d\n\n" % number in await client.reader.readuntil(b"\n\n\r\n")
        assert await client.reader.readuntil(b"0\r\n\r\n") == b"0\r\n\r\n"


async def test_128_streams_lose_no_frame(tmp_path: Path) -> None:
    frames = 50

    async def script(daemon: Daemon, peer: Peer) -> None:
        while True:
            await peer.read_head()
            await peer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for number in range(frames):
                event = b"data: %d\n\n" % number
                await peer.write(b"%x\r\n%b\r\n" % (len(event), event))
                await asyncio.sleep(0)
            await peer.write(b"0\r\n\r\n")

    async def one(port: int) -> bytes:
        async with connected(port) as client:
            await client.send(request())
            reply = await client.read()
            assert reply is not None
            assert reply.complete
            return reply.body

    async with gateway(tmp_path, script) as (port, _):
        bodies = await asyncio.gather(*(one(port) for _ in range(128)))
    assert set(bodies) == {b"".join(b"data: %d\n\n" % n for n in range(frames))}


async def test_a_client_that_does_not_read_slows_the_daemon_down(tmp_path: Path) -> None:
    sent = 0

    async def flood(daemon: Daemon, peer: Peer) -> None:
        nonlocal sent
        await peer.read_head()
        await peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (256 * MiB))
        for _ in range(256):
            await peer.write(b"x" * MiB)
            sent += MiB

    async with gateway(tmp_path, flood) as (port, _), connected(port) as client:
        await client.send(request())
        await client.reader.readuntil(b"\r\n\r\n")
        client.writer.transport.pause_reading()
        held = await settle(lambda: sent)
        # Kernel buffers on two sockets, and what one stream may hold in here.
        assert held < 32 * MiB
        client.writer.transport.resume_reading()
        total = 0
        while total < 64 * MiB:
            total += len(await client.reader.read(MiB))
    assert MiB >= connection_module.HIGH_WATER


async def settle(figure: Callable[[], int]) -> int:
    """The value at which a figure stays for a while."""
    last, same = figure(), 0
    while same < 40:
        await asyncio.sleep(0.005)
        same = same + 1 if figure() == last else 0
        last = figure()
    return last


async def test_a_daemon_that_does_not_read_slows_the_client_down(tmp_path: Path) -> None:
    release = asyncio.Event()
    received = 0

    async def script(daemon: Daemon, peer: Peer) -> None:
        nonlocal received
        await peer.read_head()
        await release.wait()
        while received < 64 * MiB:
            received += len(await peer.reader.read(MiB))
        await peer.write(OK)
        await peer.wait_closed()

    async with gateway(tmp_path, script) as (port, _), connected(port) as client:
        await client.send(request("/v1/storage/x", "PUT", f"Content-Length: {64 * MiB}"))
        sent = 0

        async def upload() -> None:
            nonlocal sent
            for _ in range(64):
                await client.send(b"x" * MiB)
                sent += MiB

        uploading = asyncio.create_task(upload())
        assert await settle(lambda: sent) < 32 * MiB
        release.set()
        await uploading
        reply = await client.read()
        assert reply is not None
        assert reply.body == b"ok"
        assert received == 64 * MiB


# A client that leaves, in every window.


async def check_left(client: Client, closed: asyncio.Event) -> None:
    """Leaves, and fails unless the daemon knows it in the promised time."""
    client.abort()
    await until(closed.is_set, GONE_S)


async def wait_for_request(daemon: Daemon, peer: Peer) -> None:
    daemon.requests.append(await peer.read_head())
    await peer.wait_closed()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("lasted_s", [0.0, 0.2])
async def test_leaving_before_the_first_byte_closes_the_daemons_connection(
    tmp_path: Path, method: str, lasted_s: float
) -> None:
    async with gateway(tmp_path, wait_for_request) as (port, daemon), connected(port) as client:
        body = b"whole" if method == "POST" else b""
        await client.send(request("/v1/storage/x", method, body=body))
        await until(lambda: bool(daemon.requests))
        await asyncio.sleep(lasted_s)
        await check_left(client, daemon.peers[0].closed)


async def test_leaving_in_the_middle_of_a_stream_closes_it(tmp_path: Path) -> None:
    async def stream(daemon: Daemon, peer: Peer) -> None:
        await peer.read_head()
        await peer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
        await peer.wait_closed()

    async with gateway(tmp_path, stream) as (port, daemon), connected(port) as client:
        await client.send(request())
        await client.reader.readuntil(b"1\r\nx\r\n")
        await check_left(client, daemon.peers[0].closed)


async def test_leaving_while_the_daemon_floods_closes_it(tmp_path: Path) -> None:
    async def flood(daemon: Daemon, peer: Peer) -> None:
        await peer.read_head()
        await peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (256 * MiB))
        for _ in range(256):
            await peer.write(b"x" * MiB)

    async with gateway(tmp_path, flood) as (port, daemon), connected(port) as client:
        await client.send(request())
        await client.reader.readuntil(b"\r\n\r\n")
        client.writer.transport.pause_reading()
        await check_left(client, daemon.peers[0].closed)


async def test_leaving_in_the_middle_of_an_upload_closes_it(tmp_path: Path) -> None:
    async with gateway(tmp_path, wait_for_request) as (port, daemon), connected(port) as client:
        await client.send(request("/v1/storage/x", "PUT", "Content-Length: 100") + b"half")
        await until(lambda: bool(daemon.requests))
        await check_left(client, daemon.peers[0].closed)


async def test_leaving_while_the_daemon_does_not_read_closes_it(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def script(daemon: Daemon, peer: Peer) -> None:
        await peer.read_head()
        peer.writer.transport.pause_reading()
        daemon.requests.append(b"")
        await release.wait()

    async with gateway(tmp_path, script) as (port, daemon), connected(port) as client:
        await client.send(request("/v1/storage/x", "PUT", f"Content-Length: {64 * MiB}"))
        await until(lambda: bool(daemon.requests))
        sent = 0

        async def upload() -> None:
            nonlocal sent
            while True:
                await client.send(b"x" * MiB)
                sent += MiB

        uploading = asyncio.create_task(upload())
        await settle(lambda: sent)
        uploading.cancel()
        client.abort()
        assert await until(lambda: is_cut(daemon.peers[0]), GONE_S) < GONE_S
        release.set()


def is_cut(peer: Peer) -> bool:
    """Whether the other side has reset this connection, which is not being read."""
    poll = select.poll()
    poll.register(peer.writer.get_extra_info("socket").fileno(), select.POLLHUP)
    return bool(poll.poll(0))


async def test_leaving_before_the_body_has_begun_closes_it(tmp_path: Path) -> None:
    async with gateway(tmp_path, wait_for_request) as (port, daemon), connected(port) as client:
        await client.send(request("/v1/storage/x", "POST", "Content-Length: 100"))
        await until(lambda: bool(daemon.requests))
        await check_left(client, daemon.peers[0].closed)
        figures = await poll_metrics(port, b'status="499"')
        assert b'route="/v1/storage/*",status="499"} 1.0' in figures


async def poll_metrics(port: int, wanted: bytes) -> bytes:
    for _ in range(100):
        async with connected(port) as client:
            await client.send(request("/metrics"))
            reply = await client.read()
            assert reply is not None
            if wanted in reply.body:
                return reply.body
        await asyncio.sleep(0.01)
    raise AssertionError(f"{wanted!r} never showed")


async def test_leaving_while_the_connection_is_being_made(tmp_path: Path, monkeypatch: Any) -> None:
    from services.gateway.store.pool import Pool

    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def never(self: Pool) -> Any:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    monkeypatch.setattr(Pool, "connect", never)
    async with gateway(tmp_path, wait_for_request) as (port, _), connected(port) as client:
        await client.send(request())
        await entered.wait()
        await check_left(client, cancelled)


async def repeat(times: int, make: Callable[[], Awaitable[None]]) -> None:
    for _ in range(times):
        await make()


async def test_many_leavings_leave_nothing_behind(tmp_path: Path) -> None:
    async with gateway(tmp_path, wait_for_request) as (port, daemon):

        async def leave() -> None:
            seen = len(daemon.requests)
            async with connected(port) as client:
                await client.send(request())
                await until(lambda: len(daemon.requests) > seen)

        await repeat(30, leave)
        await until(lambda: all(peer.closed.is_set() for peer in daemon.peers))
        figures = await poll_metrics(port, b'status="499"} 30.0')
        assert b"lakehouse_requests_in_flight 1.0" in figures
