"""pathwayd's search over ASGI: meaning, words, filters, explanations, and embedd going away."""

from __future__ import annotations

import asyncio
import base64
import math
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from services.pathwayd.core.records import Vector, Write
from shared.clients.pathwayd import PathwaydClient
from shared.errors import Conflict, NotFound
from shared.wire.pathwayd import PathwaySearch, TraceAdd, TraceRevise, TraceUpdate
from tests.support.pathwayd import World, config_of, embedd_running, pathwayd, until, world

pytestmark = pytest.mark.anyio

STORIES: list[tuple[dict[str, Any], list[str]]] = [
    ({"task": "night nurse for a ward in Oslo", "pay": 40, "ok": True}, ["nurse", "night"]),
    ({"task": "forklift driver in Bergen", "pay": 31.5, "ok": False}, ["driver"]),
    ({"task": "welder in Oslo", "pay": 35, "where": {"city": "Oslo"}}, ["welder"]),
    ({"task": "day nurse in Bergen", "pay": 38, "where": {"city": "Bergen"}}, ["nurse"]),
    ({"task": "cook", "pay": "negotiable", "where": None}, []),
]


async def tell_stories(w: World) -> None:
    for n, (content, tags) in enumerate(STORIES):
        await w.add(content, id=f"s{n}", tags=tags)


@pytest.fixture
async def w(tmp_path: Path) -> AsyncGenerator[World]:
    async with world(config_of(tmp_path)) as made:
        await tell_stories(made)
        yield made


