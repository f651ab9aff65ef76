"""fake_ollama over ASGI: every route, its refusals, its OpenAI side and how it is steered."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from services.fake_ollama.app import create_app
from shared.clients.fake_ollama import FakeOllamaClient
from shared.wire.fake_ollama import ScriptRule
from tests.support.apps import client_of, make_config, running

pytestmark = pytest.mark.anyio

ASK = {"model": "fake-chat", "messages": [{"role": "user", "content": "hello there"}]}


@asynccontextmanager
async def fake(tmp_path: Path, **settings: Any) -> AsyncGenerator[httpx.AsyncClient]:
    async with client_of(create_app(make_config(tmp_path, fake_ollama=settings))) as client:
        yield client


def lines(answer: httpx.Response) -> list[Any]:
    return [json.loads(line) for line in answer.text.splitlines()]


def events(answer: httpx.Response) -> list[Any]:
    assert answer.text.endswith("\n\n")
    found = [event.removeprefix("data: ") for event in answer.text.split("\n\n")[:-1]]
    return [event if event == "[DONE]" else json.loads(event) for event in found]


async def test_probes_and_lists(tmp_path: Path) -> None:
    async with fake(tmp_path) as client:
        assert (await client.get("/")).text == "Ollama is running"
        assert set((await client.get("/api/version")).json()) == {"version"}
        tags = (await client.get("/api/tags")).json()["models"]
        assert all(tag["name"] == tag["model"] for tag in tags)
        assert (await client.get("/api/ps")).json() == {"models": []}
        for path in ("/", "/api/tags", "/api/version"):
            head = await client.head(path)
            assert (head.status_code, head.content) == (200, b"")
        assert (await client.head("/api/ps")).status_code == 405


async def test_streaming_is_the_default_one_object_a_line(tmp_path: Path) -> None:
    async with fake(tmp_path) as client:
        for path, body in (
            ("/api/chat", ASK),
            ("/api/generate", {"model": "fake-chat", "prompt": "hello there"}),
        ):
            streamed = await client.post(path, json=body)
            assert streamed.headers["content-type"] == "application/x-ndjson"
            assert "\n\n" not in streamed.text
            assert streamed.text.endswith("\n")
            assert [line["done"] for line in lines(streamed)] == [False] * 4 + [True]
            whole = await client.post(path, json={**body, "stream": False})
            assert whole.headers["content-type"] == "application/json; charset=utf-8"
            assert whole.json()["done_reason"] == "stop"
            assert streamed.text == (await client.post(path, json=body)).text


async def test_show_takes_either_name(tmp_path: Path) -> None:
    async with fake(tmp_path) as client:
        shown = await client.post("/api/show", json={"name": "fake-embed"})
        assert shown.json()["model_info"]["fake.context_length"] == 512
        assert (await client.post("/api/show", json={})).json() == {"error": "model is required"}


async def test_old_and_new_embeddings(tmp_path: Path) -> None:
    async with fake(tmp_path) as client:
        new = await client.post("/api/embed", json={"model": "fake-embed", "input": ["a", "b"]})
        assert set(new.json()) == {
            "model", "embeddings", "total_duration", "load_duration", "prompt_eval_count",
        }  # fmt: skip
        old = await client.post("/api/embeddings", json={"model": "fake-embed", "prompt": "a"})
        assert len(old.json()["embedding"]) == 256
        empty = await client.post("/api/embed", json={"model": "fake-embed"})
        assert empty.json() == {"model": "fake-embed", "embeddings": []}


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/api/chat", b"", 400, "missing request body"),
        ("/api/chat", b"{", 400, "Invalid JSON"),
        ("/api/chat", b'{"model": 1}', 400, "model"),
        ("/api/chat", b'{"model": ""}', 400, "model is required"),
        ("/api/chat", b'{"model": "x", "messages": []}', 404, "model 'x' not found"),
        ("/api/generate", b'{"model": "x:y"}', 404, "model 'x:y' not found"),
        ("/api/embed", b'{"model": "fake-embed", "input": 7}', 400, "invalid input type"),
        ("/api/embed", b'{"model": "fake-embed", "input": [7]}', 400, "invalid input type"),
        (
            "/api/chat",
            b'{"model": "fake-embed", "messages": []}',
            400,
            '"fake-embed" does not support chat',
        ),
        (
            "/api/generate",
            b'{"model": "fake-chat", "prompt": "a", "raw": true, "system": "b"}',
            400,
            "raw mode does not support",
        ),
        ("/nowhere", b"{}", 404, "no route"),
    ],
)
async def test_errors_are_ollamas(
    tmp_path: Path, path: str, body: bytes, status: int, says: str
) -> None:
    async with fake(tmp_path) as client:
        refused = await client.post(path, content=body)
        assert refused.status_code == status
        assert list(refused.json()) == ["error"]
        assert says in refused.json()["error"]


async def test_tools_need_a_model_made_for_them(tmp_path: Path) -> None:
    models = {"plain:latest": {"capabilities": ["completion"]}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    async with fake(tmp_path, models=models) as client:
        refused = await client.post("/api/chat", json={**ASK, "model": "plain", "tools": [tool]})
        assert refused.status_code == 400
        error = refused.json()["error"]
        assert error == "registry.ollama.ai/library/plain:latest does not support tools"


async def test_openai_chat_whole_and_streamed(tmp_path: Path) -> None:
    async with fake(tmp_path) as client:
        whole = (await client.post("/v1/chat/completions", json=ASK)).json()
        assert whole["object"] == "chat.completion"
        assert whole["choices"][0]["message"] == {
            "role": "assistant",
            "content": "You said: hello there",
        }
        assert whole["choices"][0]["finish_reason"] == "stop"
        assert whole["usage"]["total_tokens"] > 0
        streamed = await client.post(
            "/v1/chat/completions",
            json={**ASK, "stream": True, "stream_options": {"include_usage": True}},
        )
        assert streamed.headers["content-type"].startswith("text/event-stream")
        *chunks, usage, done = events(streamed)
        assert done == "[DONE]"
        assert usage["choices"] == []
        assert usage["usage"] == whole["usage"]
        assert {(c["id"], c["created"], c["object"]) for c in chunks} == {
            (chunks[0]["id"], whole["created"], "chat.completion.chunk")
        }
        reasons = [c["choices"][0]["finish_reason"] for c in chunks]
        assert reasons == [None] * (len(chunks) - 1) + ["stop"]
        said = "".join(c["choices"][0]["delta"]["content"] for c in chunks)
        assert said == "You said: hello there"
        bare = events(await client.post("/v1/chat/completions", json={**ASK, "stream": True}))
        assert len(bare) == len(chunks) + 1


async def test_openai_tools_formats_and_limits(tmp_path: Path) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            },
        },
    }
    question = {"role": "user", "content": [{"type": "text", "text": "add 2 and 40"}]}
    async with fake(tmp_path) as client:

        async def complete(**more: Any) -> Any:
            answer = await client.post(
                "/v1/chat/completions",
                json={"model": "fake-chat", "messages": [question], **more},
            )
            return answer.json()["choices"][0]

        called = await complete(tools=[tool])
        assert called["finish_reason"] == "tool_calls"
        call = called["message"]["tool_calls"][0]
        assert json.loads(call["function"]["arguments"]) == {"a": 2, "b": 40}
        back = {"role": "tool", "tool_call_id": call["id"], "content": "42"}
        after = await complete(messages=[question, called["message"], back], tools=[tool])
        assert after["message"]["content"] == "You said: 42"
        formed = await complete(
            response_format={
                "type": "json_schema",
                "json_schema": {
                    "name": "x",
                    "schema": {"type": "object", "properties": {"n": {"type": "integer"}}},
                },
            }
        )
        assert json.loads(formed["message"]["content"]) == {"n": 1}
        assert (await complete(max_tokens=1))["finish_reason"] == "length"
        thinking = await complete(model="fake-think", reasoning_effort="low")
        assert thinking["message"]["reasoning"]
        quiet = await complete(model="fake-think", reasoning_effort="none")
        assert "reasoning" not in quiet["message"]


async def test_openai_embeddings_models_and_errors(tmp_path: Path) -> None:
    async with fake(tmp_path) as client:
        body = {"model": "fake-embed", "input": ["a", "b"], "dimensions": 6}
        plain = (await client.post("/v1/embeddings", json=body)).json()
        coded = (
            await client.post("/v1/embeddings", json={**body, "encoding_format": "base64"})
        ).json()
        assert [row["index"] for row in plain["data"]] == [0, 1]
        raw = base64.b64decode(coded["data"][1]["embedding"])
        assert np.frombuffer(raw, "<f4") == pytest.approx(plain["data"][1]["embedding"])
        listed = (await client.get("/v1/models")).json()["data"]
        assert {"fake-chat:latest", "fake-embed:latest"} <= {model["id"] for model in listed}
        assert (await client.get("/v1/models/fake-embed")).json()["id"] == "fake-embed:latest"
        for refused, status in (
            (await client.get("/v1/models/absent"), 404),
            (await client.post("/v1/embeddings", json={**body, "input": []}), 400),
            (await client.post("/v1/chat/completions", json={"model": "fake-chat"}), 400),
        ):
            assert refused.status_code == status
            assert set(refused.json()["error"]) == {"message", "type", "param", "code"}


async def test_rules_match_in_order_and_are_used_up(tmp_path: Path) -> None:
    async with fake(tmp_path) as client:
        rules = [
            {"path": "/api/chat", "contains": "rain", "content": "wet", "times": 2},
            {"model": "fake-chat", "content": "scripted", "done_reason": "length"},
            {"path": "/api/generate", "status": 418, "error": "teapot", "times": None},
        ]
        left = (await client.post("/_script", json={"rules": rules})).json()["rules"]
        assert len(left) == 3

        async def say(text: str) -> Any:
            body = {**ASK, "messages": [{"role": "user", "content": text}], "stream": False}
            return (await client.post("/api/chat", json=body)).json()

        assert (await say("rain"))["message"]["content"] == "wet"
        scripted = await say("sun")
        assert (scripted["message"]["content"], scripted["done_reason"]) == ("scripted", "length")
        assert (await say("rain"))["message"]["content"] == "wet"
        assert (await say("rain"))["message"]["content"] == "You said: rain"
        for _ in range(2):
            teapot = await client.post("/api/generate", json={"model": "fake-chat"})
            assert (teapot.status_code, teapot.json()) == (418, {"error": "teapot"})
        assert [r["status"] for r in (await client.get("/_script")).json()["rules"]] == [418]
        assert (await client.delete("/_script")).json() == {"rules": []}
        bad = await client.post("/_script", json={"rules": [{"statu": 500}]})
        assert bad.status_code == 400


async def test_scripted_answers_and_failures(tmp_path: Path) -> None:
    async with fake(tmp_path) as client:

        async def after(path: str, sent: dict[str, Any], **rule: Any) -> httpx.Response:
            await client.post("/_script", json={"rules": [rule]})
            return await client.post(path, json=sent)

        call = {"name": "f", "arguments": {"x": 1}}
        told = lines(await after("/api/chat", ASK, tool_calls=[call], thinking="hm hm"))
        assert [line["message"].get("thinking") for line in told[:2]] == ["hm", " hm"]
        assert told[2]["message"]["tool_calls"][0]["function"]["arguments"] == {"x": 1}
        assert told[3]["done"]
        embed = {"model": "fake-embed", "input": "a"}
        fixed = await after("/api/embed", embed, embeddings=[[1.0, 0.0]])
        assert fixed.json()["embeddings"] == [[1.0, 0.0]]
        limited = await after("/api/chat", ASK, status=429, headers={"Retry-After": "7"})
        assert (limited.status_code, limited.headers["retry-after"]) == (429, "7")
        openai = await after("/v1/chat/completions", ASK, status=500, error="oops")
        assert openai.json()["error"]["message"] == "oops"
        raw = await after("/api/chat", ASK, body="<html>", status=502)
        assert (raw.status_code, raw.text) == (502, "<html>")
        stopped = lines(await after("/api/chat", ASK, error_after_chunks=1, error="gone"))
        assert stopped[1:] == [{"error": "gone"}]
        stream = {**ASK, "stream": True}
        sse = events(await after("/v1/chat/completions", stream, error_after_chunks=1))
        assert sse[-1]["error"]["message"] == "scripted failure"
        broken = await after("/api/chat", ASK, malformed=True)
        assert json.loads(broken.text.splitlines()[0])["done"] is False
        with pytest.raises(json.JSONDecodeError):
            json.loads(broken.text.splitlines()[1])
        await client.post("/_script", json={"rules": [{"path": "/api/tags", "status": 500}]})
        assert (await client.get("/api/version")).status_code == 200
        assert [(await client.get("/api/tags")).status_code for _ in range(2)] == [500, 200]


async def test_requests_are_recorded_with_headers_and_raw_body(tmp_path: Path) -> None:
    async with fake(tmp_path, max_recorded=3) as client:
        raw = b'{"model":  "fake-chat", "messages": [], "options": {"temperature": null}}'
        await client.post("/api/chat?x=1", content=raw, headers={"x-mine": "yes"})
        await client.post("/api/chat", content=b"\xff not json")
        await client.get("/health")
        seen = (await client.get("/_requests")).json()["requests"]
        assert [r["path"] for r in seen] == ["/api/chat", "/api/chat"]
        assert seen[0]["body"].encode() == raw
        assert seen[0]["json_body"]["options"] == {"temperature": None}
        assert ["x-mine", "yes"] in seen[0]["headers"]
        assert (seen[0]["query"], seen[0]["status"], seen[0]["ended"]) == ("x=1", 200, "done")
        assert (seen[1]["json_body"], seen[1]["status"]) == (None, 400)
        for _ in range(4):
            await client.get("/api/tags")
        kept = (await client.get("/_requests")).json()["requests"]
        assert [r["number"] for r in kept] == [4, 5, 6]
        await client.delete("/_requests")
        assert (await client.get("/_requests")).json() == {"requests": []}


async def test_a_client_that_leaves_is_noted(tmp_path: Path) -> None:
    async with fake(tmp_path) as client:
        await client.post("/_script", json={"rules": [{"delay_s": 60}]})
        asking = asyncio.create_task(client.post("/api/chat", json=ASK))
        async with asyncio.timeout(5):
            while not (await client.get("/_requests")).json()["requests"]:
                await asyncio.sleep(0.005)
            asking.cancel()
            while (seen := (await client.get("/_requests")).json()["requests"][0])[
                "ended"
            ] == "open":
                await asyncio.sleep(0.005)
        assert seen["ended"] == "client_gone"
        assert seen["seconds"] < 5


async def test_the_client_steers(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    async with running(create_app(config)) as transport:
        steering = FakeOllamaClient(config, {"fake_ollama": transport})
        await steering.script(ScriptRule(content="from the client"))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as plain:
            said = await plain.post("/api/chat", json={**ASK, "stream": False})
        assert said.json()["message"]["content"] == "from the client"
        assert [r.path for r in await steering.requests()] == ["/api/chat"]
        await steering.clear()
        assert await steering.requests() == []
        await steering.aclose()
