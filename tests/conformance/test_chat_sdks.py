"""The official SDKs against the edge: gateway, chatd and fake_ollama on real ports.

`openai` for chats, streams, tools, structured output, responses and models; `anthropic` for
messages, streams and tools; LangChain's OpenAI class. What they turn errors into is theirs.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from anthropic.types import MessageParam
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from services.chatd.app import create_app as create_chatd
from services.fake_ollama.app import create_app as create_fake_ollama
from services.gateway.app import create_app as create_gateway
from shared.wire.fake_ollama import ScriptRule
from tests.support.apps import make_config
from tests.support.listening import listening

TOKEN = "a-token"
MODEL = "fake/fake-chat"
THINKER = "fake/fake-think"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
ADD: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}
BOTH = "call get_weather for Oslo and add 2 and 3"


class Edge:
    """The addresses, and the fake's script."""

    def __init__(self, url: str, fake: str) -> None:
        self.url = url
        self._fake = fake

    def script(self, **rule: Any) -> None:
        """What happens to the next chat."""
        body = {"rules": [ScriptRule(path="/api/chat", **rule).model_dump(exclude_unset=True)]}
        headers = {"authorization": f"Bearer {TOKEN}"}
        httpx.post(f"{self._fake}/_script", json=body, headers=headers).raise_for_status()


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Generator[Edge]:
    folder = tmp_path_factory.mktemp("chat")
    auth = {"token": TOKEN}
    # The scripted failures below must not open the circuit for whoever comes next.
    quick = {"retry_base_s": 0.01, "keys_dir": folder, "breaker_failures": 1000}
    with listening(create_fake_ollama(make_config(folder, auth=auth))) as fake:
        chatd = make_config(folder, auth=auth, fake_ollama={"url": fake}, chatd=quick)
        with listening(create_chatd(chatd)) as own:
            config = make_config(folder, auth=auth, chatd={"url": own})
            with listening(create_gateway(config)) as url:
                yield Edge(url, fake)


@pytest.fixture
def client(edge: Edge) -> Generator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{edge.url}/v1", api_key=TOKEN, max_retries=0) as made:
        yield made


@pytest.fixture
def claude(edge: Edge) -> Generator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=edge.url, api_key=TOKEN, max_retries=0) as made:
        yield made


def test_openai_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "one two three"}], max_tokens=50
    )
    assert answer.choices[0].message.content == "You said: one two three"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.model == MODEL
    short = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "one two three"}], max_tokens=2
    )
    assert short.choices[0].finish_reason == "length"


def test_openai_stream_and_its_accumulator(client: openai.OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "one two three"}]
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=messages, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].usage is not None
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "You said: one two three"
    whole = client.chat.completions.create(model=MODEL, messages=messages)
    assert chunks[-1].usage == whole.usage
    with client.chat.completions.stream(model=MODEL, messages=messages) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == text


@pytest.mark.parametrize("stream", [False, True])
def test_openai_parallel_tools_and_their_answers(client: openai.OpenAI, stream: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": BOTH}]
    if stream:
        with client.chat.completions.stream(
            model=MODEL, messages=messages, tools=[WEATHER, ADD]
        ) as made:
            choice: Any = made.get_final_completion().choices[0]
    else:
        choice = client.chat.completions.create(
            model=MODEL, messages=messages, tools=[WEATHER, ADD], parallel_tool_calls=True
        ).choices[0]
    assert choice.finish_reason == "tool_calls"
    calls = choice.message.tool_calls
    assert [(c.function.name, c.function.arguments) for c in calls] == [
        ("get_weather", '{"city":"Oslo"}'),
        ("add", '{"a":2,"b":3}'),
    ]
    assert len({call.id for call in calls}) == 2
    messages.append(choice.message.model_dump(exclude_none=True, include={"role", "tool_calls"}))
    messages += [{"role": "tool", "tool_call_id": c.id, "content": "done"} for c in calls]
    after = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER, ADD])
    assert after.choices[0].finish_reason == "stop"
    assert after.choices[0].message.content == "You said: done"


class City(BaseModel):
    """What is asked for."""

    name: str
    people: int