@pytest.fixture(scope="module")
async def still(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[World]:
    """The same for tests that only look."""
    async with world(config_of(tmp_path_factory.mktemp("still"))) as made:
        await tell_stories(made)
        yield made


async def test_meaning_and_words_both_find(w: World) -> None:
    found = await w.search("night nurse for a ward in Oslo")
    assert found["hits"][0]["id"] == "s0"
    assert (found["mode"], found["degraded"]) == ("hybrid", False)
    assert found["semantic"]["status"] == "ok"
    assert found["semantic"]["embedded"] == 5
    assert found["matched"] == 5
    scores = [h["score"] for h in found["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert [h["rank"] for h in found["hits"]] == list(range(1, len(scores) + 1))
    by_words = await w.search("welder", mode="lexical")
    assert [h["id"] for h in by_words["hits"]] == ["s2"]
    assert (by_words["semantic"]["status"], by_words["hits"][0]["semantic"]) == ("off", None)
    by_meaning = await w.search("welder in Oslo", mode="semantic", k=2)
    assert by_meaning["mode"] == "semantic"
    assert len(by_meaning["hits"]) == 2
    assert await w.ids("WÉLDER (", mode="lexical") == ["s2"], "case, accents and signs"


async def test_scores_are_explained_to_the_digit(w: World) -> None:
    found = await w.search("nurse in Oslo, please", explain=True, k=3)
    for hit in found["hits"]:
        told = hit["explain"]
        lexical = math.tanh(told["bm25"] / told["idf_sum"])
        assert told["lexical"] == pytest.approx(lexical, abs=2e-6)
        assert told["bm25"] == pytest.approx(sum(t["adds"] for t in told["terms"]), abs=1e-5)
        assert told["idf_sum"] == pytest.approx(sum(t["idf"] for t in told["terms"]), abs=1e-5)
        score = told["semantic_weight"] * max(0, told["cosine"]) + told["lexical_weight"] * lexical
        assert hit["score"] == pytest.approx(score, abs=3e-6)
        assert (hit["semantic"], hit["lexical"]) == (told["cosine"], told["lexical"])
    nurse = next(t for t in found["hits"][0]["explain"]["terms"] if t["word"] == "nurse")
    # Two of five texts hold it: ln(1 + 3.5 / 2.5).
    assert nurse["idf"] == pytest.approx(math.log(1 + 3.5 / 2.5), abs=1e-6)
    assert "explain" not in found["hits"][0] or found["hits"][0]["explain"]["semantic_rank"]


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        ({"pay": {"eq": 35}}, ["s2"]),
        ({"pay": 35.0}, ["s2"]),
        ({"pay": {"ne": 35}}, ["s0", "s1", "s3"]),
        ({"pay": {"gt": 31.5, "lte": 38}}, ["s2", "s3"]),
        ({"pay": {"gte": 38}}, ["s0", "s3"]),
        ({"pay": {"lt": "o"}}, ["s4"]),
        ({"ok": {"eq": True}}, ["s0"]),
        ({"ok": {"eq": 1}}, []),
        ({"ok": {"in": [False, 0]}}, ["s1"]),
        ({"where.city": {"eq": "Oslo"}}, ["s2"]),
        ({"content.where.city": "Bergen"}, ["s3"]),
        ({"where.city": {"nin": ["Oslo"]}}, ["s3"]),
        ({"where": {"exists": True}}, ["s2", "s3"]),
        ({"where": {"exists": False}}, ["s0", "s1", "s4"]),
        ({"task": {"contains": "nurse"}}, ["s0", "s3"]),
        ({"task": {"contains": "Nurse"}}, []),
        ({"task": {"icontains": "NURSE"}}, ["s0", "s3"]),
        ({"tags": {"contains": "nurse"}}, ["s0", "s3"]),
        ({"tags": {"icontains": "NIGHT"}}, ["s0"]),
        ({"tags": {"in": ["welder", "driver"]}}, ["s1", "s2"]),
        ({"tags": {"nin": ["nurse"]}}, ["s1", "s2", "s4"]),
        ({"id": {"in": ["s0", "s4"]}}, ["s0", "s4"]),
        ({"version": {"gt": 1}}, []),
        ({"created_at": {"gt": "2020-01-01"}}, ["s0", "s1", "s2", "s3", "s4"]),
        ({"and": [{"tags": {"contains": "nurse"}}, {"pay": {"gt": 39}}]}, ["s0"]),
        ({"or": [{"pay": 35}, {"pay": {"eq": "negotiable"}}]}, ["s2", "s4"]),
        ({"not": {"tags": {"contains": "nurse"}}}, ["s1", "s2", "s4"]),
        ({"not": {"pay": {"gt": 0}}}, ["s4"]),
        ({"or": [{"not": {"ok": {"eq": False}}}, {"pay": {"lt": 0}}]}, ["s0", "s2", "s3", "s4"]),
        ({}, ["s0", "s1", "s2", "s3", "s4"]),
    ],
)
async def test_filters_are_exact(still: World, given: dict[str, Any], ids: list[str]) -> None:
    for more in ({}, {"query": "in"}, {"query": "Oslo nurse driver cook", "mode": "semantic"}):
        answer = await still.search(filter=given, **more)
        assert answer["matched"] == len(ids)
        found = [hit["id"] for hit in answer["hits"]]
        if more == {}:
            assert (found, answer["mode"]) == (ids[::-1], "filter"), "newest first"
        elif "mode" in more:
            assert sorted(found) == ids
        else:
            assert set(found) <= set(ids)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "query"),
        ({"query": "  "}, "empty"),
        ({"query": "a", "k": 0}, "k"),
        ({"query": "a", "k": 1001}, "k"),
        ({"query": "a", "k": "ten"}, "k"),
        ({"query": "a", "mode": "magic"}, "mode"),
        ({"query": "a", "threshold": 2}, "threshold"),
        ({"query": "a", "filter": []}, "filter"),
        ({"query": "a", "filter": {"x": {"like": 1}}}, "filter.x.like"),
        ({"query": "a", "filter": {"x": {"in": "a"}}}, "filter.x.in"),
        ({"query": "a", "filter": {"x": {"gt": True}}}, "filter.x.gt"),
        ({"query": "a", "filter": {"x": None}}, "filter.x"),
        ({"query": "a", "filter": {"x": {}}}, "filter.x"),
        ({"query": "a", "filter": {"or": []}}, "filter.or"),
        ({"query": "a", "filter": {"not": 1}}, "filter.not"),
        ({"vector": [1.0, 2.0]}, "numbers"),
        ({"vector": [1.0], "mode": "lexical"}, "words"),
    ],
)
async def test_a_bad_search_is_told_what_is_wrong(
    still: World, body: dict[str, Any], says: str
) -> None:
    assert says in (await still.post("/pathway/search", body, 400))["error"]["message"]


async def test_deep_filters_are_refused(w: World) -> None:
    deep: dict[str, Any] = {"x": 1}
    for _ in range(20):
        deep = {"not": deep}
    refused = await w.post("/pathway/search", {"query": "a", "filter": deep}, 400)
    assert "deep" in refused["error"]["message"]


async def test_a_threshold_drops_what_fits_less(w: World) -> None:
    every = (await w.search("night nurse", k=5))["hits"]
    cut = every[1]["score"]
    kept = (await w.search("night nurse", k=5, threshold=cut))["hits"]
    assert [h["id"] for h in kept] == [h["id"] for h in every if h["score"] >= cut]


async def test_a_search_sees_each_change_at_once(w: World) -> None:
    await w.put("/pathway/traces/s4", {"content": {"task": "astronaut"}})
    assert await w.ids("astronaut", mode="lexical") == ["s4"]
    assert await w.ids("cook", mode="lexical") == []
    assert (await w.search("astronaut"))["hits"][0]["semantic"] == pytest.approx(1, abs=1e-3)
    assert await w.ids(filter={"task": "cook"}) == []
    await w.post("/pathway/traces/s4/retire", {})
    assert await w.ids("astronaut", mode="lexical") == []


