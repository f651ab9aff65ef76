"""A chat through the gateway: streams arrive whole, and a client that leaves ends the call."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.gateway.app import create_app as create_gateway
from tests.support.apps import make_config
from tests.support.chatd import World, events_of, world
from tests.support.providers import Reply, sse
from tests.support.sockets import connected, request, serving, until

pytestmark = pytest.mark.anyio

# What a cancel is promised in. Seconds.
CANCEL_S = 0.25
STREAMS = 64


@asynccontextmanager
async def edge(tmp_path: Path) -> AsyncGenerator[tuple[World, int]]:
    """chatd over one fake, and the port of a gateway before it."""
    async with world(tmp_path, providers={"a": {"wire": "chat", "concurrency": 128}}) as w:
        config = make_config(tmp_path, chatd={"url": w.url})
        async with serving(create_gateway(config)) as port:
            yield w, port


def ask(stream: bool) -> bytes:
    body = {"model": "a/x", "messages": [{"role": "user", "content": "a"}], "stream": stream}
    return request("/v1/chat/completions", "POST", body=json.dumps(body).encode())


@pytest.mark.parametrize("phase", ["before the head", "in the middle", "whole"])
async def test_a_client_that_leaves_the_gateway_ends_the_providers_call(
    tmp_path: Path, phase: str
) -> None:
    event = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n'
    middle = Reply(200, {"content-type": "text/event-stream"}, [event] * 9999, gap_s=0.01)
    async with edge(tmp_path) as (w, port):
        fake = w.fakes["a"]
        fake.always = middle if phase == "in the middle" else Reply(delay_s=60)
        took: list[float] = []
        for _ in range(5):
            async with connected(port) as client:
                await client.send(ask(phase != "whole"))
                if phase == "in the middle":
                    await client.reader.readuntil(b'"content":"x"')
                await until(lambda: fake.under_way == 1)
                begun = time.monotonic()
                client.abort()
                await until(lambda: fake.under_way == 0)
                took.append(time.monotonic() - begun)
        # The middle one: a busy machine may hold up any single one.
        assert sorted(took)[2] < CANCEL_S


async def test_many_streams_through_both_lose_no_frame(tmp_path: Path) -> None:
    words = [f"w{i} " for i in range(30)]
    chunks = [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in words]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    async with edge(tmp_path) as (w, port):
        reply = sse([*chunks, end], done=True)
        reply.gap_s = 0.003
        w.fakes["a"].always = reply

        async def one() -> str:
            async with connected(port) as client:
                await client.send(ask(stream=True))
                answer = await client.read()
            assert answer is not None
            assert answer.complete
            got = events_of(answer.body.decode())
            assert got[-1] == "[DONE]"
            return "".join(c["choices"][0]["delta"].get("content") or "" for c in got[:-1])

        assert set(await asyncio.gather(*(one() for _ in range(STREAMS)))) == {"".join(words)}


async def test_errors_pass_the_gateway_as_they_are(tmp_path: Path) -> None:
    async with edge(tmp_path) as (w, port):
        w.fakes["a"].always = Reply(429, {"retry-after": "30"}, [b"{}"])
        async with connected(port) as client:
            await client.send(ask(stream=True))
            answer = await client.read()
        assert answer is not None
        assert answer.status == 429
        assert answer.all(b"retry-after") == [b"30"]
        assert set(json.loads(answer.body)["error"]) == {"message", "type", "param", "code"}
