"""The instant provider of bench/chat.py, and the client that asks through whatever stands before.

`python -m bench.chat_upstream PORT` serves until it is terminated. Both are plain asyncio
protocols, so that neither is what is measured.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from typing import Any

EVENTS = 50
GAP_S = 0.02
TEXT = "word " * 150  # with its frame about one kilobyte
QUESTION = "Which of these candidates suits the job best? " * 15
# What the proxies are asked with: the peer refuses to start with a well-known one.
KEY = f"sk-{secrets.token_hex(32)}"
HEAD = {"id": "chatcmpl-1", "created": 1, "model": "bench"}
USAGE = {"prompt_tokens": 200, "completion_tokens": 150, "total_tokens": 350}


def make_whole() -> bytes:
    """A completion as a whole HTTP answer."""
    message = {"role": "assistant", "content": TEXT}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    whole = {**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE}
    body = json.dumps(whole).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def make_chunk(number: int, last: bool = False) -> bytes:
    """One event of a stream as an HTTP chunk."""
    delta = {} if last else {"content": f"{number} "}
    choice = {"index": 0, "delta": delta, "finish_reason": "stop" if last else None}
    body = {**HEAD, "object": "chat.completion.chunk", "choices": [choice]}
    event = b"data: %b\n\n" % json.dumps(body).encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


class Provider(asyncio.Protocol):
    """Answers each chat at once; a stream is `EVENTS` events, `GAP_S` apart."""

    whole = make_whole()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, rest = self.buffer.partition(b"\r\n\r\n")
            lower = head.lower()
            length = int(lower.partition(b"content-length:")[2].split(b"\r\n")[0] or b"0")
            if len(rest) < length:
                return
            body, self.buffer = rest[:length], rest[length:]
            if json.loads(body or b"{}").get("stream"):
                self.task = asyncio.get_running_loop().create_task(self.stream())
            else:
                self.transport.write(self.whole)

    async def stream(self) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        self.transport.write(head + b"transfer-encoding: chunked\r\n\r\n")
        for number in range(EVENTS):
            self.transport.write(make_chunk(number))
            await asyncio.sleep(GAP_S)
        usage = json.dumps({**HEAD, "object": "chat.completion.chunk", "choices": [],
                            "usage": USAGE}).encode()  # fmt: skip
        event = b"data: %b\n\ndata: [DONE]\n\n" % usage
        end = make_chunk(EVENTS, last=True) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event)
        self.transport.write(end)


def make_request(port: int, path: str, model: str, stream: bool) -> bytes:
    """A chat as a whole HTTP request."""
    messages = [{"role": "user", "content": QUESTION}]
    body = json.dumps({"model": model, "messages": messages, "stream": stream}).encode()
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def ask_whole(port: int, request: bytes, clients: int, seconds: float) -> list[float]:
    """Milliseconds of every chat that so many clients got answered, sorted."""
    took: list[float] = []

    async def one(until: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (begun := time.perf_counter()) < until:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"port {port}: {head + await reader.read(500)!r}")
            lower = head.lower()
            length = int(lower.partition(b"content-length:")[2].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            took.append((time.perf_counter() - begun) * 1000)
            assert b"word word" in body
        writer.close()

    until = time.perf_counter() + seconds
    await asyncio.gather(*(one(until) for _ in range(clients)))
    return sorted(took)


async def ask_streams(port: int, request: bytes, streams: int) -> tuple[int, float]:
    """Content frames that so many streams at once got, and the seconds they took."""

    async def one() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        body = await reader.readuntil(b"0\r\n\r\n")
        writer.close()
        return sum(body.count(b'"content":%b"%d "' % (gap, n))
                   for n in range(EVENTS) for gap in (b"", b" "))  # fmt: skip

    begun = time.perf_counter()
    counts = await asyncio.gather(*(one() for _ in range(streams)))
    return sum(counts), time.perf_counter() - begun


async def serve(port: int) -> None:
    """Serves the provider."""
    server = await asyncio.get_running_loop().create_server(
        Provider, "127.0.0.1", port, backlog=2048
    )
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(int(sys.argv[1])))