async def test_while_embedd_is_down_nothing_is_lost(w: World) -> None:
    w.embedd.down = True
    made = await w.add({"task": "lighthouse keeper"})
    assert made["embedded"] is False
    found = await w.search("lighthouse")
    assert [h["id"] for h in found["hits"]] == [made["id"]]
    assert (found["mode"], found["degraded"]) == ("lexical", True)
    assert found["semantic"]["status"] == "unavailable"
    assert "embedd cannot be reached" in found["semantic"]["reason"]
    assert (await w.get("/pathway/stats"))["vectors"]["pending"] == 1
    w.embedd.down = False
    await w.search("anything")
    await w.until_embedded()
    assert (await w.get(f"/pathway/traces/{made['id']}"))["embedded"] is True
    found = await w.search("lighthouse keeper", mode="semantic")
    assert found["hits"][0]["id"] == made["id"]
    assert found["semantic"]["status"] == "ok"


async def test_an_embedd_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    async with world(config_of(tmp_path, embed_timeout_s=0.05, embed_wait_s=0.05)) as w:
        await w.add("first", id="first")
        w.embedd.hangs = True
        async with asyncio.timeout(2):
            assert (await w.add("second"))["embedded"] is False
            found = await w.search("first")
            assert [h["id"] for h in found["hits"]] == ["first"]
            assert "in time" in found["semantic"]["reason"]


async def test_vectors_of_the_callers_own(w: World) -> None:
    model = (await w.get("/pathway/stats"))["vectors"]["model"]
    rng = np.random.default_rng(3)
    own = rng.standard_normal((3, 256)).astype("<f4")
    sent = w.embedd.texts
    for n, vector in enumerate(own):
        given = vector.tolist() if n else base64.b64encode(vector.tobytes()).decode()
        await w.add({"n": n}, id=f"v{n}", vector=given, vector_model=model)
    assert w.embedd.texts == sent, "nothing was asked of embedd"
    found = await w.search(vector=own[1].tolist(), k=1)
    assert (found["hits"][0]["id"], found["mode"]) == ("v1", "semantic")
    assert found["hits"][0]["semantic"] == pytest.approx(1, abs=1e-4)
    both = await w.search("nurse", vector=own[2].tolist(), explain=True, k=20)
    assert {"v2", "s0"} <= {h["id"] for h in both["hits"]}
    other = {"content": 1, "vector": [1.0] * 256, "vector_model": "else/where@1"}
    assert (await w.post("/pathway/traces", other, 409))["error"]["details"]["model"] == model
    short = {"content": 1, "vector": [1.0] * 3}
    assert (await w.post("/pathway/traces", short, 400))["error"]["details"]["dim"] == 256


async def test_an_embedd_that_is_back_is_asked_at_once(tmp_path: Path) -> None:
    async with world(config_of(tmp_path, embed_wait_s=0, embed_timeout_s=0.05)) as w:
        await w.add("first", id="first")
        await w.until_embedded()
        w.embedd.hangs = True
        assert (await w.search("first"))["semantic"]["status"] == "unavailable"
        w.embedd.hangs = False
        # What the background hears of embedd, searches know too.
        await w.add("second", id="second")
        await w.until_embedded()
        assert (await w.search("second"))["semantic"]["status"] == "ok"


@pytest.mark.parametrize(
    "answer",
    [
        {"hello": "world"},
        {"model": "m", "dim": 2, "vectors": [], "tokens": 0},
        {"model": "m", "dim": 2, "vectors": [[1.0, 2.0, 3.0]], "tokens": 0},
    ],
)
async def test_what_is_not_embedd_is_not_believed(w: World, answer: dict[str, Any]) -> None:
    inner = w.embedd.inner
    w.embedd.inner = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    assert (await w.add("a giraffe", id="late"))["embedded"] is False
    found = await w.search("giraffe")
    assert ([h["id"] for h in found["hits"]][:1], found["degraded"]) == (["late"], True)
    assert "embedd" in found["semantic"]["reason"]
    w.embedd.inner = inner
    await w.until_embedded()
    assert (await w.search("giraffe"))["semantic"]["status"] == "ok"
    assert (await w.get("/pathway/stats"))["problems"] == []


