"""Answers that are given again: only at temperature 0, only where it is asked for, at no cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.chatd.core.chat import Chat, Finish, Message, Text, TextDelta
from services.chatd.core.remembering import Answers, key_of
from tests.support.chatd import world
from tests.support.providers import Said

pytestmark = pytest.mark.anyio

PRICES = {"chat/dear": {"input": 5.0, "output": 25.0}}


async def test_the_same_chat_at_temperature_0_is_asked_once(tmp_path: Path) -> None:
    async with world(tmp_path, prices=PRICES, cache_mb=1) as w:
        w.fakes["chat"].said = Said(input=1000, output=300)
        first = (await w.chat("chat/dear", temperature=0)).json()
        again = (await w.chat("chat/dear", temperature=0.0)).json()
        assert len(w.fakes["chat"].seen) == 1
        same = ("model", "provider", "content", "finish_reason")
        assert {name: again[name] for name in same} == {name: first[name] for name in same}
        assert first["usage"]["cost_usd"] == pytest.approx(0.0125)
        assert again["usage"] == {**first["usage"], "cost_usd": 0.0}
        records = await w.records(2)
        assert [one.get("recalled", False) for one in records] == [False, True]
        report = (await w.client.get("/chat/usage")).json()
        row = report["rows"][0]
        assert (row["calls"], row["prompt_tokens"], row["unpriced_calls"]) == (2, 1000, 0)
        assert report["cost_usd"] == pytest.approx(0.0125)
        assert await w.figure("chatd_recalled_total") == 1.0


@pytest.mark.parametrize(
    "fields",
    [{}, {"temperature": 0.7}, {"temperature": 0, "stream": True}],
    ids=["absent", "warm", "streamed"],
)
async def test_what_wants_chance_or_streams_is_asked_each_time(
    tmp_path: Path, fields: dict[str, object]
) -> None:
    async with world(tmp_path, cache_mb=1) as w:
        for _ in range(2):
            assert (await w.chat("chat/m", **fields)).status_code == 200
        assert len(w.fakes["chat"].seen) == 2


async def test_nothing_is_kept_unless_asked_for_and_nothing_that_differs_is_mixed_up(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        for _ in range(2):
            await w.chat("chat/m", temperature=0)
        assert len(w.fakes["chat"].seen) == 2
    async with world(tmp_path, cache_mb=1) as w:
        await w.chat("chat/m", temperature=0)
        for text, fields in (("hi", {"max_tokens": 9}), ("ho", {}), ("hi", {"top_p": 0.5})):
            await w.chat("chat/m", text, temperature=0, **fields)
        await w.chat("chat/n", temperature=0)
        assert len(w.fakes["chat"].seen) == 5


async def test_a_failure_and_an_answer_cut_short_are_not_kept(tmp_path: Path) -> None:
    async with world(tmp_path, cache_mb=1) as w:
        w.fakes["chat"].said = Said(reason="length")
        for _ in range(2):
            await w.chat("chat/m", temperature=0)
        assert len(w.fakes["chat"].seen) == 2


def test_the_least_used_goes_first_and_none_outlives_its_time() -> None:
    def chat(text: str) -> Chat:
        return Chat("m", (Message("user", (Text(text),)),), options={"temperature": 0})

    events = [TextDelta("x" * 1000), Finish("stop")]
    kept = Answers(5000, 10.0)
    keys = [str(key_of(chat(f"q{n}"), "chat")) for n in range(3)]
    assert len(set(keys)) == 3
    for key in keys[:2]:
        kept.put(key, events, ("m", "p", "m"), now=0.0)
    assert kept.get(keys[0], 1.0) is not None
    kept.put(keys[2], events, ("m", "p", "m"), now=0.0)
    assert [kept.get(key, 1.0) is not None for key in keys] == [True, False, True]
    assert kept.get(keys[0], 10.0) is None
    kept.put(keys[1], [TextDelta("x" * 9000)], ("m", "p", "m"), now=0.0)
    assert kept.get(keys[1], 0.0) is None
    assert key_of(Chat("m", (), options={"temperature": True}), "chat") is None
