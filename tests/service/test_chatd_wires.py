"""Every surface over every wire, streamed and not: the same answer, and what was sent for it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.chatd import WIRES, World, events_of, world
from tests.support.providers import Said, Seen

pytestmark = pytest.mark.anyio

CALLS = (("c1", "get_weather", {"city": "Oslo"}), ("c2", "add", {"a": 1, "b": 2}))
PLAIN = Said(input=20, output=9, cached=0)
THINKING = Said(reasoning="Let me see.", input=20, output=9)
TOOLS = Said(pieces=(), calls=CALLS, reason="tool_calls", input=30, output=11)
SHORT = Said(reason="length")
SAYINGS = {"plain": PLAIN, "thinking": THINKING, "tools": TOOLS, "short": SHORT}


class Got:
    """An answer as its client has it: text, reasoning, calls, reason, tokens."""

    def __init__(self) -> None:
        self.text = self.reasoning = self.reason = ""
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.tokens = (0, 0)

    def check(self, said: Said, *, shows_reasoning: bool = True) -> None:
        assert self.text == ("" if said.calls else said.text)
        assert self.calls == [(name, arguments) for _, name, arguments in said.calls]
        assert self.tokens == (said.input, said.output)
        assert self.reasoning == (said.reasoning if shows_reasoning else "")


async def ask_openai(w: World, model: str, stream: bool) -> Got:
    got = Got()
    if not stream:
        answer = await w.complete(model)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        (choice,) = body["choices"]
        message = choice["message"]
        assert {"content", "refusal"} <= set(message)
        got.text = message["content"] or ""
        got.reasoning = message.get("reasoning_content", "")
        got.calls = [read_call(call["function"]) for call in message.get("tool_calls", ())]
        ids = [call["id"] for call in message.get("tool_calls", ())]
        assert len(set(ids)) == len(ids)
        got.reason = choice["finish_reason"]
        usage = body["usage"]
        got.tokens = usage["prompt_tokens"], usage["completion_tokens"]
        return got
    answer = await w.complete(model, stream=True, stream_options={"include_usage": True})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, done = events_of(answer.text)
    assert done == "[DONE]"
    *chunks, last = chunks
    assert last["choices"] == []
    got.tokens = last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]
    assert {(c["id"], c["created"], c["model"]) for c in [*chunks, last]} == {
        (last["id"], last["created"], model)
    }
    assert all(chunk["usage"] is None for chunk in chunks)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert set(reasons[:-1]) <= {None}
    got.reason = reasons[-1]
    calls: dict[int, dict[str, str]] = {}
    for chunk in chunks:
        delta = chunk["choices"][0]["delta"]
        got.text += delta.get("content") or ""
        got.reasoning += delta.get("reasoning_content") or ""
        for call in delta.get("tool_calls", ()):
            # Clients put repeats together, so id and name must come once.
            made = calls.setdefault(call["index"], {"id": "", "name": "", "arguments": ""})
            made["id"] += call.get("id", "")
            made["name"] += call["function"].get("name", "")
            made["arguments"] += call["function"].get("arguments", "")
    assert sorted(calls) == list(range(len(calls)))
    got.calls = [read_call(call) for call in calls.values()]
    return got


def read_call(function: dict[str, str]) -> tuple[str, dict[str, Any]]:
    return function["name"], json.loads(function["arguments"])


async def ask_house(w: World, model: str, stream: bool) -> Got:
    got = Got()
    answer = await w.chat(model, stream=stream)
    assert answer.status_code == 200, answer.text
    body = answer.json() if not stream else events_of(answer.text)[-1]
    if stream:
        events = events_of(answer.text)
        assert events[0]["type"] == "start"
        assert body["type"] == "done"
        texts = "".join(event["text"] for event in events if event["type"] == "text")
        assert texts == body["content"]
    got.text, got.reasoning = body["content"], body.get("reasoning", "")
    got.calls = [read_call(call["function"]) for call in body.get("tool_calls", ())]
    got.reason = body["finish_reason"]
    got.tokens = body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]
    assert (body["model"], body["provider"]) == (model, model.partition("/")[0])
    assert body["latency_ms"] > 0
    return got


async def ask_anthropic(w: World, model: str, stream: bool) -> Got:
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": model, "max_tokens": 100, "messages": messages, "stream": stream}
    answer = await w.client.post("/v1/messages", json=body)
    assert answer.status_code == 200, answer.text
    got = Got()
    if not stream:
        message = answer.json()
        for block in message["content"]:
            if block["type"] == "text":
                got.text += block["text"]
            elif block["type"] == "thinking":
                got.reasoning += block["thinking"]
            else:
                got.calls.append((block["name"], block["input"]))
        got.reason = message["stop_reason"]
        usage = message["usage"]
    else:
        events = events_of(answer.text)
        assert events[0]["type"] == "message_start"
        assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
        blocks: list[tuple[dict[str, Any], list[str]]] = []
        still_open = False
        for event in events:
            if event["type"] == "content_block_start":
                assert not still_open
                assert event["index"] == len(blocks)
                still_open = True
                blocks.append((event["content_block"], []))
            elif event["type"] == "content_block_delta":
                assert event["index"] == len(blocks) - 1
                delta = event["delta"]
                piece = delta.get("text") or delta.get("thinking") or delta.get("partial_json")
                blocks[-1][1].append(piece or "")
            elif event["type"] == "content_block_stop":
                still_open = False
        for block, pieces in blocks:
            text = "".join(pieces)
            if block["type"] == "tool_use":
                got.calls.append((block["name"], json.loads(text)))
            elif block["type"] == "thinking":
                got.reasoning += text
            else:
                got.text += text
        got.reason = events[-2]["delta"]["stop_reason"]
        usage = events[-2]["usage"]
    read = usage["input_tokens"] + usage.get("cache_read_input_tokens", 0)
    got.tokens = read, usage["output_tokens"]
    return got


async def ask_responses(w: World, model: str, stream: bool) -> Got:
    body = {"model": model, "input": "hi", "stream": stream}
    answer = await w.client.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    got = Got()
    if stream:
        events = events_of(answer.text)
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert events[0]["type"] == "response.created"
        response = events[-1]["response"]
        assert events[-1]["type"] == f"response.{response['status']}"
        deltas = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
        items = [e["item"] for e in events if e["type"] == "response.output_item.done"]
        assert items == response["output"]
    else:
        response = answer.json()
    for item in response["output"]:
        if item["type"] == "message":
            got.text += item["content"][0]["text"]
        elif item["type"] == "reasoning":
            got.reasoning += item["summary"][0]["text"]
        else:
            got.calls.append(read_call(item))
    if stream:
        assert "".join(deltas) == got.text
    got.reason = response["status"]
    got.tokens = response["usage"]["input_tokens"], response["usage"]["output_tokens"]
    return got


REASONS: dict[Any, dict[str, str]] = {
    ask_house: {"plain": "stop", "tools": "tool_calls", "short": "length"},
    ask_openai: {"plain": "stop", "tools": "tool_calls", "short": "length"},
    ask_anthropic: {"plain": "end_turn", "tools": "tool_use", "short": "max_tokens"},
    ask_responses: {"plain": "completed", "tools": "completed", "short": "incomplete"},
}


@pytest.mark.parametrize("ask", list(REASONS), ids=lambda f: f.__name__[4:])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_all_surfaces_over_all_wires(tmp_path: Path, ask: Any, stream: bool) -> None:
    async with world(tmp_path) as w:
        for wire in WIRES:
            for name, said in SAYINGS.items():
                w.fakes[wire].said = said
                got = await ask(w, f"{wire}/small", stream)
                got.check(said)
                assert got.reason == REASONS[ask].get(name, REASONS[ask]["plain"]), (wire, name)


TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
PNG = base64.b64encode(b"not really").decode()
# A whole turn with a tool: what each wire has to be told of it.
HISTORY: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "weather?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        ],
    },
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": "A tool knows.",
        "tool_calls": [
            {
                "id": "c9",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "c9", "content": "rain"},
]


async def sent(w: World, wire: str, **fields: Any) -> Seen:
    """What reached the provider for a chat of these fields."""
    body = {"model": f"{wire}/maker/small", "messages": HISTORY, **fields}
    answer = await w.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return w.fakes[wire].seen[-1]


async def test_a_turn_with_a_tool_in_each_wires_words(tmp_path: Path) -> None:
    schema = TOOL["function"]["parameters"]  # type: ignore[index]
    async with world(tmp_path) as w:
        seen = await sent(w, "ollama", tools=[TOOL])
        assert seen.path == "/api/chat"
        assert seen.body["model"] == "maker/small"
        assert seen.body["stream"] is False
        _, user, assistant, tool = seen.body["messages"]
        assert user == {"role": "user", "content": "weather?", "images": [PNG]}
        assert assistant["tool_calls"][0]["function"] == {
            "name": "get_weather",
            "arguments": {"city": "Oslo"},
        }
        assert assistant["thinking"] == "A tool knows."
        assert (tool["role"], tool["content"], tool["tool_name"]) == ("tool", "rain", "get_weather")
        assert seen.body["tools"] == [TOOL]

        seen = await sent(w, "chat", tools=[TOOL])
        assert seen.path == "/chat/completions"
        assert seen.body["messages"][1:] == HISTORY[1:]
        assert seen.body["tools"] == [TOOL]
        assert "stream" not in seen.body

        seen = await sent(w, "messages", tools=[TOOL])
        assert seen.path == "/messages"
        assert seen.headers["anthropic-version"] == "2023-06-01"
        assert seen.body["system"] == "Be brief."
        user, assistant, results = seen.body["messages"]
        assert user["content"][1]["source"] == {
            "type": "base64",
            "media_type": "image/png",
            "data": PNG,
        }
        # Reasoning without its maker's seal would be refused.
        assert assistant["content"] == [
            {"type": "tool_use", "id": "c9", "name": "get_weather", "input": {"city": "Oslo"}}
        ]
        assert results == {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "c9",
                    "content": [{"type": "text", "text": "rain"}],
                }
            ],
        }
        assert seen.body["tools"][0]["input_schema"] == schema
        assert seen.body["max_tokens"] == 4096

        seen = await sent(w, "responses", tools=[TOOL])
        assert seen.path == "/responses"
        assert seen.body["instructions"] == "Be brief."
        assert seen.body["store"] is False
        user, call, output = seen.body["input"]
        assert user["content"][1]["image_url"] == f"data:image/png;base64,{PNG}"
        assert (call["type"], call["call_id"], call["arguments"]) == (
            "function_call",
            "c9",
            '{"city": "Oslo"}',
        )
        assert output == {"type": "function_call_output", "call_id": "c9", "output": "rain"}
        assert seen.body["tools"][0]["strict"] is False

        seen = await sent(w, "gemini", tools=[TOOL])
        assert seen.path == "/models/maker/small:generateContent"
        assert seen.body["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
        user, assistant, results = seen.body["contents"]
        assert user["parts"][1] == {"inlineData": {"mimeType": "image/png", "data": PNG}}
        call = assistant["parts"][0]["functionCall"]
        assert call == {"name": "get_weather", "args": {"city": "Oslo"}}
        assert results["parts"] == [
            {"functionResponse": {"name": "get_weather", "response": {"result": "rain"}}}
        ]
        declared = seen.body["tools"][0]["functionDeclarations"][0]
        assert declared["parametersJsonSchema"] == schema


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_not_set_stays_absent_to_the_wire(
    tmp_path: Path, wire: str, stream: bool
) -> None:
    sampling = ("temperature", "top_p", "top_k", "seed", "stop", "options", "generationConfig")
    limits = ("max_completion_tokens", "max_output_tokens", "think", "effort", "output_config")
    async with world(tmp_path) as w:
        seen = await sent(w, wire, stream=stream)
        found = json.dumps(seen.body)
        assert [name for name in (*sampling, *limits) if f'"{name}"' in found] == []
        if wire != "messages":  # the only one that must have it
            assert '"max_tokens"' not in found


async def test_what_is_set_arrives_in_each_wires_words(tmp_path: Path) -> None:
    fields = {
        "temperature": 0.0,
        "top_p": 0.5,
        "max_tokens": 7,
        "stop": ["END"],
        "seed": 3,
        "reasoning_effort": "xhigh",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "city", "schema": {"type": "object"}, "strict": True},
        },
    }
    async with world(tmp_path) as w:
        body = (await sent(w, "ollama", **fields)).body
        assert body["options"] == {
            "temperature": 0.0,
            "top_p": 0.5,
            "seed": 3,
            "stop": ["END"],
            "num_predict": 7,
        }
        assert (body["format"], body["think"]) == ({"type": "object"}, "max")
        body = (await sent(w, "chat", **fields)).body
        for name in ("temperature", "top_p", "max_tokens", "stop", "seed", "reasoning_effort"):
            assert body[name] == fields[name]
        assert body["response_format"] == fields["response_format"]
        body = (await sent(w, "messages", **fields)).body
        assert (body["temperature"], body["max_tokens"]) == (0.0, 7)
        assert body["stop_sequences"] == ["END"]
        assert "seed" not in body
        assert body["output_config"]["effort"] == "max"
        assert body["output_config"]["format"]["schema"] == {"type": "object"}
        body = (await sent(w, "responses", **fields)).body
        assert (body["temperature"], body["max_output_tokens"]) == (0.0, 7)
        assert body["text"]["format"]["name"] == "city"
        assert body["reasoning"] == {"effort": "xhigh"}
        config = (await sent(w, "gemini", **fields)).body["generationConfig"]
        assert config["temperature"] == 0.0
        assert (config["maxOutputTokens"], config["stopSequences"]) == (7, ["END"])
        assert config["responseJsonSchema"] == {"type": "object"}


async def test_null_is_kept_where_it_is_a_word_and_absent_elsewhere(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        assert (await sent(w, "chat", temperature=None)).body["temperature"] is None
        for wire in ("ollama", "messages", "gemini"):
            assert '"temperature"' not in json.dumps((await sent(w, wire, temperature=None)).body)


@pytest.mark.parametrize(
    ("effort", "think"),
    [("none", False), ("minimal", "low"), ("low", "low"), ("high", "high"), ("xhigh", "max")],
)
async def test_effort_in_ollamas_words(tmp_path: Path, effort: str, think: object) -> None:
    async with world(tmp_path) as w:
        assert (await sent(w, "ollama", reasoning_effort=effort)).body["think"] == think


async def test_what_a_wire_cannot_say_is_told(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        answer = await w.complete("messages/small", seed=3, top_p=0.5)
        assert answer.headers["x-lakehouse-dropped"] == "seed"
        answer = await w.complete("chat/small", seed=3)
        assert "x-lakehouse-dropped" not in answer.headers


async def test_unknown_fields_go_on_to_those_who_speak_the_protocol(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        body = (await sent(w, "chat", provider={"order": ["x"]}, user="u1")).body
        assert (body["provider"], body["user"]) == ({"order": ["x"]}, "u1")
        assert "provider" not in (await sent(w, "ollama", provider={"order": ["x"]})).body
        # The model and the messages are never overridden by what is sent along.
        assert body["model"] == "maker/small"
        ask = {"model": "messages/x", "max_tokens": 5, "thinking": {"type": "adaptive"}}
        ask["messages"] = [{"role": "user", "content": "hi"}]
        assert (await w.client.post("/v1/messages", json=ask)).status_code == 200
        assert w.fakes["messages"].seen[-1].body["thinking"] == {"type": "adaptive"}
        ask["model"] = "chat/x"
        assert (await w.client.post("/v1/messages", json=ask)).status_code == 200
        assert "thinking" not in w.fakes["chat"].seen[-1].body


async def test_tool_choice_in_each_wires_words(tmp_path: Path) -> None:
    other = {"type": "function", "function": {"name": "other"}}
    named = {"type": "function", "function": {"name": "other"}}
    async with world(tmp_path) as w:

        async def body(wire: str, choice: Any) -> Any:
            fields = {"tools": [TOOL, other], "tool_choice": choice, "parallel_tool_calls": False}
            return (await sent(w, wire, **fields)).body

        assert "tools" not in await body("ollama", "none")
        tools = (await body("ollama", named))["tools"]
        assert [tool["function"]["name"] for tool in tools] == ["other"]
        assert (await body("chat", named))["tool_choice"] == named
        assert (await body("chat", "required"))["parallel_tool_calls"] is False
        assert (await body("messages", "required"))["tool_choice"] == {
            "type": "any",
            "disable_parallel_tool_use": True,
        }
        assert (await body("messages", named))["tool_choice"]["name"] == "other"
        assert (await body("responses", named))["tool_choice"] == {
            "type": "function",
            "name": "other",
        }
        wanted = (await body("gemini", named))["toolConfig"]["functionCallingConfig"]
        assert wanted == {"mode": "ANY", "allowedFunctionNames": ["other"]}


async def test_anthropics_turn_reaches_every_wire(tmp_path: Path) -> None:
    history = [
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "A tool knows.", "signature": "sealed"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Oslo"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "rain", "is_error": True},
                {"type": "text", "text": "So?"},
            ],
        },
    ]
    tools = [{"name": "get_weather", "input_schema": {"type": "object"}}]
    ask = {"max_tokens": 9, "system": "Be brief.", "messages": history, "tools": tools}
    async with world(tmp_path) as w:
        for wire in WIRES:
            answer = await w.client.post("/v1/messages", json={"model": f"{wire}/s", **ask})
            assert answer.status_code == 200, (wire, answer.text)
        sealed = w.fakes["messages"].seen[0].body["messages"]
        assert sealed[1] == history[1]
        result = {"type": "tool_result", "tool_use_id": "t1", "is_error": True}
        result["content"] = [{"type": "text", "text": "rain"}]  # type: ignore[assignment]
        assert sealed[2]["content"] == [result, {"type": "text", "text": "So?"}]
        roles = [message["role"] for message in w.fakes["chat"].seen[0].body["messages"]]
        assert roles == ["system", "user", "assistant", "tool", "user"]
        error = w.fakes["gemini"].seen[0].body["contents"][2]["parts"][0]
        assert error["functionResponse"]["response"] == {"error": "rain"}


async def test_numbers_of_any_size_pass(tmp_path: Path) -> None:
    huge = 10**30
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": huge}}}
    tool = {"type": "function", "function": {"name": "t", "parameters": schema}}
    async with world(tmp_path) as w:
        for wire in WIRES:
            sent_tools = (await sent(w, wire, tools=[tool], seed=huge)).body["tools"]
            assert str(huge) in json.dumps(sent_tools)
        ask = {
            "model": "chat/x",
            "input": "a",
            "tools": [{"type": "function", "name": "t", "parameters": schema}],
        }
        shown = await w.client.post("/v1/responses", json=ask)
        assert shown.json()["tools"][0]["parameters"] == schema
        streamed = await w.client.post("/v1/responses", json={**ask, "stream": True})
        assert str(huge) in streamed.text
        count = {
            "model": "chat/x",
            "messages": [{"role": "user", "content": "a"}],
            "tools": [{"name": "t", "input_schema": schema}],
        }
        assert (await w.client.post("/v1/messages/count_tokens", json=count)).status_code == 200


async def test_cache_marks_reach_those_who_speak_of_them(tmp_path: Path) -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    ask: dict[str, Any] = {
        "max_tokens": 9,
        "system": [{"type": "text", "text": "Long.", **mark}],
        "tools": [{"name": "t", "input_schema": {"type": "object"}, **mark}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a", **mark}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "t"}]},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "1", "content": "x", **mark}],
            },
        ],
    }
    async with world(tmp_path) as w:
        for wire in WIRES:
            answer = await w.client.post("/v1/messages", json={"model": f"{wire}/m", **ask})
            assert answer.status_code == 200, answer.text
            body = w.fakes[wire].seen[-1].body
            assert json.dumps(body).count("cache_control") == (4 if wire == "messages" else 0)
        body = w.fakes["messages"].seen[-1].body
        assert body["system"] == ask["system"]
        assert body["messages"][2]["content"][0]["cache_control"] == {"type": "ephemeral"}


async def test_large_requests_pass(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        text = "x" * (3 * 1024 * 1024)
        for stream in (False, True):
            assert (await w.chat("chat/x", text, stream=stream)).status_code == 200
            assert w.fakes["chat"].seen[-1].body["messages"][0]["content"] == text


@pytest.mark.parametrize("name", ["../../v2/x", "a b", "x?key=1", "x#y", "a/../b", "é"])
async def test_a_models_name_cannot_become_another_address(tmp_path: Path, name: str) -> None:
    async with world(tmp_path) as w:
        refused = await w.chat(f"gemini/{name}")
        assert refused.status_code == 404
        assert w.fakes["gemini"].seen == []
