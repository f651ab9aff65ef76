"""Real sockets in one process: an app behind the daemons' own server, and scripted peers.

In-process transports hide what a proxy is about: framing, connections, leaving. Here an app
is served by `shared.http1` on a free port of the running loop, and the daemons behind it are
scripts that read and write bytes.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from socket import SO_LINGER, SOL_SOCKET

import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from shared.edge import App
from shared.http1 import make_protocol

# Above what any test opens at once; a connection over it is dropped without a word.
BACKLOG = 1024


@asynccontextmanager
async def serving(app: FastAPI | App, max_head_bytes: int = 32 * 1024) -> AsyncGenerator[int]:
    """Runs the app's lifespan, if it has one, and serves it; gives the port."""
    config = uvicorn.Config(
        app,
        http=make_protocol("gateway", max_head_bytes),
        log_config=None,
        proxy_headers=False,
    )
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"Thu, 01 Jan 2026 00:00:00 GMT")]
    loop = asyncio.get_running_loop()

    def make() -> asyncio.Protocol:
        protocol = config.http_protocol_class
        return protocol(config=config, server_state=state, app_state={})  # type: ignore[call-arg]

    lifespan = app.router.lifespan_context(app) if isinstance(app, FastAPI) else nullcontext()
    async with lifespan:
        server = await loop.create_server(make, "127.0.0.1", 0, backlog=BACKLOG)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for connection in list(state.connections):
                connection.transport.abort()
            for task in list(state.tasks):
                task.cancel()
            await until(lambda: not state.tasks and not state.connections)


async def until(condition: Callable[[], bool], limit_s: float = 5.0) -> float:
    """Waits for a condition; gives the seconds it took, and fails after `limit_s`."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < limit_s, "the condition did not come true"
        await asyncio.sleep(0.002)
    return time.monotonic() - begun


@dataclass
class Peer:
    """One connection to a scripted daemon."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def read_head(self) -> bytes:
        """The next request head with its blank line; raises when the peer leaves."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def read_request(self) -> bytes:
        """The next request: its head, and the body as its Content-Length says."""
        head = await self.read_head()
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                return head + await self.reader.readexactly(int(line.split(b":")[1]))
        return head

    async def write(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def wait_closed(self) -> None:
        """Waits until the other side has closed or reset the connection."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass
        self.closed.set()


Script = Callable[["Daemon", Peer], Awaitable[None]]


class Daemon:
    """A daemon that does what its script says on every connection.

    Attributes:
        requests: what `answer` has read, in order.
        peers: every connection so far.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self.peers: list[Peer] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        try:
            await self.script(self, peer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            peer.closed.set()
            writer.close()


@asynccontextmanager
async def scripted(script: Script) -> AsyncGenerator[Daemon]:
    """Runs a scripted daemon on a free port."""
    daemon = Daemon(script)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(daemon.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=BACKLOG)
    daemon.port = server.sockets[0].getsockname()[1]
    try:
        yield daemon
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await until(lambda: not tasks)


async def answer(daemon: Daemon, peer: Peer) -> None:
    """The simplest script: answers every request on every connection with `ok`."""
    while True:
        daemon.requests.append(await peer.read_request())
        await peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


def replying(*pieces: bytes, close: bool = False) -> Script:
    """A script that answers every request with the same bytes, and closes then if asked to."""

    async def script(daemon: Daemon, peer: Peer) -> None:
        while True:
            daemon.requests.append(await peer.read_request())
            for piece in pieces:
                await peer.write(piece)
            if close:
                return

    return script


@dataclass
class Reply:
    """An answer as a strict client read it.

    `complete` is False when the connection ended before the answer did.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    complete: bool

    def all(self, name: bytes) -> list[bytes]:
        """All values of one header."""
        return [value for key, value in self.headers if key == name]


class Client:
    """A client that sends bytes as they are and reads answers strictly."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Sends bytes; a server that has closed already is no error here."""
        with suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def read(self, head_only: bool = False) -> Reply | None:
        """The next final answer, or None when the connection ends before one begins."""
        while True:
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
            first, *lines = head[:-4].split(b"\r\n")
            status = int(first.split(b" ")[1])
            if status >= 200:
                break
        headers = [
            (name.lower(), value.strip()) for name, _, value in (x.partition(b":") for x in lines)
        ]
        reply = Reply(status, headers, b"", False)
        try:
            await self._read_body(reply, head_only)
        except asyncio.IncompleteReadError as error:
            reply.body += error.partial
        except ConnectionError:
            pass
        return reply

    async def _read_body(self, reply: Reply, head_only: bool) -> None:
        lengths = reply.all(b"content-length")
        if head_only or reply.status in (204, 304):
            pass
        elif reply.all(b"transfer-encoding") == [b"chunked"]:
            while size := int((await self.reader.readuntil(b"\r\n")).strip(), 16):
                reply.body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readuntil(b"\r\n")
        elif lengths:
            reply.body += await self.reader.readexactly(int(lengths[0]))
        else:
            reply.body += await self.reader.read()
        reply.complete = True

    async def wait_closed(self, limit_s: float = 5.0) -> bytes:
        """What still comes until the server closes."""
        rest = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(limit_s):
                rest = await self.reader.read()
        return rest

    def abort(self) -> None:
        """Leaves at once, by reset: a plain close would first send what waits to be sent."""
        socket = self.writer.get_extra_info("socket")
        socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@asynccontextmanager
async def connected(port: int) -> AsyncGenerator[Client]:
    """A connection to a server on this machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


def request(
    target: str = "/v1/storage/x",
    method: str = "GET",
    *headers: str,
    body: bytes = b"",
    host: str = "localhost",
) -> bytes:
    """A request as bytes; a body gets its Content-Length."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