def test_openai_structured_output(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": "Oslo"}], response_format=City
    )
    assert isinstance(parsed.choices[0].message.parsed, City)
    answer = client.responses.parse(model=MODEL, input="Oslo", text_format=City)
    assert isinstance(answer.output_parsed, City)
    free = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Oslo"}],
        response_format={"type": "json_object"},
    )
    assert free.choices[0].message.content == '{"answer": "Oslo"}'


def test_openai_reasoning(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=THINKER, messages=[{"role": "user", "content": "hm"}], reasoning_effort="high"
    )
    assert "tokens" in (answer.choices[0].message.model_extra or {})["reasoning_content"]


def test_openai_responses(client: openai.OpenAI) -> None:
    answer = client.responses.create(model=MODEL, input="one two", instructions="Be brief.")
    assert answer.output_text == "You said: one two"
    assert answer.status == "completed"
    assert answer.usage is not None
    with client.responses.stream(model=MODEL, input="one two") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == "You said: one two"
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    short = client.responses.create(model=MODEL, input="one two", max_output_tokens=1)
    assert short.status == "incomplete"
    assert short.incomplete_details is not None
    assert short.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize("stream", [False, True])
def test_openai_responses_with_tools(client: openai.OpenAI, stream: bool) -> None:
    tools: Any = [{"type": "function", "strict": False, **t["function"]} for t in (WEATHER, ADD)]
    if stream:
        with client.responses.stream(model=MODEL, input=BOTH, tools=tools) as made:
            list(made)
            answer: Any = made.get_final_response()
    else:
        answer = client.responses.create(model=MODEL, input=BOTH, tools=tools)
    calls = [item for item in answer.output if item.type == "function_call"]
    assert [(c.name, c.arguments) for c in calls] == [
        ("get_weather", '{"city":"Oslo"}'),
        ("add", '{"a":2,"b":3}'),
    ]
    history: Any = [{"role": "user", "content": BOTH}]
    history += [
        {"type": "function_call", "call_id": c.call_id, "name": c.name, "arguments": c.arguments}
        for c in calls
    ]
    history += [
        {"type": "function_call_output", "call_id": c.call_id, "output": "done"} for c in calls
    ]
    after = client.responses.create(model=MODEL, input=history, tools=tools)
    assert after.output_text == "You said: done"


def test_openai_models(client: openai.OpenAI) -> None:
    ids = {model.id for model in client.models.list()}
    assert {"fake/fake-chat:latest", "tier/local_fast"} <= ids
    assert client.models.retrieve("tier/local_fast").id == "tier/local_fast"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("fake/absent")


def test_openai_errors_are_its_own_classes(client: openai.OpenAI, edge: Edge) -> None:
    ask: Any = {"messages": [{"role": "user", "content": "a"}]}
    with pytest.raises(openai.NotFoundError) as absent:
        client.chat.completions.create(model="fake/absent", **ask)
    assert absent.value.code == "model_not_found"
    assert absent.value.request_id
    with pytest.raises(openai.NotFoundError, match=r"kimi\.env"):
        client.chat.completions.create(model="kimi/x", **ask)
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model=MODEL, n=2, **ask)
    assert bad.value.param == "n"
    edge.script(status=429, times=3, headers={"Retry-After": "0"})
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model=MODEL, **ask)
    edge.script(status=500, times=3)
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model=MODEL, **ask)
    with (
        openai.OpenAI(base_url=f"{edge.url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.chat.completions.create(model=MODEL, **ask)


def test_a_broken_stream_raises_in_the_openai_sdk(client: openai.OpenAI, edge: Edge) -> None:
    edge.script(error_after_chunks=2, chunk_delay_s=0.02)
    stream = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "one two three"}], stream=True
    )
    assert next(stream).choices
    with pytest.raises(openai.APIError, match="scripted failure"):
        list(stream)
    edge.script(cut_after_chunks=2, chunk_delay_s=0.02)
    with pytest.raises(openai.APIError):
        list(client.responses.create(model=MODEL, input="one two three", stream=True))


