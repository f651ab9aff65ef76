"""The servers that bench/gateway.py measures, each run as a process of its own.

`python -m bench.gateway_subjects NAME PORT UPSTREAM_PORT` serves until it is terminated.
The `bare-*` proxies are the same few lines of raw ASGI under uvicorn around different HTTP
clients, without edge, log or figures: they show what the client costs. `httpx` is what one
would write first: a FastAPI route around a shared `httpx.AsyncClient`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

HOP = frozenset({b"connection", b"transfer-encoding", b"keep-alive", b"content-length", b"host"})
# One kilobyte, as the figures in SPEC §11 assume.
ANSWER = b'{"pad": "' + b"x" * 1013 + b'"}'


class InstantServer(asyncio.Protocol):
    """Answers each request at once with `ANSWER`, but for a few paths:

    `…/events?n=N&gap_ms=G` sends N numbered server-sent events, `…/forever` one every 20 ms
    until the client leaves, `…/hang` nothing at all. `/left` tells the monotonic time at
    which the last client of the latter two left.
    """

    left_at = 0.0
    response = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        % len(ANSWER)
        + ANSWER
    )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.buffer = b""
        self.streaming: asyncio.Task[None] | None = None
        self.forever = False

    def data_received(self, data: bytes) -> None:
        if not self.buffer and data.startswith(b"GET /instant") and data.endswith(b"\r\n\r\n"):
            self.transport.write(self.response)
            return
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, rest = self.buffer.partition(b"\r\n\r\n")
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            self.answer(head.split(b" ", 2)[1].decode())

    def answer(self, target: str) -> None:
        path, _, query = target.partition("?")
        if path.endswith(("/events", "/forever")):
            options = dict(pair.split("=") for pair in query.split("&") if pair)
            self.forever = path.endswith("/forever")
            self.streaming = asyncio.get_running_loop().create_task(
                self.stream(
                    10**9 if self.forever else int(options["n"]),
                    float(options.get("gap_ms", "20")) / 1000,
                )
            )
        elif path.endswith("/hang"):
            self.forever = True
        elif path.endswith("/left"):
            body = repr(InstantServer.left_at).encode()
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
            )
        else:
            self.transport.write(self.response)

    async def stream(self, count: int, gap_s: float) -> None:
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        for number in range(count):
            event = b"data: %d\n\n" % number
            self.transport.write(b"%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(gap_s)
        self.transport.write(b"0\r\n\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        if self.streaming is not None:
            self.streaming.cancel()
        if self.forever:
            InstantServer.left_at = time.monotonic()


async def serve_instant(port: int) -> None:
    """The upstream when nginx is not there, and for streams in any case."""
    server = await asyncio.get_running_loop().create_server(InstantServer, "127.0.0.1", port)
    await server.serve_forever()


def make_own(upstream: int) -> Any:
    """The gateway's own client and relay, bare."""
    from services.gateway.store.pool import Pool
    from services.gateway.store.relay import send_request

    pool = Pool(
        "upstream", f"http://127.0.0.1:{upstream}", connect_s=5, first_byte_s=60, between_s=60
    )

    async def app(scope: Any, receive: Any, send: Any) -> None:
        lines = [b"%b: %b\r\n" % pair for pair in scope["headers"] if pair[0] not in HOP]
        head = b"%b %b HTTP/1.1\r\nhost: x\r\n%b\r\n" % (
            scope["method"].encode(),
            scope["raw_path"],
            b"".join(lines),
        )
        await send_request(pool, scope["method"], head, send)

    return app


def make_aiohttp(upstream: int) -> Any:
    """aiohttp's client session in the same bare relay."""
    import aiohttp
    from yarl import URL

    session: list[aiohttp.ClientSession] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not session:
            session.append(
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=0),
                    auto_decompress=False,
                    cookie_jar=aiohttp.DummyCookieJar(),
                )
            )
        url = URL(f"http://127.0.0.1:{upstream}{scope['raw_path'].decode()}", encoded=True)
        headers = [(n.decode(), v.decode()) for n, v in scope["headers"] if n not in HOP]
        async with session[0].request(
            scope["method"], url, headers=headers, allow_redirects=False
        ) as answer:
            kept = [(n.lower(), v) for n, v in answer.raw_headers if n.lower() not in HOP]
            if "content-length" in answer.headers:
                kept.append((b"content-length", answer.headers["content-length"].encode()))
            await send({"type": "http.response.start", "status": answer.status, "headers": kept})
            async for piece in answer.content.iter_any():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    return app


def make_pyreqwest(upstream: int) -> Any:
    """pyreqwest in the same bare relay."""
    from pyreqwest.client import Client, ClientBuilder

    clients: list[Client] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not clients:
            clients.append(
                ClientBuilder()
                .follow_redirects(False)
                .gzip(False)
                .brotli(False)
                .zstd(False)
                .deflate(False)
                .build()
            )
        url = f"http://127.0.0.1:{upstream}{scope['raw_path'].decode()}"
        headers = [(n.decode(), v.decode()) for n, v in scope["headers"] if n not in HOP]
        request = clients[0].request(scope["method"], url).headers(headers).build_streamed()
        async with request as answer:
            kept = [
                (n.encode(), v.encode())
                for n, v in answer.headers.items()
                if n == "content-length" or n.encode() not in HOP
            ]
            await send({"type": "http.response.start", "status": answer.status, "headers": kept})
            reader = answer.body_reader
            while (piece := await reader.read_chunk()) is not None:
                await send({"type": "http.response.body", "body": bytes(piece), "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    return app


def make_httpx(upstream: int) -> Any:
    """A plain FastAPI route around a shared httpx client."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{upstream}", timeout=60) as client:
            app.state.client = client
            yield

    app = FastAPI(lifespan=lifespan)

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE", "HEAD"])
    async def proxy(path: str, request: Request) -> StreamingResponse:
        client: httpx.AsyncClient = request.app.state.client
        sent = client.build_request(
            request.method,
            f"/{path}",
            headers=[(n, v) for n, v in request.headers.raw if n not in HOP],
            content=await request.body(),
        )
        answer = await client.send(sent, stream=True)
        return StreamingResponse(
            answer.aiter_raw(),
            status_code=answer.status_code,
            headers={
                n: v
                for n, v in answer.headers.items()
                if n.encode() not in HOP or n == "content-length"
            },
        )

    return app


def make_answer(upstream: int) -> Any:
    """uvicorn answering by itself: what remains when a proxy costs nothing."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"%d" % len(ANSWER))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": ANSWER})

    return app


APPS = {
    "bare-own": make_own,
    "bare-aiohttp": make_aiohttp,
    "bare-pyreqwest": make_pyreqwest,
    "httpx": make_httpx,
    "bare-answer": make_answer,
}


def main(name: str, port: int, upstream: int) -> None:
    """Serves one subject on a loopback port until terminated."""
    if name == "instant":
        import uvloop

        uvloop.run(serve_instant(port))
        return
    uvicorn.run(
        APPS[name](upstream),
        host="127.0.0.1",
        port=port,
        http="httptools",
        loop="uvloop",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        backlog=2048,
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
