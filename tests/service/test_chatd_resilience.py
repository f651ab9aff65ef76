"""Trying again, falling back, places, the breaker, and clients that leave."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.chatd import World, events_of, world
from tests.support.providers import Fake, Reply, json_reply, sse
from tests.support.sockets import connected, request, until

pytestmark = pytest.mark.anyio

# What a cancel is promised in, and what the machine may add to it. Seconds.
CANCEL_S = 0.25
FAILING = json_reply({"error": {"message": "down"}}, 500)
BUSY = json_reply({"error": {"message": "busy"}}, 429)


def chain(**tables: dict[str, Any]) -> dict[str, Any]:
    """Providers `a`, `b`, … of wire chat."""
    return {name: {"wire": "chat", **table} for name, table in tables.items()}


async def state(w: World, name: str) -> dict[str, Any]:
    return (await w.client.get("/chat/providers?probe=1")).json()["details"][name]


async def rest(w: World) -> None:
    """Waits until the circuit of `a` has been open long enough for a probe."""
    deadline = time.monotonic() + 5
    while (await state(w, "a"))["breaker"] != "half_open":
        assert time.monotonic() < deadline


async def in_flight(w: World, count: int) -> None:
    """Waits until so many requests are under way, beside the one that asks."""
    deadline = time.monotonic() + 5
    while await w.figure("lakehouse_requests_in_flight") != count + 1:
        assert time.monotonic() < deadline


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "bad",
    [
        FAILING,
        BUSY,
        Reply(raw=b""),
        Reply(200, {"content-type": "application/json"}, [b"{nope"]),
        json_reply({"error": {"message": "x", "code": 503}}),
    ],
    ids=["500", "429", "closed", "no JSON", "error inside 200"],
)
async def test_what_passes_is_tried_again(tmp_path: Path, bad: Reply, stream: bool) -> None:
    async with world(tmp_path, providers=chain(a={"attempts": 3})) as w:
        w.fakes["a"].replies = [bad, bad]
        got = await w.complete("a/x", stream=stream)
        assert got.status_code == 200, got.text
        assert got.headers["x-lakehouse-attempts"] == "3"
        assert "Oslo" in got.text
        assert len(w.fakes["a"].seen) == 3
        assert (await state(w, "a"))["under_way"] == 0


async def test_tries_are_bounded(tmp_path: Path) -> None:
    tables = chain(a={"attempts": 2}, b={"attempts": 5})
    async with world(tmp_path, providers=tables, fallbacks={"a/x": ["b/y"]}, max_attempts=4) as w:
        w.fakes["a"].always = w.fakes["b"].always = FAILING
        got = await w.complete("a/x")
        assert got.status_code == 502
        assert (len(w.fakes["a"].seen), len(w.fakes["b"].seen)) == (2, 2)
        got = await w.chat("a/x")
        tried = got.json()["error"]["details"]["tried"]
        assert [each["model"] for each in tried] == ["a/x", "b/y"]


async def test_retry_after_is_waited_out_or_told(tmp_path: Path) -> None:
    soon = json_reply({"error": {"message": "busy"}}, 429, retry_after_ms="150")
    late = json_reply({"error": {"message": "busy"}}, 429, retry_after="30")
    async with world(tmp_path, providers=chain(a={}), retry_after_max_s=1) as w:
        w.fakes["a"].replies = [soon]
        begun = time.monotonic()
        assert (await w.complete("a/x")).status_code == 200
        assert time.monotonic() - begun >= 0.15
        w.fakes["a"].replies = [late]
        begun = time.monotonic()
        got = await w.complete("a/x")
        assert (got.status_code, got.headers["retry-after"]) == (429, "30")
        assert time.monotonic() - begun < 5
        assert len(w.fakes["a"].seen) == 3


async def test_no_wait_outlasts_the_deadline(tmp_path: Path) -> None:
    async with world(tmp_path, providers=chain(a={}), retry_after_max_s=60) as w:
        w.fakes["a"].always = json_reply({"error": {"message": "busy"}}, 429, retry_after="5")
        begun = time.monotonic()
        got = await w.client.post(
            "/chat",
            json={"model": "a/x", "messages": [{"role": "user", "content": "a"}]},
            headers={"x-deadline-ms": "2000"},
        )
        assert got.status_code == 429
        assert time.monotonic() - begun < 1.9


@pytest.mark.parametrize("stream", [False, True])
async def test_the_next_in_the_chain_answers(tmp_path: Path, stream: bool) -> None:
    tables = chain(a={"attempts": 1}, b={"attempts": 1}, c={})
    chains = {"tier/local_fast": ["a/small", "c/last"], "a/x": ["missing:cloud", "b/y", "c/z"]}
    async with world(
        tmp_path, providers=tables, fallbacks=chains, models={"local_fast": "b/first"}
    ) as w:
        w.fakes["a"].always = w.fakes["b"].always = FAILING
        got = await w.complete("a/x", stream=stream)
        assert got.status_code == 200, got.text
        assert got.headers["x-lakehouse-provider"] == "c"
        body = events_of(got.text)[0] if stream else got.json()
        assert body["model"] == "c/z"  # who answered, under a name that can be asked for
        assert [seen.body["model"] for seen in w.fakes["c"].seen] == ["z"]
        assert (await w.chat("tier/local_fast")).json()["model"] == "c/last"
        # Nothing stands behind this name.
        assert (await w.chat("a/other")).status_code == 502


@pytest.mark.parametrize("code", [400, 413, 422])
async def test_the_callers_own_mistake_goes_no_further(tmp_path: Path, code: int) -> None:
    async with world(tmp_path, providers=chain(a={}, b={}), fallbacks={"a/x": ["b/x"]}) as w:
        w.fakes["a"].always = json_reply({"error": {"message": "bad"}}, code)
        assert (await w.complete("a/x")).status_code == code
        assert len(w.fakes["a"].seen) == 1
        assert w.fakes["b"].seen == []


@pytest.mark.parametrize("code", [401, 402, 404])
async def test_a_provider_that_will_not_is_asked_once(tmp_path: Path, code: int) -> None:
    async with world(tmp_path, providers=chain(a={}, b={}), fallbacks={"a/x": ["b/x"]}) as w:
        w.fakes["a"].always = json_reply({"error": {"message": "no"}}, code)
        assert (await w.complete("a/x")).status_code == 200
        assert len(w.fakes["a"].seen) == 1


async def test_nothing_is_tried_again_after_the_first_event(tmp_path: Path) -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}]}
    async with world(tmp_path, providers=chain(a={}, b={}), fallbacks={"a/x": ["b/x"]}) as w:
        for ending in ({"cut": True}, {}):
            reply = sse([chunk])
            reply.cut, reply.gap_s = ending.get("cut", False), 0.01
            reply.pieces = [*reply.pieces, b": \n\n"]
            w.fakes["a"].replies = [reply]
            before = len(w.fakes["a"].seen)
            got = await w.complete("a/x", stream=True)
            assert got.status_code == 200
            assert got.text.count("Hel") == 1
            assert "[DONE]" not in got.text
            assert len(w.fakes["a"].seen) == before + 1
            assert w.fakes["b"].seen == []


async def test_places_are_limited_by_provider(tmp_path: Path) -> None:
    tables = chain(a={"concurrency": 2, "queue": 2}, b={})
    async with world(tmp_path, providers=tables) as w:
        slow = json_reply({"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}]})
        slow.delay_s = 0.8
        w.fakes["a"].always = slow
        got = await asyncio.gather(*(w.complete("a/x") for _ in range(8)))
        statuses = sorted(each.status_code for each in got)
        assert statuses == [200] * 4 + [429] * 4
        assert w.fakes["a"].most_under_way == 2
        refused = next(each for each in got if each.status_code == 429)
        assert refused.headers["retry-after"] == "1"
        assert "chatd.providers.a.concurrency" in refused.json()["error"]["message"]
        assert (await w.complete("b/x")).status_code == 200


async def test_a_stream_holds_its_place_to_the_end(tmp_path: Path) -> None:
    async with world(tmp_path, providers=chain(a={"concurrency": 1, "queue": 0})) as w:
        chunk = {"choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}]}
        reply = sse([chunk])
        reply.hang = True
        w.fakes["a"].replies = [reply]
        ask = {"model": "a/x", "messages": [{"role": "user", "content": "a"}], "stream": True}
        async with w.client.stream("POST", "/v1/chat/completions", json=ask) as held:
            assert held.status_code == 200
            assert (await w.complete("a/x")).status_code == 429
        deadline = time.monotonic() + 5
        while (await state(w, "a"))["under_way"]:
            assert time.monotonic() < deadline
        assert (await w.complete("a/x")).status_code == 200


async def test_the_breaker_spares_a_failing_provider(tmp_path: Path) -> None:
    tables = chain(a={"attempts": 1}, b={})
    async with world(
        tmp_path,
        providers=tables,
        breaker_failures=3,
        breaker_open_s=1.0,
        fallbacks={"a/with": ["b/x"]},
    ) as w:
        fake = w.fakes["a"]
        fake.always = FAILING
        for _ in range(3):
            assert (await w.complete("a/x")).status_code == 502
        assert (await state(w, "a"))["breaker"] == "open"
        assert await w.figure('chatd_breaker_open{provider="a"}') == 1
        spared = await w.complete("a/x")
        assert spared.status_code == 503
        assert int(spared.headers["retry-after"]) >= 1
        assert (await w.complete("a/with")).headers["x-lakehouse-provider"] == "b"
        assert len(fake.seen) == 3
        await rest(w)
        # A single probe goes through, and it fails; the others are told so at once.
        got = await asyncio.gather(*(w.complete("a/x") for _ in range(10)))
        assert sorted(each.status_code for each in got) == [502] + [503] * 9
        assert len(fake.seen) == 4
        await rest(w)
        fake.always = None
        assert (await w.complete("a/x")).status_code == 200
        assert (await state(w, "a"))["breaker"] == "closed"
        assert await w.figure('chatd_breaker_open{provider="a"}') == 0


async def test_refusals_do_not_open_the_circuit(tmp_path: Path) -> None:
    async with world(tmp_path, providers=chain(a={"attempts": 1}), breaker_failures=2) as w:
        for code in (400, 401, 404, 429, 429, 429, 422):
            w.fakes["a"].replies = [json_reply({"error": {"message": "x"}}, code)]
            assert (await w.complete("a/x")).status_code >= 400
        assert (await w.complete("a/x")).status_code == 200


async def test_a_client_that_leaves_frees_the_probe(tmp_path: Path) -> None:
    async with world(
        tmp_path, providers=chain(a={"attempts": 1}), breaker_failures=1, breaker_open_s=0.1
    ) as w:
        w.fakes["a"].replies = [FAILING, Reply(delay_s=60)]
        assert (await w.complete("a/x")).status_code == 502
        await rest(w)
        await leave_when(w, lambda fake: fake.under_way == 1, stream=False)
        assert (await w.complete("a/x")).status_code == 200


PHASES: dict[str, Reply] = {
    "before the head": Reply(delay_s=60),
    "after the head": Reply(200, {"content-type": "text/event-stream"}, hang=True),
    "in the middle": Reply(
        200,
        {"content-type": "text/event-stream"},
        [
            b'data: {"choices": [{"index": 0, "delta": {"content": "Hel"}}]}\n\n',
            *[b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n'] * 9999,
        ],
        gap_s=0.02,
    ),
    "whole, in its body": Reply(
        200, {"content-type": "application/json"}, [b'{"choices": ['], hang=True
    ),
}


async def leave_when(w: World, ready: Callable[[Fake], bool], *, stream: bool) -> float:
    """Asks, leaves once the provider is at it, and gives the seconds until it was let go."""
    fake = w.fakes["a"]
    body = {"model": "a/x", "messages": [{"role": "user", "content": "a"}], "stream": stream}
    raw = request("/v1/chat/completions", "POST", body=json.dumps(body).encode())
    async with connected(w.port) as client:
        await client.send(raw)
        await until(lambda: ready(fake))
        begun = time.monotonic()
        client.abort()
        await until(lambda: fake.under_way == 0)
        return time.monotonic() - begun


@pytest.mark.parametrize("phase", PHASES)
async def test_a_client_that_leaves_ends_the_call_at_once(tmp_path: Path, phase: str) -> None:
    async with world(tmp_path, providers=chain(a={})) as w:
        w.fakes["a"].always = PHASES[phase]
        stream = not phase.startswith("whole")
        took = [await leave_when(w, lambda f: f.under_way == 1, stream=stream) for _ in range(5)]
        # The middle one: a busy machine may hold up any single one.
        assert sorted(took)[2] < CANCEL_S
        assert (await state(w, "a"))["under_way"] == 0
        records = await w.records(5)
        assert {record["outcome"] for record in records} == {"cancelled"}
        # What a stream had begun to say was paid for, and is reckoned.
        assert all(record["usage"]["input"] > 0 for record in records)
        assert all(record["usage"]["estimated"] for record in records)
        w.fakes["a"].always = None
        assert (await w.complete("a/x")).status_code == 200


async def test_a_client_that_leaves_the_queue_or_a_wait_leaves_nothing(tmp_path: Path) -> None:
    async with world(
        tmp_path, providers=chain(a={"concurrency": 1}), retry_base_s=60, retry_max_s=60
    ) as w:
        fake = w.fakes["a"]
        fake.replies = [FAILING]
        body = {"model": "a/x", "messages": [{"role": "user", "content": "a"}]}
        raw = request("/chat", "POST", body=json.dumps(body).encode())
        async with connected(w.port) as waiting:
            await waiting.send(raw)
            await until(lambda: len(fake.seen) == 1 and fake.under_way == 0)
            # Now it waits for its second try, its place given back.
            assert (await w.complete("a/x")).status_code == 200
            waiting.abort()
        fake.replies = [Reply(delay_s=60)]
        async with connected(w.port) as first, connected(w.port) as queued:
            await first.send(raw)
            await until(lambda: fake.under_way == 1)
            await queued.send(raw)
            await in_flight(w, 2)
            queued.abort()
            await in_flight(w, 1)
            first.abort()
            await until(lambda: fake.under_way == 0)
        assert (await w.complete("a/x")).status_code == 200
        assert (await state(w, "a"))["under_way"] == 0
        outcomes = [record["outcome"] for record in await w.records(5)]
        assert sorted(outcomes) == ["cancelled"] * 3 + ["ok"] * 2


async def test_many_streams_at_once_lose_no_frame(tmp_path: Path) -> None:
    pieces = [f"w{i} " for i in range(50)]
    chunks = [{"choices": [{"index": 0, "delta": {"content": p}}]} for p in pieces]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    async with world(tmp_path, providers=chain(a={"concurrency": 128})) as w:
        reply = sse([*chunks, end], done=True)
        reply.gap_s = 0.002
        w.fakes["a"].always = reply

        async def one() -> str:
            got = events_of((await w.complete("a/x", stream=True)).text)
            assert got[-1] == "[DONE]"
            return "".join(c["choices"][0]["delta"].get("content") or "" for c in got[:-1])

        texts = await asyncio.gather(*(one() for _ in range(96)))
        assert set(texts) == {"".join(pieces)}
        assert (await state(w, "a"))["under_way"] == 0


async def test_a_streams_deadline_is_told_in_its_own_words(tmp_path: Path) -> None:
    event = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n'
    async with world(tmp_path, providers=chain(a={})) as w:
        w.fakes["a"].always = Reply(
            200, {"content-type": "text/event-stream"}, [event] * 9999, gap_s=0.02
        )
        got = await w.client.post(
            "/v1/chat/completions",
            json={"model": "a/x", "messages": [{"role": "user", "content": "a"}], "stream": True},
            headers={"x-deadline-ms": "900"},
        )
        *before, last = events_of(got.text)
        assert before
        assert last["error"]["code"] == "timeout"
        assert "did not finish" in last["error"]["message"]
        await until(lambda: w.fakes["a"].under_way == 0)