def test_anthropic_messages(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(
        model=MODEL, max_tokens=50, messages=[{"role": "user", "content": "one two"}]
    )
    assert answer.content[0].text == "You said: one two"  # type: ignore[union-attr]
    assert answer.stop_reason == "end_turn"
    assert answer.usage.input_tokens > 0 < answer.usage.output_tokens
    short = claude.messages.create(
        model=MODEL, max_tokens=2, messages=[{"role": "user", "content": "one two"}]
    )
    assert short.stop_reason == "max_tokens"
    count = claude.messages.count_tokens(
        model=MODEL, messages=[{"role": "user", "content": "one two"}]
    )
    assert count.input_tokens > 0


def test_anthropic_stream(claude: anthropic.Anthropic) -> None:
    messages: list[MessageParam] = [{"role": "user", "content": "one two"}]
    with claude.messages.stream(model=THINKER, max_tokens=50, messages=messages) as stream:
        assert "".join(stream.text_stream) == "You said: one two"
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert final.stop_reason == "end_turn"
    whole = claude.messages.create(model=THINKER, max_tokens=50, messages=messages)
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.usage.input_tokens == whole.usage.input_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_anthropic_tools(claude: anthropic.Anthropic, stream: bool) -> None:
    tools: Any = [
        {"name": t["function"]["name"], "input_schema": t["function"]["parameters"]}
        for t in (WEATHER, ADD)
    ]
    messages: list[Any] = [{"role": "user", "content": BOTH}]
    if stream:
        with claude.messages.stream(
            model=MODEL, max_tokens=99, messages=messages, tools=tools
        ) as made:
            answer: Any = made.get_final_message()
    else:
        answer = claude.messages.create(model=MODEL, max_tokens=99, messages=messages, tools=tools)
    assert answer.stop_reason == "tool_use"
    calls = [block for block in answer.content if block.type == "tool_use"]
    assert [(call.name, call.input) for call in calls] == [
        ("get_weather", {"city": "Oslo"}),
        ("add", {"a": 2, "b": 3}),
    ]
    messages.append({"role": "assistant", "content": [call.model_dump() for call in calls]})
    results = [{"type": "tool_result", "tool_use_id": c.id, "content": "done"} for c in calls]
    messages.append({"role": "user", "content": results})
    after = claude.messages.create(model=MODEL, max_tokens=99, messages=messages, tools=tools)
    assert after.content[0].text == "You said: done"  # type: ignore[union-attr]


def test_anthropic_errors_are_its_own_classes(claude: anthropic.Anthropic, edge: Edge) -> None:
    ask: Any = {"max_tokens": 9, "messages": [{"role": "user", "content": "one two three"}]}
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(model="fake/absent", **ask)
    edge.script(status=529, times=3)
    with pytest.raises(anthropic.APIStatusError) as overloaded:
        claude.messages.create(model=MODEL, **ask)
    assert overloaded.value.status_code == 503
    edge.script(error_after_chunks=2, chunk_delay_s=0.02)
    with (
        pytest.raises(anthropic.APIStatusError, match="scripted failure"),
        claude.messages.stream(model=MODEL, **ask) as stream,
    ):
        stream.get_final_message()
    with (
        anthropic.Anthropic(base_url=edge.url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError),
    ):
        stranger.messages.create(model=MODEL, **ask)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_langchains_openai_class(edge: Edge) -> None:
    from langchain_openai import ChatOpenAI

    chat: Any = ChatOpenAI(model=MODEL, base_url=f"{edge.url}/v1", api_key=TOKEN, max_retries=0)
    assert chat.invoke("one two").content == "You said: one two"
    assert "".join(str(piece.content) for piece in chat.stream("one two")) == "You said: one two"
    called = chat.bind_tools([WEATHER, ADD]).invoke(BOTH)
    assert [(call["name"], call["args"]) for call in called.tool_calls] == [
        ("get_weather", {"city": "Oslo"}),
        ("add", {"a": 2, "b": 3}),
    ]
    for method in ("json_schema", "function_calling"):
        structured = chat.with_structured_output(City, method=method)
        question = "City: Oslo 9" if method == "function_calling" else "Oslo"
        assert isinstance(structured.invoke(question), City)
