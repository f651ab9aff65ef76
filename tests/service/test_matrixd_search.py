"""Searching over ASGI: corpora merged, dead ones told, filters, and what reaches the model."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from shared.clients.matrixd import MatrixdClient
from shared.wire.matrixd import MatrixSearch
from shared.wire.matrixd_context import ComposeRequest, DowngradeRequest, RelevanceRequest
from tests.support.matrixd import World, world

pytestmark = pytest.mark.anyio

NURSES = [
    {"id": f"n{n}", "text": f"registered nurse with {skill}", "state": state}
    for n, (skill, state) in enumerate(
        [("triage", "IL"), ("wound care", "TX"), ("telemetry", "IL"), ("night shifts", "TX")]
    )
]
POLICIES = [
    {"id": f"p{n}", "text": text, "state": "IL"}
    for n, text in enumerate(
        [
            "forklift lanes must stay clear",
            "badges are worn at all times",
            "nurses sign the medication log",
            "timesheets are due on Monday",
        ]
    )
]


async def fill(w: World) -> None:
    await w.corpus("nurses", NURSES, metadata=["state"])
    await w.corpus("policies", POLICIES, metadata=["state"])


@pytest.fixture(scope="module")
async def still(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[World]:
    """For tests that only look, or are refused."""
    async with world(tmp_path_factory.mktemp("still")) as w:
        await w.corpus("nurses", NURSES)
        yield w


async def test_corpora_are_searched_as_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await fill(w)
        found = await w.search("nurse for wound care", k=6)
        assert found["hits"][0]["id"] == "n1"
        assert [hit["rank"] for hit in found["hits"]] == list(range(1, 7))
        scores = [hit["score"] for hit in found["hits"]]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)
        assert {hit["corpus"] for hit in found["hits"]} == {"nurses", "policies"}
        assert {n: a["status"] for n, a in found["corpora"].items()} == {
            "nurses": "ok",
            "policies": "ok",
        }
        assert sum(a["hits"] for a in found["corpora"].values()) == 6
        assert found["playbook"] == {"activated": False, "notes": []}
        assert await w.search("nurse for wound care", k=6) == found
        one = await w.search("timesheets", corpora=["policies"], k=1)
        assert one["hits"][0]["id"] == "p3"
        assert list(one["corpora"]) == ["policies"]


async def test_a_hit_is_explained_when_asked(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await fill(w)
        hit = (await w.search("medication log", k=1, explain=True))["hits"][0]
        assert hit["id"] == "p2"
        assert hit["explain"]["cold_rank"] == 1
        assert hit["explain"]["p0"] == hit["score"]
        assert hit["explain"]["bm25"] > 0
        assert hit["explain"]["cosine"] > 0.3
        assert (await w.search("medication log", k=1))["hits"][0]["explain"] is None


async def test_filters_hold_for_every_corpus(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await fill(w)
        for field in ("filters", "filter"):
            found = await w.search("nurse", k=20, **{field: {"state": {"eq": "TX"}}})
            assert {hit["id"] for hit in found["hits"]} == {"n1", "n3"}
        bad = await w.matrix.post(
            "/matrix/search", json={"query": "x", "filters": {"state": {"like": "x"}}}
        )
        assert (bad.status_code, "no such operator" in bad.text) == (400, True)


async def test_a_corpus_that_is_down_or_unknown_is_told_and_the_others_answer(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        await fill(w)
        found = await w.search("nurse", corpora=["nurses", "nope"])
        assert found["corpora"]["nope"]["status"] == "unknown"
        assert found["corpora"]["nurses"]["status"] == "ok"
        info = (await w.matrix.get("/matrix/corpora/policies")).json()
        import httpx

        vectord = httpx.AsyncClient(transport=w.peers["vectord"], base_url="http://127.0.0.1")
        async with vectord:
            await vectord.delete(f"/vectors/indexes/{info['index']}")
        found = await w.search("nurse")
        assert found["corpora"]["policies"]["status"] == "unavailable"
        assert "no index" in found["corpora"]["policies"]["reason"]
        assert {hit["corpus"] for hit in found["hits"]} == {"nurses"}


async def test_nothing_left_to_search_is_an_error_with_its_reason(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        none = await w.matrix.post("/matrix/search", json={"query": "x"})
        assert (none.status_code, "no corpus yet" in none.text) == (404, True)
        await fill(w)
        unknown = await w.matrix.post("/matrix/search", json={"query": "x", "corpora": ["a"]})
        assert unknown.status_code == 404
        for peer in ("vectord", "embedd"):
            w.peers[peer].down = True
            dead = await w.matrix.post("/matrix/search", json={"query": "x"})
            assert dead.status_code == 503
            assert f"{peer} cannot be reached" in dead.text
            w.peers[peer].down = False


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"query": ""},
        {"query": "  "},
        {"query": "x", "k": 0},
        {"query": "x", "k": 9999},
        {"query": "x", "corpora": []},
        {"query": "x", "corpora": "nurses"},
        {"query": "x", "corpora": [f"c{n}" for n in range(40)]},
        {"query": 7},
        {"query": "x", "filters": []},
        {"query": "x", "filters": {"state": {"eq": 2**64}}},
        {"query": "x" * 30_000},
        [],
    ],
)
async def test_searches_that_make_no_sense_are_400(still: World, body: Any) -> None:
    answer = await still.matrix.post("/matrix/search", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["service"] == "matrixd"


@pytest.mark.parametrize(
    "change",
    [
        {"corpora": ["\ud800"]},
        {"corpora": ["x" * 2000]},
        {"corpora": [""]},
        {"filters": {"state": "\ud800"}},
        {"filters": {"\ud800": "IL"}},
        {"query": "half a \ud800"},
    ],
)
@pytest.mark.parametrize("path", ["search", "compose"])
async def test_half_characters_and_impossible_names_are_400(
    tmp_path: Path, path: str, change: dict[str, Any]
) -> None:
    async with world(tmp_path, models={"weak_models": ["small"]}) as w:
        await w.corpus("nurses", NURSES)
        more = {"model": "small"} if path == "compose" else {}
        body = json.dumps({"query": "nurse", **more, **change}).encode()
        answer = await w.matrix.post(
            f"/matrix/{path}", content=body, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("query", ["\u0000 nul", '"(* AND {', "漢字 пример", "a" * 5000, "?!"])
async def test_any_words_are_a_query(still: World, query: str) -> None:
    assert len(await still.ids(query)) == 4


async def test_relevance_splits_candidates_with_a_reason_each(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        candidates = [
            {"id": "1", "text": "registered nurse for wound care, nights", "score": 0.9},
            {"id": "2", "text": "wound care nurse, registered, days", "metadata": {"a": 1}},
            {"id": "3", "text": "quarterly parking invoice of the depot"},
            {"id": "4"},
            {"id": "5", "text": "kettle descaling rota"},
        ]
        body = {"query": "registered nurse for wound care", "candidates": candidates}
        answer = await w.matrix.post("/matrix/relevance", json=body)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert [one["id"] for one in found["kept"]] == ["1", "2", "4"]
        assert found["kept"][1]["metadata"] == {"a": 1}
        assert found["kept"][2]["relevance"] is None
        assert [one["id"] for one in found["dropped"]] == ["3", "5"]
        assert all("topic" in one["reason"] for one in found["dropped"])
        assert all(one["score"] < 0.5 < kept for one in found["dropped"] for kept in [0.51])
        assert (await w.matrix.post("/matrix/relevance", json=body)).json() == found
        focus = {"focus": "registered nurse for wound care", "candidates": candidates}
        assert (await w.matrix.post("/matrix/relevance", json=focus)).json() == found
        none = await w.matrix.post("/matrix/relevance", json={"query": "x", "candidates": []})
        assert none.json() == {"kept": [], "dropped": []}


@pytest.mark.parametrize(
    "body",
    [
        {"candidates": []},
        {"query": " ", "candidates": []},
        {"query": "x"},
        {"query": "x", "candidates": [{"text": "no id"}]},
        {"query": "x", "candidates": [{"id": "1", "text": "t"}], "strictness": 2},
        {"query": "x", "candidates": [{"id": str(n), "text": "t"} for n in range(1001)]},
    ],
)
async def test_relevance_refuses_what_it_cannot_judge(still: World, body: Any) -> None:
    assert (await still.matrix.post("/matrix/relevance", json=body)).status_code == 400


async def test_downgrade_over_http(tmp_path: Path) -> None:
    async with world(tmp_path, models={"weak_models": ["small"]}) as w:
        ask = {"mode": "composed", "model": "large"}
        answer = (await w.matrix.post("/matrix/downgrade", json=ask)).json()
        assert (answer["mode"], answer["downgraded"]) == ("isolated", True)
        forced = (await w.matrix.post("/matrix/downgrade", json={**ask, "force": True})).json()
        assert (forced["mode"], forced["downgraded"]) == ("composed", False)
        weak = (await w.matrix.post("/matrix/downgrade", json={**ask, "model": "small"})).json()
        assert weak["downgraded"] is False
        assert (await w.matrix.post("/matrix/downgrade", json={"mode": "x"})).status_code == 400


async def test_compose_gives_a_weak_model_context_and_a_strong_one_the_query(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, models={"weak_models": ["small"]}) as w:
        await fill(w)
        body = {"query": "nurse for wound care", "model": "small", "token_budget": 300}
        answer = await w.matrix.post("/matrix/compose", json=body)
        assert answer.status_code == 200, answer.text
        made = answer.json()
        assert made["mode"] == "composed"
        assert made["citations"][0] == {**made["citations"][0], "number": 1, "id": "n1"}
        assert "[1] nurses/n1: registered nurse with wound care" in made["messages"][0]["content"]
        assert made["messages"][-1] == {"role": "user", "content": "nurse for wound care"}
        assert made["tokens"] <= 300
        assert {one["id"] for one in made["left_out"]} & {"p0", "p1", "p3"}
        strong = (await w.matrix.post("/matrix/compose", json={**body, "model": "large"})).json()
        assert (strong["mode"], strong["downgraded"]) == ("isolated", True)
        assert [m["role"] for m in strong["messages"]] == ["user"]
        tiny = await w.matrix.post("/matrix/compose", json={**body, "token_budget": 2})
        assert tiny.status_code == 422
        unknown = await w.matrix.post("/matrix/compose", json={**body, "corpora": ["nope"]})
        assert unknown.status_code == 404


async def test_compose_takes_no_blank_query_and_no_blank_focus(tmp_path: Path) -> None:
    async with world(tmp_path, models={"weak_models": ["small"]}) as w:
        await fill(w)
        body = {"query": "nurse for wound care", "model": "small"}
        plain = (await w.matrix.post("/matrix/compose", json=body)).json()
        blank = (await w.matrix.post("/matrix/compose", json={**body, "focus": " \n"})).json()
        assert blank == plain
        for mode in ("composed", "isolated"):
            ask = {**body, "query": " ", "mode": mode}
            assert (await w.matrix.post("/matrix/compose", json=ask)).status_code == 400


async def test_ready_and_figures_tell_what_is_there(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await fill(w)
        await w.search("nurse", corpora=["nurses", "nope"])
        ready = await w.matrix.get("/ready")
        assert ready.json()["checks"] == {"embedd": "ok", "vectord": "ok", "playbook": "ok"}
        text = (await w.matrix.get("/metrics")).text
        assert "lakehouse_matrixd_corpora 2.0" in text
        assert "lakehouse_matrixd_documents_total 8.0" in text
        assert "lakehouse_matrixd_searches_total 1.0" in text
        assert "lakehouse_matrixd_dead_corpora_total 1.0" in text
        w.peers["vectord"].down = True
        assert (await w.matrix.get("/ready")).status_code == 503


async def test_the_client_speaks_these_routes(tmp_path: Path) -> None:
    async with world(tmp_path, models={"weak_models": ["small"]}) as w:
        await fill(w)
        client = MatrixdClient(w.config, {"matrixd": w.matrix._transport})
        assert (await client.search(MatrixSearch(query="triage", k=1))).hits[0].id == "n0"
        ask = RelevanceRequest.model_validate(
            {"query": "nurse", "candidates": [{"id": "1", "text": "nurse"}]}
        )
        assert (await client.filter_relevant(ask)).kept[0].id == "1"
        gate = await client.check_downgrade(DowngradeRequest(mode="composed", model="large"))
        assert gate.downgraded
        made = await client.compose(ComposeRequest(query="triage nurse", model="small"))
        assert made.citations[0].id == "n0"
        await client.aclose()
