"""Faults of providers, each streamed and not: the documented answer, never a short one.

The table in docs/chatd.md in cases. A provider is tried once here, so that what is seen is what
a fault means; tests/service/test_chatd_resilience.py is about trying again.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.apps import free_ports
from tests.support.chatd import World, events_of, world
from tests.support.providers import Reply, Seen, json_reply, sse

pytestmark = pytest.mark.anyio

SSE = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json"}


def chunk(text: str | None = None, reason: str | None = None) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def data(body: Any) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def whole(content: Any = "Hello", reason: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {"choices": [{"index": 0, "message": message, "finish_reason": reason}]}


def events(*pieces: bytes, **more: Any) -> Reply:
    return Reply(200, SSE, pieces, **more)


def answer(*pieces: bytes, **more: Any) -> Reply:
    return Reply(200, JSON, pieces, **more)


def status(code: int, text: str = "why", **headers: str) -> Reply:
    return json_reply({"error": {"message": text, "type": "x", "code": None}}, code, **headers)


HTML = Reply(200, {"content-type": "text/html"}, [b"<html>captive portal</html>"])
MID = 200  # the stream began; what is wrong is told in it


@dataclass(frozen=True)
class Case:
    """One fault: what the provider does when asked for all at once and for a stream, the
    statuses that the client gets, and a header of it."""

    name: str
    whole: Reply | None
    stream: Reply | None
    status: int
    stream_status: int | None = None
    header: tuple[str, str] | None = None
    code: str = ""  # of the error inside a stream


def both(name: str, reply: Reply, status: int, **more: Any) -> Case:
    return Case(name, reply, reply, status, **more)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
NO_RETRY = ("x-should-retry", "false")
CASES = [
    both("hangs before its head", Reply(delay_s=60), 504),
    Case("hangs after its head", answer(hang=True), events(hang=True), 504),
    Case(
        "hangs in the middle",
        answer(b'{"choices": [', hang=True),
        events(data(chunk("Hel")), hang=True),
        504,
        MID,
        code="timeout",
    ),
    Case(
        "drips comments for ever",
        answer(*[b" "] * 200, gap_s=0.05),
        events(data(chunk("Hel")), *[b": ping\n\n"] * 200, gap_s=0.05),
        504,
        MID,
        code="timeout",
    ),
    both("closes before its head", Reply(raw=b""), 502),
    both("closes inside its head", Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-ty"), 502),
    Case("cut after its head", answer(cut=True), events(cut=True), 502),
    Case(
        "cut in the middle",
        answer(json.dumps(whole()).encode()[:20], cut=True),
        events(data(chunk("Hel")), data(chunk("lo")), cut=True, gap_s=0.01),
        502,
        MID,
        code="upstream",
    ),
    both("shorter than it said", Reply(raw=HEAD + b"content-length: 999\r\n\r\n{}"), 502),
    both("429", status(429), 429, header=("retry-after", "1")),
    both("429 with Retry-After", status(429, retry_after="7"), 429, header=("retry-after", "7")),
    both(
        "429 with Retry-After too long to wait",
        status(429, retry_after="3600"),
        429,
        header=("retry-after", "3600"),
    ),
    both("500", status(500), 502),
    both("500 in HTML", Reply(500, {"content-type": "text/html"}, [b"<h1>oops</h1>"]), 502),
    both("500 without a word", Reply(500), 502),
    both("502", status(502), 502),
    both("503", status(503), 503, header=("retry-after", "1")),
    both("503 with Retry-After", status(503, retry_after="9"), 503, header=("retry-after", "9")),
    both("504", status(504), 504),
    both("529", status(529), 503, header=("retry-after", "1")),
    both("408", status(408), 502),
    both("400", status(400), 400),
    both("401", status(401), 503, header=NO_RETRY),
    both("402", status(402), 503, header=NO_RETRY),
    both("403", status(403), 503, header=NO_RETRY),
    both("404", status(404), 404),
    both("413", status(413), 413),
    both("422", status(422), 422),
    both("418", status(418), 502),
    both("a redirect", Reply(302, {"location": "http://127.0.0.1:9/"}), 502),
    both("204", Reply(raw=b"HTTP/1.1 204 No Content\r\n\r\n"), 502),
    both("not HTTP", Reply(raw=b"SSH-2.0-OpenSSH_9.9\r\n\r\n"), 502),
    both("HTML with 200", HTML, 502),
    Case("an empty body", answer(), events(), 502),
    Case("JSON that is none", answer(b"{nope"), events(b"data: {nope\n\n"), 502),
    Case("JSON of another kind", answer(b"[1, 2]"), events(b"data: [1, 2]\n\n"), 502),
    Case(
        "JSON that is none in the middle",
        answer(b'{"choices": [{"message": {"content": "He"'),
        events(data(chunk("Hel")), b"data: {nope\n\n", gap_s=0.01),
        502,
        MID,
        code="upstream",
    ),
    Case("no choices", json_reply({"choices": []}), events(b"data: [DONE]\n\n"), 502),
    Case(
        "no message",
        json_reply({"object": "chat.completion"}),
        events(data({"choices": []}), b"data: [DONE]\n\n"),
        502,
    ),
    Case(
        "an end without a reason",
        answer(b'{"choices": [{"message": {"content": "Hel"}}'),
        events(data(chunk("Hel")), data(chunk("lo")), gap_s=0.01),
        502,
        MID,
        code="upstream",
    ),
    both("an error inside 200: busy", json_reply({"error": {"message": "x", "code": 429}}), 429),
    both("an error inside 200: broken", json_reply({"error": {"message": "x", "code": 502}}), 502),
    both("an error inside 200: full", json_reply({"error": {"message": "x", "code": 529}}), 503),
    both("an error inside 200: text", json_reply({"error": "model crashed"}), 502),
    Case(
        "an error event at the start",
        json_reply({"error": {"message": "x", "code": 503}}),
        events(b": PROCESSING\n\n", data({"error": {"message": "x", "code": 503}})),
        503,
    ),
    Case(
        "an error event in the middle",
        json_reply({"error": {"message": "x", "code": 429}}),
        events(data(chunk("Hel")), data({"error": {"message": "x", "code": 429}}), gap_s=0.01),
        429,
        MID,
        code="rate_limit_exceeded",
    ),
    Case(
        "a finish reason that is an error",
        json_reply(whole(reason="error")),
        events(data(chunk("Hel")), data(chunk(None, "error")), gap_s=0.01),
        502,
        MID,
        code="upstream",
    ),
    Case(
        "an answer without end",
        answer(b"{" + b" " * 200_000),
        events(*[data(chunk("x" * 9000))] * 20, gap_s=0.0005),
        502,
        MID,
        code="upstream",
    ),
    Case(
        "an event without end",
        answer(b"{" + b" " * 200_000),
        events(b"data: " + b" " * 50_000),
        502,
    ),
]
QUICK = {
    "wire": "chat",
    "attempts": 1,
    "first_token_timeout_s": 0.8,
    "chunk_timeout_s": 0.8,
    "total_timeout_s": 2.0,
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def w(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[World]:
    # One world for all cases: what a fault leaves behind would show in the next one.
    async with world(
        tmp_path_factory.mktemp("faults"),
        providers={"chat": QUICK},
        breaker_failures=10_000,
        max_answer_bytes=100_000,
        max_event_bytes=20_000,
    ) as made:
        yield made


def test_there_are_enough_of_them() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 45


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_whole_answer(w: World, case: Case) -> None:
    assert case.whole is not None
    w.fakes["chat"].replies = [case.whole]
    got = await w.complete("chat/small")
    assert got.status_code == case.status, got.text
    check_error(got.json()["error"])
    if case.header is not None:
        assert got.headers[case.header[0]] == case.header[1]
    await check_nothing_is_left(w)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_stream(w: World, case: Case) -> None:
    assert case.stream is not None
    w.fakes["chat"].replies = [case.stream]
    got = await w.complete("chat/small", stream=True)
    assert got.status_code == (case.stream_status or case.status), got.text
    if case.stream_status is None:
        check_error(got.json()["error"])
        if case.header is not None:
            assert got.headers[case.header[0]] == case.header[1]
    else:
        # What came is there, then the error, and nothing that says it was all.
        *before, last = events_of(got.text)
        assert before
        assert "[DONE]" not in got.text
        assert all(event["choices"][0]["finish_reason"] is None for event in before)
        check_error(last["error"])
        assert last["error"]["code"] == case.code
    await check_nothing_is_left(w)


def check_error(error: dict[str, Any]) -> None:
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["code"], str)
    assert "chat" in error["message"]  # it names the provider


async def check_nothing_is_left(w: World) -> None:
    state = (await w.client.get("/chat/providers?probe=1")).json()["details"]["chat"]
    assert state["under_way"] == 0
    good = await w.complete("chat/small")
    assert good.status_code == 200, "the next chat suffers from the one before"


@pytest.mark.parametrize("stream", [False, True])
async def test_nobody_listens(tmp_path: Path, stream: bool) -> None:
    (port,) = free_ports(1)
    tables = {
        "closed": {**QUICK, "url": f"http://127.0.0.1:{port}"},
        "nowhere": {**QUICK, "url": "http://nowhere.invalid"},
        "tls": {**QUICK, "url": f"https://127.0.0.1:{port}"},
    }
    async with world(tmp_path, providers=tables) as w:
        for name in tables:
            got = await w.complete(f"{name}/x", stream=stream)
            assert got.status_code == 503, got.text
            assert got.headers["retry-after"] == "1"
            assert f"chatd.providers.{name}.url" in got.json()["error"]["message"]


MIDDLES: dict[str, Reply] = {
    "ollama": Reply(
        200,
        {"content-type": "application/x-ndjson"},
        [b'{"message": {"content": "Hel"}, "done": false}\n', b'{"error": "llama crashed"}\n'],
        gap_s=0.01,
    ),
    "messages": sse(
        [
            {"type": "message_start", "message": {"usage": {"input_tokens": 1}}},
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": "Hel"},
            },
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        ],
        named=True,
    ),
    "responses": sse(
        [
            {"type": "response.output_text.delta", "output_index": 0, "delta": "Hel"},
            {
                "type": "response.failed",
                "response": {"status": "failed", "error": {"code": "server_error", "message": "x"}},
            },
        ],
        named=True,
    ),
    "gemini": sse(
        [
            {"candidates": [{"content": {"parts": [{"text": "Hel"}]}}]},
            {"error": {"code": 503, "status": "UNAVAILABLE", "message": "x"}},
        ]
    ),
}


@pytest.mark.parametrize("wire", MIDDLES)
@pytest.mark.parametrize("ending", ["error", "cut", "end"])
async def test_every_wire_tells_a_broken_stream(tmp_path: Path, wire: str, ending: str) -> None:
    reply = MIDDLES[wire]
    if ending != "error":
        pieces = list(reply.pieces[:-1])
        reply = Reply(reply.status, reply.headers, pieces, cut=ending == "cut")
    reply.gap_s = 0.01
    async with world(tmp_path, providers={wire: {"wire": wire, "attempts": 1}}) as w:
        body = {
            "model": f"{wire}/x",
            "max_tokens": 5,
            "messages": [{"role": "user", "content": "a"}],
        }
        for path, good_end in (
            ("/chat", '"done"'),
            ("/v1/chat/completions", "[DONE]"),
            ("/v1/messages", "message_stop"),
        ):
            w.fakes[wire].replies = [reply]
            got = await w.client.post(path, json={**body, "stream": True})
            if got.status_code != 200:  # both pieces came at once: nothing had been sent on yet
                assert got.status_code in (502, 503)
                continue
            assert "Hel" in got.text
            assert good_end not in got.text
            last = events_of(got.text)[-1]
            assert "error" in last
        w.fakes[wire].replies = [reply]
        got = await w.client.post(
            "/v1/responses", json={"model": f"{wire}/x", "input": "a", "stream": True}
        )
        if got.status_code == 200:
            last = events_of(got.text)[-1]
            assert last["type"] == "error"
            assert set(last["error"]) == {"message", "type", "param", "code"}


async def test_a_stream_answered_whole_is_still_a_stream(tmp_path: Path) -> None:
    async with world(tmp_path, providers={"chat": QUICK}) as w:
        w.fakes["chat"].replies = [json_reply(whole("Hello"))]
        got = events_of((await w.complete("chat/x", stream=True)).text)
        assert got[-1] == "[DONE]"
        assert "".join(c["choices"][0]["delta"].get("content") or "" for c in got[:-1]) == "Hello"


async def test_a_stream_without_done_but_with_a_reason_is_whole(tmp_path: Path) -> None:
    def reply(_: Seen) -> Reply:
        return events(data(chunk("Hello")), data(chunk(None, "stop")))

    async with world(tmp_path, providers={"chat": QUICK}) as w:
        w.fakes["chat"].replies = [reply]
        got = events_of((await w.complete("chat/x", stream=True)).text)
        assert got[-1] == "[DONE]"
