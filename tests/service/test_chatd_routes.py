"""chatd's routes: each answers, and refuses in its own protocol's words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.chatd import CLOUDS, world, write_all_keys, write_key
from tests.support.providers import json_reply

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("asked", "provider", "path", "model", "header"),
    [
        ("small", "ollama", "/api/chat", "small", None),
        ("ollama/small", "ollama", "/api/chat", "small", None),
        ("big:cloud", "ollama_cloud", "/api/chat", "big", "Bearer sk-ollama_cloud"),
        ("big:9b-cloud", "ollama_cloud", "/api/chat", "big:9b", "Bearer sk-ollama_cloud"),
        ("ollama_cloud/big", "ollama_cloud", "/api/chat", "big", "Bearer sk-ollama_cloud"),
        (
            "openrouter/maker/big",
            "openrouter",
            "/api/v1/chat/completions",
            "maker/big",
            "Bearer sk-openrouter",
        ),
        ("kimi/kimi-x", "kimi", "/v1/chat/completions", "kimi-x", "Bearer sk-kimi"),
        ("opencode/other", "opencode", "/zen/v1/chat/completions", "other", "Bearer sk-opencode"),
        ("opencode/gpt-x", "opencode", "/zen/v1/responses", "gpt-x", "Bearer sk-opencode"),
        ("opencode/claude-x", "opencode", "/zen/v1/messages", "claude-x", "sk-opencode"),
        (
            "opencode/gemini-x",
            "opencode",
            "/zen/v1/models/gemini-x:generateContent",
            "",
            "sk-opencode",
        ),
    ],
)
async def test_the_five_providers_get_the_name_without_its_prefix(
    tmp_path: Path, asked: str, provider: str, path: str, model: str, header: str | None
) -> None:
    write_all_keys(tmp_path)
    async with world(tmp_path, providers=CLOUDS) as w:
        answer = await w.chat(asked)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert (body["provider"], body["model"], body["content"]) == (
            provider,
            asked,
            "Hello, Oslo.",
        )
        assert answer.headers["x-lakehouse-provider"] == provider
        (seen,) = w.fakes[provider].seen
        assert seen.path == path
        assert seen.body.get("model", "") == model
        keys = [seen.headers.get(n) for n in ("authorization", "x-api-key", "x-goog-api-key")]
        assert [key for key in keys if key] == ([header] if header else [])
        assert all(not fake.seen for name, fake in w.fakes.items() if name != provider)


async def test_what_is_special_about_openrouter_and_kimi(tmp_path: Path) -> None:
    write_all_keys(tmp_path)
    async with world(tmp_path, providers=CLOUDS) as w:
        fields: dict[str, Any] = {"max_tokens": 9, "temperature": 0.3, "reasoning_effort": "low"}
        answer = await w.chat("kimi/kimi-x", **fields)
        sent = w.fakes["kimi"].seen[0].body
        assert sent["max_completion_tokens"] == 9
        assert not {"max_tokens", "temperature"} & set(sent)
        assert answer.headers["x-lakehouse-dropped"] == "temperature"
        await w.chat("kimi/other", **fields)
        assert w.fakes["kimi"].seen[1].body["temperature"] == 0.3
        await w.chat("openrouter/maker/m", **fields)
        sent = w.fakes["openrouter"].seen[0].body
        assert sent["reasoning"] == {"effort": "low"}
        assert sent["usage"] == {"include": True}
        assert sent["max_tokens"] == 9


async def test_providers_without_a_key_are_not_registered(tmp_path: Path) -> None:
    write_key(tmp_path, "openrouter", "OPENROUTER_API_KEY=sk-1\n")
    write_key(tmp_path, "opencode", "OPENCODE_API_KEY=sk-2\n", mode=0o640)
    write_key(tmp_path, "ollama_cloud", "\n# nothing yet\nOLLAMA_CLOUD_KEY=\n")
    async with world(tmp_path, providers=CLOUDS) as w:
        assert (await w.client.get("/chat/providers")).json() == {
            "providers": {
                "ollama": True,
                "ollama_cloud": False,
                "openrouter": True,
                "opencode": False,
                "kimi": False,
            }
        }
        for model, advice in (
            ("kimi/x", "kimi.env"),
            ("opencode/x", "chmod 600"),
            ("x:cloud", "OLLAMA_CLOUD_KEY="),
        ):
            refused = await w.chat(model)
            assert refused.status_code == 404
            assert advice in refused.json()["error"]["message"]
            assert str(tmp_path) not in refused.text
        assert (await w.chat("openrouter/a/b")).status_code == 200


async def test_tiers_are_asked_for_by_name(tmp_path: Path) -> None:
    models = {"local_fast": "quick:latest", "cloud_judge": "openrouter/maker/big"}
    write_all_keys(tmp_path)
    async with world(tmp_path, providers=CLOUDS, models=models) as w:
        body = (await w.chat("tier/local_fast")).json()
        assert (body["model"], body["provider"]) == ("quick:latest", "ollama")
        assert w.fakes["ollama"].seen[0].body["model"] == "quick:latest"
        assert (await w.chat("tier/cloud_judge")).json()["provider"] == "openrouter"
        refused = await w.chat("tier/none")
        assert refused.status_code == 404
        assert "local_fast" in refused.json()["error"]["message"]


async def test_models_and_tiers_are_listed(tmp_path: Path) -> None:
    models = {"local_fast": "small", "cloud_judge": "gone:cloud", "local_judge": "lost"}
    write_key(tmp_path, "ollama_cloud", "OLLAMA_CLOUD_KEY=sk-1\n")
    async with world(tmp_path, providers=CLOUDS, models=models) as w:
        w.fakes["ollama"].models = ["small:latest", "large"]
        listed = (await w.client.get("/v1/models")).json()
        ids = {model["id"]: model["owned_by"] for model in listed["data"]}
        assert ids["tier/local_fast"] == "lakehouse"
        assert ids["small:latest"] == ids["large"] == "ollama"
        assert ids["ollama_cloud/small"] == "ollama_cloud"
        assert (await w.client.get("/v1/models/small")).json()["id"] == "small:latest"
        assert (await w.client.get("/v1/models/tier/local_fast")).status_code == 200
        assert (await w.client.get("/v1/models/ollama_cloud/large")).status_code == 200
        absent = await w.client.get("/v1/models/absent")
        assert absent.status_code == 404
        assert absent.json()["error"]["code"] == "model_not_found"
        probed = (await w.client.get("/chat/providers?probe=1")).json()
        assert probed["details"]["ollama"] == {
            "registered": True,
            "status": "ok",
            "breaker": "closed",
            "under_way": 0,
            "models": 2,
        }
        assert "kimi.env" in probed["details"]["kimi"]["status"]
        states = {tier: state["status"] for tier, state in probed["tiers"].items()}
        assert states["local_fast"] == "ok"
        assert states["cloud_judge"] == states["local_judge"] == "gone"
        assert states["frontier_free"] == "unregistered"
        assert "ollama pull lost" in probed["tiers"]["local_judge"]["advice"]


async def test_a_provider_that_is_away_leaves_its_tiers_unknown(tmp_path: Path) -> None:
    tables = {"ollama": {"wire": "ollama", "url": "http://127.0.0.1:9"}}
    async with world(tmp_path, providers=tables, models={"local_fast": "small"}) as w:
        probed = (await w.client.get("/chat/providers?probe=1")).json()
        assert probed["providers"] == {"ollama": True}
        assert "cannot be reached" in probed["details"]["ollama"]["status"]
        assert probed["tiers"]["local_fast"]["status"] == "unknown"
        listed = (await w.client.get("/v1/models")).json()["data"]
        assert {model["owned_by"] for model in listed} == {"lakehouse"}


BAD: list[dict[str, Any]] = [
    {},
    {"model": "chat/x"},
    {"model": "chat/x", "messages": []},
    {"model": "", "messages": [{"role": "user", "content": "x"}]},
    {"model": "chat/x", "messages": [{"role": "nobody", "content": "x"}]},
    {"model": "chat/x", "messages": [{"role": "tool", "content": "x"}]},
    {"model": "chat/x", "messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
    {"model": "chat/x", "messages": [{"role": "user", "content": "x"}], "max_tokens": 0},
    {"model": "chat/x", "messages": [{"role": "user", "content": "x"}], "temperature": "hot"},
    {"model": "chat/x", "messages": [{"role": "user", "content": "x"}], "tools": [{"type": "web"}]},
    {
        "model": "chat/x",
        "messages": [{"role": "user", "content": "x"}],
        "response_format": {"type": "json_schema"},
    },
    {
        "model": "chat/x",
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
            }
        ],
    },
]


@pytest.mark.parametrize("body", BAD, ids=range(len(BAD)))
async def test_bad_requests_are_400_and_reach_nobody(tmp_path: Path, body: dict[str, Any]) -> None:
    async with world(tmp_path) as w:
        for path in ("/chat", "/v1/chat/completions"):
            refused = await w.client.post(path, json=body)
            assert refused.status_code == 400, refused.text
            assert refused.json()["error"]["message"]
        assert w.fakes["chat"].seen == []


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"logprobs": True},
        {"functions": [{}]},
        {"modalities": ["text", "audio"]},
    ],
)
async def test_what_is_not_supported_is_said(tmp_path: Path, fields: dict[str, Any]) -> None:
    async with world(tmp_path) as w:
        refused = await w.complete("chat/x", **fields)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == next(iter(fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"previous_response_id": "r1"},
        {"background": True},
        {"conversation": "c"},
        {"tools": [{"type": "web_search"}]},
        {"input": []},
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"input": [{"type": "message", "role": "nobody", "content": "x"}]},
    ],
)
async def test_responses_are_stateless(tmp_path: Path, fields: dict[str, Any]) -> None:
    async with world(tmp_path) as w:
        refused = await w.client.post("/v1/responses", json={"model": "c/x", "input": "a"} | fields)
        assert refused.status_code == 400
        assert set(refused.json()["error"]) == {"message", "type", "param", "code"}


async def test_errors_have_the_shape_of_their_protocol(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.fakes["chat"].always = json_reply({"error": {"message": "no such"}}, 404)
        house = (await w.chat("chat/x")).json()["error"]
        assert (house["code"], house["service"]) == ("not_found", "chatd")
        openai = await w.complete("chat/x")
        assert openai.status_code == 404
        assert openai.json()["error"]["code"] == "model_not_found"
        assert openai.headers["x-request-id"]
        ask = {"model": "chat/x", "max_tokens": 5, "messages": [{"role": "user", "content": "a"}]}
        anthropic = (await w.client.post("/v1/messages", json=ask)).json()
        assert anthropic["type"] == "error"
        assert anthropic["error"]["type"] == "not_found_error"
        del ask["max_tokens"]
        refused = await w.client.post("/v1/messages", json=ask)
        assert refused.json()["error"]["type"] == "invalid_request_error"
        assert "max_tokens" in refused.json()["error"]["message"]
        assert (await w.client.get("/v1/nothing")).json()["error"]["param"] is None


async def test_tokens_are_counted_without_asking_anyone(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        ask = {"model": "chat/x", "messages": [{"role": "user", "content": "a" * 400}]}
        answer = await w.client.post("/v1/messages/count_tokens", json=ask)
        assert answer.json() == {"input_tokens": 104}
        ask["tools"] = [{"name": "t", "input_schema": {"type": "object"}}]  # type: ignore[list-item]
        more = await w.client.post("/v1/messages/count_tokens", json=ask)
        assert more.json()["input_tokens"] > 104
        unknown = await w.client.post("/v1/messages/count_tokens", json={**ask, "model": "tier/x"})
        assert unknown.status_code == 404
        assert w.fakes["chat"].seen == []


async def test_the_fleets_token_goes_to_daemons_alone(tmp_path: Path) -> None:
    tables = {"chat": {"wire": "chat"}, "fake": {"daemon": "fake_ollama", "wire": "ollama"}}
    async with world(tmp_path, providers=tables, auth={"token": "secret-of-the-fleet"}) as w:
        assert (await w.chat("chat/x")).status_code == 401
        for name, value in (
            ("authorization", "Bearer secret-of-the-fleet"),
            ("x-api-key", "secret-of-the-fleet"),
        ):
            answer = await w.client.post(
                "/chat",
                json={"model": "chat/x", "messages": [{"role": "user", "content": "a"}]},
                headers={name: value},
            )
            assert answer.status_code == 200
        assert all("secret" not in str(seen.headers) for seen in w.fakes["chat"].seen)


async def test_health_ready_and_the_document(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        assert (await w.client.get("/health")).json()["service"] == "chatd"
        assert (await w.client.get("/ready")).json()["checks"] == {"ledger": "ok"}
        document = (await w.client.get("/openapi.json")).json()
        wanted = {"/chat", "/v1/chat/completions", "/v1/messages", "/v1/responses"}
        assert wanted <= set(document["paths"])
        named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
        assert "MessagesRequest" in named
        assert named <= set(document["components"]["schemas"])