async def test_the_first_vector_does_not_decide_how_long_vectors_are(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    async with embedd_running(config) as switch, pathwayd(config, switch) as w:
        short = {"content": "first", "vector": [1, 2, 3]}
        said = (await w.post("/pathway/traces", short, 400))["error"]
        assert said["details"]["dim"] == 256
        both = {"traces": [{"content": "a", "vector": [1.0] * 256}, short]}
        await w.post("/pathway/traces/batch", both, 400)
        assert (await w.client.post("/pathway/search", json={"vector": [1, 2]})).status_code == 400
        assert (await w.get("/pathway/stats"))["live"] == 0


async def test_vectors_of_a_length_that_the_model_has_not_are_made_anew(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    async with embedd_running(config) as switch:
        async with pathwayd(config, switch) as w:
            model, _ = await w.app.state.parts.embedder.find_space()
            for n in range(3):
                content = f'{{"task":"story {n}"}}'.encode()
                vector = Vector(model, np.ones(3, "<f4").tobytes())
                write = Write(
                    f"s{n}", n, "pathway", 1, content, b"", (), None, n, None, None, vector
                )
                await w.app.state.parts.ledger.commit([write])
            found = await w.search("story 2", mode="semantic")
            await w.until_embedded()
            found = await w.search("story 2", mode="semantic")
            assert (found["hits"][0]["id"], found["semantic"]["status"]) == ("s2", "ok")
        async with pathwayd(config, switch) as w:
            sent = w.embedd.texts
            found = await w.search("story 1", mode="semantic")
            assert (found["hits"][0]["id"], found["semantic"]["status"]) == ("s1", "ok")
            assert w.embedd.texts == sent + 1, "the log holds them now"


async def test_a_text_of_ones_own_is_what_is_searched(w: World) -> None:
    made = await w.add({"blob": "zzz qqq"}, text="a giraffe")
    assert await w.ids("giraffe", mode="lexical") == [made["id"]]
    assert await w.ids("qqq", mode="lexical") == []
    empty = await w.add({"blob": "zzz"}, text="")
    assert empty["embedded"] is False
    await w.until_embedded()
    assert (await w.get("/pathway/stats"))["unembeddable"] == 1


async def test_what_is_retired_is_waited_for_no_more(w: World) -> None:
    await w.add({}, id="wordless")
    await w.until_embedded()
    assert (await w.get("/pathway/stats"))["unembeddable"] == 1
    w.embedd.down = True
    await w.add("waits", id="waits")
    assert (await w.get("/pathway/stats"))["vectors"]["pending"] == 1
    for name in ("wordless", "waits"):
        await w.post(f"/pathway/traces/{name}/retire", {})
    stats = await w.get("/pathway/stats")
    assert (stats["unembeddable"], stats["vectors"]["pending"]) == (0, 0)
    assert stats["vectors"]["embedded"] == stats["live"]


async def test_another_model_embeds_all_again(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    async with embedd_running(config) as switch, pathwayd(config, switch) as w:
        for n in range(5):
            await w.add({"task": f"story {n}"}, id=f"s{n}")
        before = await w.get("/pathway/stats")
        assert before["vectors"]["embedded"] == 5
    changed = config_of(tmp_path, model="fake/other-embed")
    async with embedd_running(changed) as switch, pathwayd(changed, switch) as w:

        async def is_again() -> bool:
            vectors = (await w.get("/pathway/stats"))["vectors"]
            return vectors["model"] != before["vectors"]["model"] and not vectors["pending"]

        await w.search("story 3")
        await until(is_again)
        found = await w.search("story 3", mode="semantic")
        assert found["hits"][0]["id"] == "s3"
        assert found["semantic"]["status"] == "ok"
        assert (await w.search(vector=[1.0] * 64))["mode"] == "semantic"


async def test_the_client_speaks_all_of_it(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    async with embedd_running(config) as switch, pathwayd(config, switch) as w:
        transport = w.client._transport
        client = PathwaydClient(config, {"pathwayd": transport})
        one = await client.add(TraceAdd(content={"task": "weld"}), key="k")
        assert (await client.add(TraceAdd(content={"task": "weld"}), key="k")).duplicate
        many = await client.add_many([TraceAdd(content=1), TraceAdd(content=2)])
        assert len(many.traces) == 2
        two = await client.update(one.id, TraceUpdate(content={"task": "bend"}))
        assert (await client.get(one.id, 1)).content == {"task": "weld"}
        three = await client.revise(two.id, TraceRevise(content={"task": "cut"}))
        assert (await client.history(three.id)).chain == [three.id, one.id]
        hits = (await client.search(PathwaySearch(query="cut", mode="lexical"))).hits
        assert [hit.id for hit in hits] == [three.id]
        assert (await client.retire(three.id, "done")).status == "retired"
        assert (await client.stats()).retired == 1
        with pytest.raises(NotFound):
            await client.get("a/b")
        with pytest.raises(Conflict):
            await client.update(three.id, TraceUpdate(content=1))
        await client.aclose()


async def test_an_empty_memory_answers(tmp_path: Path) -> None:
    async with world(config_of(tmp_path)) as w:
        found = await w.search("anything")
        assert (found["hits"], found["matched"]) == ([], 0)
        assert (await w.get("/pathway/traces"))["traces"] == []
        assert (await w.get("/pathway/stats"))["live"] == 0
        assert w.embedd.texts == 0, "no model is loaded for nothing"
