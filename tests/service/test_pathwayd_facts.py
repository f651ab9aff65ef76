"""infer=true: facts by the chat edge, each a memory once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from services.chatd.app import create_app as create_chatd
from tests.support.apps import make_config, running
from tests.support.pathwayd import MODELS, World, embedd_running, pathwayd
from tests.support.providers import Fake, Reply, Said, fake, json_reply

pytestmark = pytest.mark.anyio

MEMORIES = "/mem0/memories"
BODY = {
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "I am Al and I like fjords", "name": "al"},
    ],
    "user_id": "al",
    "metadata": {"topic": "travel"},
    "infer": True,
}


@pytest.fixture
async def both(tmp_path: Path) -> AsyncGenerator[tuple[World, Fake]]:
    async with fake("chat") as model:
        config = make_config(
            tmp_path,
            embedd={"default_model": "fake"},
            fake_ollama={"models": MODELS},
            chatd={"providers": {"small": {"url": model.url}}, "retry_base_s": 0.001},
            models={"local_fast": "small/one"},
        )
        async with (
            running(create_chatd(config)) as chatd,
            embedd_running(config) as switch,
            pathwayd(config, switch, chatd=chatd) as made,
        ):
            yield made, model


def say(model: Fake, *facts: str) -> None:
    model.said = Said(pieces=(json.dumps({"facts": facts}),))


async def test_each_fact_becomes_a_memory_once(both: tuple[World, Fake]) -> None:
    w, model = both
    say(model, "The user is called Al.", "Al likes fjords.")
    done = (await w.post(MEMORIES, BODY))["results"]
    assert [(m["memory"], m["event"]) for m in done] == [
        ("The user is called Al.", "ADD"),
        ("Al likes fjords.", "ADD"),
    ]
    (seen,) = model.seen
    assert seen.body["model"] == "one"
    assert seen.body["temperature"] == 0
    assert seen.body["messages"][1]["content"] == "Conversation:\nal: I am Al and I like fjords"
    assert (await w.get(f"{MEMORIES}/{done[1]['id']}"))["metadata"] == {"topic": "travel"}
    # What is known is not another memory; somebody else's is.
    again = (await w.post(MEMORIES, BODY))["results"]
    assert [(m["id"], m["event"]) for m in again] == [(m["id"], "NONE") for m in done]
    other = (await w.post(MEMORIES, {**BODY, "user_id": "bo"}))["results"]
    assert {m["event"] for m in other} == {"ADD"}
    assert len((await w.get(f"{MEMORIES}?user_id=al"))["results"]) == 2


async def test_a_key_holds_when_the_model_says_it_otherwise(both: tuple[World, Fake]) -> None:
    w, model = both
    key = {"Idempotency-Key": "k"}
    say(model, "Al likes fjords.")
    one = (await w.post(MEMORIES, BODY, 200, key))["results"]
    say(model, "Al is fond of fjords.")
    two = (await w.post(MEMORIES, BODY, 200, key))["results"]
    assert [m["id"] for m in two] == [m["id"] for m in one]
    assert len((await w.get(f"{MEMORIES}?user_id=al"))["results"]) == 1
    await w.post(MEMORIES, {**BODY, "run_id": "r"}, 409, key)


async def test_under_a_key_the_facts_are_those_of_the_first_time(both: tuple[World, Fake]) -> None:
    w, model = both
    key = {"Idempotency-Key": "k"}
    say(model, "Al likes fjords.", "Al is tall.")
    one = (await w.post(MEMORIES, BODY, 200, key))["results"]
    asked = len(model.seen)
    say(model, "Al is fond of fjords.", "Al is a tall man.", "Al lives by the sea.")
    two = (await w.post(MEMORIES, BODY, 200, key))["results"]
    assert two == one
    assert len(model.seen) == asked, "nobody is asked what is known"
    assert len((await w.get(f"{MEMORIES}?user_id=al"))["results"]) == 2


@pytest.mark.parametrize("key", [None, {"Idempotency-Key": "k"}])
async def test_two_at_once_remember_once(
    both: tuple[World, Fake], key: dict[str, str] | None
) -> None:
    w, model = both
    say(model, "Al likes fjords.", "Al is tall.")
    answers = await asyncio.gather(*(w.post(MEMORIES, BODY, 200, key) for _ in range(4)))
    ids = {tuple(m["id"] for m in answer["results"]) for answer in answers}
    assert len(ids) == 1
    assert len((await w.get(f"{MEMORIES}?user_id=al"))["results"]) == 2


async def test_what_came_from_recall_is_not_remembered_again(both: tuple[World, Fake]) -> None:
    w, model = both
    say(model, "Al likes fjords.", "Al is tall.")
    done = (await w.post(MEMORIES, BODY))["results"]
    found = await w.post("/mem0/search", {"query": "fjords", "user_id": "al", "threshold": 0})
    told = [m["memory"] for m in found["results"]]
    asked = len(model.seen)
    # Marked by the client, or put into a prompt as lists mostly are.
    prompt = "What you know:\n" + "".join(f"- {memory}\n" for memory in told)
    messages = [
        {"role": "assistant", "content": "They say: " + told[0], "recalled": True},
        {"role": "user", "content": f"{prompt}1. {told[0]}\nWhere shall I go?"},
        {"role": "assistant", "content": told[1]},
    ]
    say(model, "Al plans a trip.")
    later = (await w.post(MEMORIES, {**BODY, "messages": messages, "run_id": "r"}))["results"]
    assert [(m["event"], m["memory"]) for m in later if m["event"] == "ADD"] == [
        ("ADD", "Al plans a trip.")
    ]
    assert {m["id"] for m in later if m["event"] == "NONE"} == {m["id"] for m in done}
    (seen,) = model.seen[asked:]
    question = seen.body["messages"][1]["content"]
    assert question == "Conversation:\nuser: What you know:\nWhere shall I go?"
    # Where nothing else was said, nobody is asked.
    only = [{"role": "user", "content": told[1]}, {**messages[0], "content": "new, it seems"}]
    nothing = (await w.post(MEMORIES, {**BODY, "messages": only}))["results"]
    assert [m["event"] for m in nothing] == ["NONE"]
    plain = {"messages": [messages[0]], "user_id": "al", "infer": False}
    assert (await w.post(MEMORIES, plain))["results"] == []
    assert len(model.seen) == asked + 1
    # Another's memory is no recall.
    say(model, "Bo likes fjords.")
    await w.post(MEMORIES, {**BODY, "messages": [messages[2]], "user_id": "bo"})
    assert told[1] in model.seen[-1].body["messages"][1]["content"]


async def test_a_conversation_that_is_too_long_is_the_callers_error(tmp_path: Path) -> None:
    config = make_config(
        tmp_path,
        embedd={"default_model": "fake"},
        fake_ollama={"models": MODELS},
        chatd={"max_body_bytes": 2000},
    )
    async with (
        running(create_chatd(config)) as chatd,
        embedd_running(config) as switch,
        pathwayd(config, switch, chatd=chatd) as w,
    ):
        for length in (1000, 300_000):
            error = (await w.post(MEMORIES, {**BODY, "messages": "long " * length}, 413))["error"]
            assert "several requests" in error["message"]
            assert ("characters" in error["message"]) is (length > 1000)


async def test_no_facts_and_no_model(both: tuple[World, Fake]) -> None:
    w, model = both
    say(model)
    assert (await w.post(MEMORIES, BODY))["results"] == []
    model.said = Said(pieces=("I would rather not.",))
    before = len(model.seen)
    error = (await w.post(MEMORIES, BODY, 503))["error"]
    assert "no list of facts" in error["message"]
    assert len(model.seen) == before + 2
    for reply in (json_reply({"error": {"message": "x"}}, 404), Reply(raw=b"")):
        model.always = reply
        said: Any = (await w.post(MEMORIES, BODY, 503))["error"]["message"]
        assert "infer=false" in said
    assert (await w.get(f"{MEMORIES}?user_id=al"))["results"] == []
    # A bad request is told before a model is asked.
    before = len(model.seen)
    await w.post(MEMORIES, {**BODY, "expiration_date": "soon"}, 400)
    assert len(model.seen) == before
