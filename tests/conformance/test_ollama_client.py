"""The `ollama` Python client against fake_ollama: what it is told by a real Ollama."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from services.fake_ollama.app import create_app
from tests.support.apps import free_ports, make_config
from tests.support.listening import listening

CHAT, THINK, EMBED = "fake-chat", "fake-think", "fake-embed"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer"},
            },
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    config = make_config(tmp_path_factory.mktemp("fake"))
    with listening(create_app(config)) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[ollama.Client]:
    httpx.delete(f"{url}/_script")
    httpx.delete(f"{url}/_requests")
    with ollama.Client(host=url, timeout=10) as made:
        yield made


def script(url: str, **rule: Any) -> None:
    httpx.post(f"{url}/_script", json={"rules": [rule]}).raise_for_status()


def last_request(url: str) -> dict[str, Any]:
    return httpx.get(f"{url}/_requests").json()["requests"][-1]


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_chat_whole_and_streamed_say_the_same(client: ollama.Client) -> None:
    whole = client.chat(model=CHAT, messages=ask("hello there"))
    parts = list(client.chat(model=CHAT, messages=ask("hello there"), stream=True))
    assert whole.message.content == "You said: hello there"
    assert whole.message.role == "assistant"
    assert whole.done
    assert whole.done_reason == "stop"
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert len(parts) == 5
    last = parts[-1]
    assert last.done_reason == "stop"
    for name in ("total_duration", "load_duration", "prompt_eval_count", "eval_count"):
        assert getattr(last, name) == getattr(whole, name) > 0
    assert client.chat(model=CHAT, messages=ask("hello there")) == whole


def test_generate_whole_and_streamed(client: ollama.Client) -> None:
    whole = client.generate(model=CHAT, prompt="once upon")
    parts = list(client.generate(model=CHAT, prompt="once upon", stream=True))
    assert whole.response == "".join(part.response or "" for part in parts)
    assert parts[-1].context == whole.context
    assert parts[-1].done_reason == "stop"


def test_limits_end_with_length_and_stop(client: ollama.Client) -> None:
    short = client.chat(model=CHAT, messages=ask("a b c d"), options={"num_predict": 2})
    assert short.message.content == "You said:"
    assert short.done_reason == "length"
    stopped = client.chat(model=CHAT, messages=ask("a b c d"), options={"stop": ["c"]})
    assert stopped.message.content == "You said: a b "
    assert stopped.done_reason == "stop"


def test_load_and_unload_without_messages(client: ollama.Client) -> None:
    assert client.chat(model=CHAT, messages=[]).done_reason == "load"
    assert [model.model for model in client.ps().models] == ["fake-chat:latest"]
    assert client.generate(model=CHAT, prompt="", keep_alive=0).done_reason == "unload"
    assert client.ps().models == []


def test_json_and_schema_answers_conform(client: ollama.Client) -> None:
    plain = client.chat(model=CHAT, messages=ask("x"), format="json")
    assert json.loads(plain.message.content or "") == {"answer": "x"}
    schema = {
        "type": "object",
        "properties": {
            "verdict": {"type": "string", "enum": ["accept", "reject"]},
            "score": {"type": "integer", "minimum": 3, "maximum": 5},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
        },
        "required": ["verdict", "score"],
    }
    formed = client.chat(model=CHAT, messages=ask("should I reject it"), format=schema)
    value = json.loads(formed.message.content or "")
    assert value["verdict"] == "reject"
    assert 3 <= value["score"] <= 5
    assert len(value["tags"]) == 2


def test_tool_calls_have_object_arguments_before_the_done_line(client: ollama.Client) -> None:
    question = ask("Please get weather for Oslo for 3 days in celsius")
    whole = client.chat(model=CHAT, messages=question, tools=[WEATHER])
    assert whole.message.tool_calls is not None
    function = whole.message.tool_calls[0].function
    assert function.name == "get_weather"
    assert function.arguments == {"city": "Oslo", "unit": "celsius", "days": 3}
    parts = list(client.chat(model=CHAT, messages=question, tools=[WEATHER], stream=True))
    assert [bool(part.message.tool_calls) for part in parts] == [True, False]
    assert parts[-1].done
    answered = client.chat(
        model=CHAT,
        messages=[
            *question,
            whole.message,
            {"role": "tool", "tool_name": "get_weather", "content": "rain"},
        ],
        tools=[WEATHER],
    )
    assert answered.message.content == "You said: rain"
    assert answered.message.tool_calls is None


def test_thinking_models_think_unless_told_not_to(client: ollama.Client) -> None:
    assert client.chat(model=THINK, messages=ask("a")).message.thinking
    assert client.chat(model=THINK, messages=ask("a"), think=False).message.thinking is None
    parts = list(client.chat(model=THINK, messages=ask("a"), think=True, stream=True))
    thought = [bool(part.message.thinking) for part in parts]
    assert thought == sorted(thought, reverse=True)
    with pytest.raises(ollama.ResponseError, match="does not support thinking") as refused:
        client.chat(model=CHAT, messages=ask("a"), think=True)
    assert refused.value.status_code == 400


def test_embed_is_normalised_and_near_for_like_texts(client: ollama.Client) -> None:
    texts = ["nurse in Oslo", "a nurse from Oslo", "forklift driver"]
    answer = client.embed(model=EMBED, input=texts)
    vectors = [list(vector) for vector in answer.embeddings]
    assert len(vectors[0]) == 256
    assert all(math.isclose(math.hypot(*vector), 1, rel_tol=1e-6) for vector in vectors)

    def dot(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert dot(vectors[0], vectors[1]) > 0.5 > dot(vectors[0], vectors[2])
    assert client.embed(model=EMBED, input=texts[0]).embeddings == [answer.embeddings[0]]
    cut = client.embed(model=EMBED, input=texts[0], dimensions=8).embeddings[0]
    norm = math.hypot(*vectors[0][:8])
    assert [x * norm for x in cut] == pytest.approx(vectors[0][:8])
    assert client.embed(model=EMBED, input=[]).embeddings == []
    assert client.embed(model=EMBED, input="").embeddings == []


def test_embed_cuts_long_texts_or_refuses_them(client: ollama.Client) -> None:
    long = "word " * 600
    cut = client.embed(model=EMBED, input=long)
    assert cut.prompt_eval_count == 512
    assert cut.embeddings == client.embed(model=EMBED, input="word " * 512).embeddings
    with pytest.raises(ollama.ResponseError, match="exceeds the context length") as refused:
        client.embed(model=EMBED, input=long, truncate=False)
    assert refused.value.status_code == 400


def test_old_embeddings_are_not_normalised(client: ollama.Client) -> None:
    old = client.embeddings(model=EMBED, prompt="nurse in Oslo").embedding
    new = client.embed(model=EMBED, input="nurse in Oslo").embeddings[0]
    assert math.hypot(*old) > 1.1
    assert [x / math.hypot(*old) for x in old] == pytest.approx(list(new))
    assert client.embeddings(model=EMBED, prompt="").embedding == []


def test_list_and_show(client: ollama.Client) -> None:
    listed = client.list().models
    assert [model.model for model in listed] == [
        "fake-chat:latest",
        "fake-think:latest",
        "fake-embed:latest",
    ]
    assert len({model.digest for model in listed}) == 3
    shown = client.show(EMBED)
    assert shown.modelinfo is not None
    assert shown.modelinfo["fake.embedding_length"] == 256
    assert shown.capabilities == ["embedding"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_404(client: ollama.Client, stream: bool) -> None:
    with pytest.raises(ollama.ResponseError) as refused:
        list(client.chat(model="absent", messages=ask("a"), stream=stream))
    assert refused.value.status_code == 404
    assert refused.value.error == "model 'absent' not found"
    for call in (client.embed, client.show):
        with pytest.raises(ollama.ResponseError) as refused:
            call(model="absent", **({"input": "a"} if call == client.embed else {}))
        assert refused.value.status_code == 404


def test_models_refuse_what_they_were_not_made_for(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match='"fake-embed" does not support chat'):
        client.chat(model=EMBED, messages=ask("a"))
    with pytest.raises(ollama.ResponseError, match='"fake-embed" does not support generate'):
        client.generate(model=EMBED, prompt="a")


def test_an_error_in_a_stream_has_status_minus_one(client: ollama.Client, url: str) -> None:
    script(url, path="/api/chat", error_after_chunks=2, error="out of memory")
    parts = iter(client.chat(model=CHAT, messages=ask("a b"), stream=True))
    assert [next(parts).message.content for _ in range(2)] == ["You", " said:"]
    with pytest.raises(ollama.ResponseError, match="out of memory") as failed:
        next(parts)
    assert failed.value.status_code == -1


def test_scripted_status_delay_and_cut(client: ollama.Client, url: str) -> None:
    script(url, status=503, error="busy", headers={"Retry-After": "3"})
    with pytest.raises(ollama.ResponseError, match="busy") as refused:
        client.chat(model=CHAT, messages=ask("a"))
    assert refused.value.status_code == 503
    script(url, delay_s=30)
    with ollama.Client(host=url, timeout=0.2) as hasty, pytest.raises(httpx.ReadTimeout):
        hasty.chat(model=CHAT, messages=ask("a"))
    script(url, cut_after_chunks=1)
    with pytest.raises(httpx.RemoteProtocolError):
        list(client.chat(model=CHAT, messages=ask("a b c"), stream=True))
    script(url, cut_after_chunks=0, path="/api/embed")
    with pytest.raises(httpx.RemoteProtocolError):
        client.embed(model=EMBED, input="a")
    assert last_request(url)["ended"] == "cut"
    script(url, malformed=True)
    with pytest.raises(json.JSONDecodeError):
        list(client.chat(model=CHAT, messages=ask("a b c"), stream=True))


def test_requests_are_recorded_as_they_came(client: ollama.Client, url: str) -> None:
    client.chat(model=CHAT, messages=ask("a"))
    seen = last_request(url)
    assert seen["path"] == "/api/chat"
    assert "options" not in seen["json_body"]
    assert json.loads(seen["body"]) == seen["json_body"]
    assert dict(seen["headers"])["user-agent"].startswith("ollama-python/")
    client.chat(model=CHAT, messages=ask("a"), options={"temperature": 0})
    assert last_request(url)["json_body"]["options"] == {"temperature": 0}


def test_nobody_listening_is_a_connection_error() -> None:
    port = free_ports(1)[0]
    with ollama.Client(host=f"http://127.0.0.1:{port}") as alone:
        with pytest.raises(ConnectionError):
            alone.list()
        with pytest.raises(httpx.ConnectError):
            list(alone.chat(model=CHAT, messages=ask("a"), stream=True))


@pytest.mark.anyio
async def test_the_async_client(url: str, tmp_path: Path) -> None:
    async with ollama.AsyncClient(host=url, timeout=10) as client:
        stream = await client.chat(model=CHAT, messages=ask("x y"), stream=True)
        said = "".join([part.message.content or "" async for part in stream])
        assert said == "You said: x y"
        answer = await client.embed(model=EMBED, input=["a", "b"])
        assert len(answer.embeddings) == 2
