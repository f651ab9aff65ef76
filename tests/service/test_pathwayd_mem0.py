"""pathwayd's mem0 surface over ASGI: every route as mem0's clients use it, and what is refused."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from services.pathwayd.store import ledger, memories
from tests.support.pathwayd import World, config_of, world

pytestmark = pytest.mark.anyio

MEMORIES = "/mem0/memories"


@pytest.fixture
async def w(tmp_path: Path) -> AsyncGenerator[World]:
    async with world(config_of(tmp_path)) as made:
        yield made


@pytest.fixture(scope="module")
async def still(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[World]:
    """The same for tests whose requests are all refused."""
    async with world(config_of(tmp_path_factory.mktemp("still"))) as made:
        yield made


async def remember(w: World, text: str, **more: Any) -> str:
    body = {"messages": [{"role": "user", "content": text}], "infer": False, **more}
    body.setdefault("user_id", "alice")
    return (await w.post(MEMORIES, body))["results"][0]["id"]


async def texts(w: World, query: str, filters: Any = None, **more: Any) -> list[str]:
    filters = {"user_id": "alice"} if filters is None else filters
    body = {"query": query, "filters": filters, "threshold": 0, **more}
    return [m["memory"] for m in (await w.post("/mem0/search", body))["results"]]


async def test_messages_become_memories(w: World) -> None:
    body = {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "I like fjords", "name": "al"},
            {"role": "assistant", "content": "Noted."},
        ],
        "user_id": "alice",
        "run_id": "r1",
        "metadata": {"topic": "travel"},
        "infer": False,
    }
    done = (await w.post(MEMORIES, body))["results"]
    assert [(m["memory"], m["event"], m["role"]) for m in done] == [
        ("I like fjords", "ADD", "user"),
        ("Noted.", "ADD", "assistant"),
    ]
    got = await w.get(f"{MEMORIES}/{done[0]['id']}")
    assert (got["memory"], got["user_id"], got["run_id"]) == ("I like fjords", "alice", "r1")
    assert (got["metadata"], got["actor_id"], got["agent_id"]) == ({"topic": "travel"}, "al", None)
    assert got["hash"] == hashlib.md5(b"I like fjords").hexdigest()
    assert got["updated_at"] is None
    mine = (await w.get(f"{MEMORIES}?user_id=alice"))["results"]
    assert {m["memory"] for m in mine} == {"I like fjords", "Noted."}
    assert (await w.get(f"{MEMORIES}?user_id=alice&run_id=r2"))["results"] == []
    assert len((await w.get(f"{MEMORIES}?user_id=alice&top_k=1"))["results"]) == 1
    plain = {"messages": "a plain text", "agent_id": "bot"}
    assert (await w.post(MEMORIES, plain))["results"][0]["memory"] == "a plain text"
    key = {"Idempotency-Key": "m"}
    one = await w.post(MEMORIES, body, 200, key)
    assert (await w.post(MEMORIES, body, 200, key)) == one


async def test_a_search_is_somebodys_own(w: World) -> None:
    await remember(w, "alice likes night trains")
    await remember(w, "bob likes night trains", user_id="bob")
    await remember(w, "the bot likes trains", user_id="alice", agent_id="bot")
    assert set(await texts(w, "night trains")) == {
        "alice likes night trains",
        "the bot likes trains",
    }
    body = {"query": "night trains", "user_id": "bob"}
    found = (await w.post("/mem0/search", body))["results"]
    assert [m["memory"] for m in found] == ["bob likes night trains"]
    assert 0.1 <= found[0]["score"] <= 1
    assert found[0]["score_details"] is None
    both = {"AND": [{"user_id": "alice"}, {"agent_id": {"eq": "bot"}}]}
    assert await texts(w, "trains", both) == ["the bot likes trains"]
    either = {"OR": [{"user_id": "bob"}, {"agent_id": "bot"}]}
    assert set(await texts(w, "trains", either)) == {
        "bob likes night trains",
        "the bot likes trains",
    }
    some = {"user_id": "alice", "NOT": [{"agent_id": "*"}]}
    assert await texts(w, "trains", some) == ["alice likes night trains"]
    assert len(await texts(w, "trains", {"user_id": "*"})) == 3
    assert len(await texts(w, "trains", {"user_id": {"in": ["alice", "bob"]}}, top_k=2)) == 2
    told = (await w.post("/mem0/search", {**body, "explain": True}))["results"][0]
    assert told["score_details"]["lexical_rank"] == 1


async def test_filters_look_into_metadata(w: World) -> None:
    for n, city in enumerate(["Oslo", "Bergen", "Tromsø"]):
        await remember(w, f"visited {city}", metadata={"city": city, "year": 2020 + n})
    await remember(w, "visited nothing", metadata={"a.b": 1})
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"city": "Oslo"}, {"visited Oslo"}),
        ({"city": {"ne": "Oslo"}}, {"visited Bergen", "visited Tromsø"}),
        ({"city": {"nin": ["Oslo", "Bergen"]}}, {"visited Tromsø"}),
        ({"year": {"gte": 2021}}, {"visited Bergen", "visited Tromsø"}),
        ({"year": {"lt": 2021}}, {"visited Oslo"}),
        ({"city": {"icontains": "OSL"}}, {"visited Oslo"}),
        ({"metadata.city": {"contains": "gen"}}, {"visited Bergen"}),
        ({"city": "*"}, {"visited Oslo", "visited Bergen", "visited Tromsø"}),
        ({"NOT": [{"city": "*"}]}, {"visited nothing"}),
        ({"a.b": 1}, {"visited nothing"}),
        ({"created_at": {"lt": "2020-01-01"}}, set()),
    ]
    for given, expected in cases:
        assert set(await texts(w, "visited", {"user_id": "alice", **given})) == expected, given


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"query": "x"}, "user_id"),
        ({"query": "x", "filters": {}}, "user_id"),
        ({"query": "x", "filters": {"city": "Oslo"}}, "user_id"),
        ({"query": "x", "filters": {"NOT": [{"user_id": "a"}]}}, "user_id"),
        ({"query": "x", "filters": {"OR": [{"user_id": "a"}, {"city": "b"}]}}, "user_id"),
        ({"query": "x", "filters": {"user_id": {"ne": "a"}}}, "user_id"),
        ({"query": "x", "filters": {"user_id": "a", "y": {"like": "b"}}}, "like"),
        ({"query": "x", "filters": {"AND": {"user_id": "a"}}}, "AND"),
        ({"query": "x", "filters": "user_id"}, "filters"),
        ({"query": "", "filters": {"user_id": "a"}}, "query"),
        ({"query": "x", "filters": {"user_id": "a"}, "threshold": 1.5}, "threshold"),
        ({"query": "x", "filters": {"user_id": "a"}, "top_k": 0}, "top_k"),
        ({"query": "x", "filters": {"user_id": "a"}, "top_k": 1001}, "top_k"),
        ({"query": "x", "filters": {"user_id": "a", "created_at": {"gt": "soon"}}}, "2026-12-31"),
        ({"query": "x", "user_id": "a b"}, "user_id"),
        ({"query": "x", "user_id": "a", "filters": {"user_id": "b"}}, "user_id"),
    ],
)
async def test_a_bad_search_is_400(still: World, body: dict[str, Any], says: str) -> None:
    assert says in (await still.post("/mem0/search", body, 400))["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"messages": [{"role": "user", "content": "x"}]}, 400, "user_id"),
        ({"messages": [], "user_id": "a"}, 400, "messages"),
        ({"messages": [{"role": "system", "content": "x"}], "user_id": "a"}, 400, "messages"),
        ({"messages": [{"content": "x"}], "user_id": "a"}, 400, "role"),
        ({"messages": "x", "user_id": ""}, 400, "user_id"),
        ({"messages": "x", "user_id": "a", "expiration_date": "soon"}, 400, "expiration_date"),
        ({"messages": "x", "user_id": "a", "metadata": [1]}, 400, "metadata"),
        ({"messages": "x", "user_id": "a", "infer": True}, 503, "infer=false"),
        ({"messages": "x", "infer": True}, 400, "user_id"),
    ],
)
async def test_a_bad_add_is_refused(
    still: World, body: dict[str, Any], status: int, says: str
) -> None:
    assert says in (await still.post(MEMORIES, body, status))["error"]["message"]


async def test_a_memory_is_changed_and_its_history_told(w: World) -> None:
    one = await remember(w, "lives in Oslo", metadata={"k": 1})
    url = f"{MEMORIES}/{one}"
    assert "updated" in (await w.put(url, {"text": "lives in Bergen"}))["message"]
    got = await w.get(url)
    assert (got["memory"], got["metadata"]) == ("lives in Bergen", {"k": 1})
    assert got["updated_at"] > got["created_at"]
    await w.put(url, {"metadata": {"k": 2}})
    assert (await w.get(url))["metadata"] == {"k": 2}
    assert await texts(w, "lives in") == ["lives in Bergen"]
    deleted = await w.client.delete(url)
    assert deleted.json() == {"message": "Memory deleted successfully!"}
    past = await w.get(f"{url}/history")
    assert [(r["event"], r["old_memory"], r["new_memory"], r["is_deleted"]) for r in past] == [
        ("ADD", None, "lives in Oslo", False),
        ("UPDATE", "lives in Oslo", "lives in Bergen", False),
        ("UPDATE", "lives in Bergen", "lives in Bergen", False),
        ("DELETE", "lives in Bergen", None, True),
    ]
    assert len({r["id"] for r in past}) == 4
    assert all(r["memory_id"] == one and r["role"] == "user" for r in past)
    await w.get(url, 404)
    assert await texts(w, "lives in") == []
    assert (await w.client.delete(url)).status_code == 200, "safe to repeat"
    await w.put(url, {"text": "x"}, 404)
    for body in ({}, {"text": " "}):
        await w.put(f"{MEMORIES}/{await remember(w, 'y')}", body, 400)
    assert (await w.client.delete(f"{MEMORIES}/none")).status_code == 404
    await w.get(f"{MEMORIES}/none/history", 404)


async def test_a_long_history_knows_what_was_there_before_it(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memories, "MAX_PAGE", 3)
    one = await remember(w, "v1")
    for n in range(2, 6):
        await w.put(f"{MEMORIES}/{one}", {"text": f"v{n}"})
    rows = await w.get(f"{MEMORIES}/{one}/history")
    assert [(r["event"], r["old_memory"], r["new_memory"]) for r in rows] == [
        ("UPDATE", "v2", "v3"),
        ("UPDATE", "v3", "v4"),
        ("UPDATE", "v4", "v5"),
    ]
    created = (await w.get(f"{MEMORIES}/{one}"))["created_at"]
    assert {r["created_at"] for r in rows} == {created}


async def test_a_memory_is_changed_only_as_one(w: World) -> None:
    one = await remember(w, "has a form")
    for call, path in ((w.put, ""), (w.post, "/revise")):
        refused = await call(f"/pathway/traces/{one}{path}", {"content": {}}, 409)
        assert f"PUT /mem0/memories/{one}" in refused["error"]["message"]
    assert (await w.get(f"/pathway/traces/{one}"))["surface"] == "mem0"
    assert one in await w.ids("form", filter={"surface": "mem0"})
    await w.post(f"/pathway/traces/{one}/retire", {})
    await w.get(f"{MEMORIES}/{one}", 404)


async def test_two_changes_at_once_lose_neither(w: World) -> None:
    one = await remember(w, "first", metadata={"k": 1})
    url = f"{MEMORIES}/{one}"
    answers = await asyncio.gather(
        w.client.put(url, json={"text": "second"}), w.client.put(url, json={"metadata": {"k": 2}})
    )
    got = await w.get(url)
    if [a.status_code for a in answers] == [200, 200]:
        assert (got["memory"], got["metadata"]) == ("second", {"k": 2})
    else:
        assert sorted(a.status_code for a in answers) == [200, 409]


async def test_what_has_ended_is_not_shown(w: World) -> None:
    await remember(w, "old news", expiration_date="2020-01-31")
    await remember(w, "lasting news", expiration_date="2999-01-31")
    await remember(w, "old hour", expiration_date="2020-01-31T10:00:00+02:00")
    assert await texts(w, "news") == ["lasting news"]
    assert set(await texts(w, "news", show_expired=True)) >= {"old news", "lasting news"}
    shown = (await w.get(f"{MEMORIES}?user_id=alice"))["results"]
    assert [m["memory"] for m in shown] == ["lasting news"]
    assert shown[0]["expiration_date"] == "2999-01-31"
    every = (await w.get(f"{MEMORIES}?user_id=alice&show_expired=true"))["results"]
    assert len(every) == 3
    await w.put(f"{MEMORIES}/{shown[0]['id']}", {"expiration_date": "2021-01-01"})
    assert await texts(w, "news") == []


async def test_all_of_somebodys_memories_go_together(w: World) -> None:
    for n in range(3):
        await remember(w, f"note {n}")
    await remember(w, "kept", user_id="bob")
    trace = await w.add({"task": "kept too"})
    assert (await w.client.delete(MEMORIES)).status_code == 400
    # A narrowing that is misspelt must not widen what goes.
    wrong = await w.client.delete(f"{MEMORIES}?user_id=alice&agent=x")
    assert (wrong.status_code, "agent" in wrong.text) == (400, True)
    assert len((await w.get(f"{MEMORIES}?user_id=alice"))["results"]) == 3
    gone = await w.client.delete(f"{MEMORIES}?user_id=alice")
    assert gone.json() == {"message": "All relevant memories deleted"}
    assert (await w.get(f"{MEMORIES}?user_id=alice"))["results"] == []
    # One record of the log retired all of them; a list still pages through each once.
    path, seen = "/pathway/traces?status=retired&limit=2", []
    while path:
        page = await w.get(path)
        seen += [trace["content"]["memory"] for trace in page["traces"]]
        cursor = page["cursor"]
        path = f"/pathway/traces?status=retired&limit=2&cursor={cursor}" if cursor else ""
    assert sorted(seen) == ["note 0", "note 1", "note 2"]
    assert len((await w.get(f"{MEMORIES}?user_id=bob"))["results"]) == 1
    assert (await w.post("/mem0/reset", None))["message"] == "All memories reset"
    assert (await w.get(f"{MEMORIES}?user_id=bob"))["results"] == []
    assert (await w.get(f"/pathway/traces/{trace['id']}"))["status"] == "live"
    await w.get(f"{MEMORIES}/{trace['id']}", 404)


async def test_others_have_their_turn_while_many_go(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "_TURN_S", 0.0)
    monkeypatch.setattr(ledger, "_SLICE", 2)
    for n in range(10):
        await remember(w, f"note {n}")
    state = w.app.state.parts.ledger.memory.state
    counts = state.counts
    seen: set[int] = set()

    async def look() -> None:
        while counts["retired"] < 10:
            seen.add(counts["retired"])
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    beside = [asyncio.create_task(w.add({"beside": n})) for n in range(10)]
    assert (await w.client.delete(f"{MEMORIES}?user_id=alice")).status_code == 200
    await asyncio.gather(looking, *beside)
    assert len(seen) > 2, "it was done in one go"
    path, shown = "/pathway/traces?limit=2", []
    while path:
        page = await w.get(path)
        shown += [trace["id"] for trace in page["traces"]]
        path = f"/pathway/traces?limit=2&cursor={page['cursor']}" if page["cursor"] else ""
    assert sorted(shown) == sorted(state.traces), "each is listed once"


async def test_a_reset_can_be_switched_off(tmp_path: Path) -> None:
    async with world(config_of(tmp_path, mem0_reset=False)) as w:
        one = await remember(w, "stays")
        assert "mem0_reset" in (await w.post("/mem0/reset", None, 403))["error"]["message"]
        assert (await w.get(f"{MEMORIES}/{one}"))["memory"] == "stays"


async def test_listing_needs_an_id(w: World) -> None:
    assert "user_id" in (await w.get(MEMORIES, 400))["error"]["message"]
    await w.get(f"{MEMORIES}?user_id=a&top_k=0", 400)
