"""What a search gathers over ASGI: enough documents, and from corpora that change meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.matrixd import World, gate, world

pytestmark = pytest.mark.anyio


def rows(count: int, text: str = "the welder number {n} of the yard") -> list[dict[str, Any]]:
    return [{"id": str(n), "text": text.format(n=n)} for n in range(count)]


async def replace(w: World, **changes: Any) -> dict[str, Any]:
    """The corpus `docs`, changed and built again."""
    body = {"name": "docs", "source": {"dataset": "docs"}, "id": "id", "text": "{text}", **changes}
    asked = {"replace": True, "wait": 30}
    answer = await w.matrix.post("/matrix/corpora", params=asked, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_search_under_way_while_a_corpus_is_chunked_is_answered(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.corpus("docs", rows(6))
        held = gate(w)
        held.hold("POST", "/candidates")
        body = {"query": "welder", "k": 50}
        search = asyncio.create_task(w.matrix.post("/matrix/search", json=body))
        await held.waiting.wait()
        held.held = lambda _: False
        await replace(w, chunking={"words": 8, "overlap": 2})
        held.open()
        answer = await search
        assert answer.status_code == 200, answer.text
        assert sorted(hit["id"] for hit in answer.json()["hits"]) == [str(n) for n in range(6)]


async def test_a_search_under_way_while_the_model_changes_reports_that_corpus(
    tmp_path: Path,
) -> None:
    models = {
        f"{name}-embed:latest": {"capabilities": ("embedding",), "embedding_length": length}
        for name, length in (("fake", 256), ("other", 64))
    }
    async with world(tmp_path, fake_ollama={"models": models}) as w:
        await w.corpus("docs", rows(6))
        await w.corpus("more", rows(6))
        held = gate(w)
        held.hold("POST", "/candidates", early=True)
        body = {"query": "welder", "corpora": ["docs", "more"], "use_playbook": True}
        search = asyncio.create_task(w.matrix.post("/matrix/search", json=body))
        await held.waiting.wait()
        held.held = lambda _: False
        assert (await replace(w, model="fake/other-embed"))["dim"] == 64
        held.open()
        answer = (await search).json()
        assert answer["corpora"]["docs"]["status"] == "unavailable"
        assert "model" in answer["corpora"]["docs"]["reason"]
        assert {hit["corpus"] for hit in answer["hits"]} == {"more"}


async def test_as_many_documents_come_as_are_asked_for(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.corpus("docs", rows(250))
        assert len(await w.ids("a cook", k=200)) == 200
        assert len(await w.ids("a cook", k=200, tuning={"candidates": 10})) < 30


async def test_chunks_of_one_long_document_do_not_crowd_out_the_others(tmp_path: Path) -> None:
    async with world(tmp_path, matrixd={"candidates": 10}) as w:
        long = " ".join(f"the crane inspection checklist number {n} of the yard" for n in range(60))
        docs = [{"id": "long", "text": long}, *rows(9, "crane {n}, and nothing of a checklist")]
        info = await w.corpus("docs", docs, chunking={"words": 9, "overlap": 0})
        assert info["items"] > 60
        found = await w.ids("the crane inspection checklist number of the yard", k=8)
        assert len(found) == len(set(found)) == 8


async def test_a_model_that_gives_no_answer_holds_up_its_own_corpora_alone(tmp_path: Path) -> None:
    models = {
        f"{name}-embed:latest": {"capabilities": ("embedding",)} for name in ("fake", "other")
    }
    settings = {"matrixd": {"corpus_timeout_s": 0.5}, "fake_ollama": {"models": models}}
    async with world(tmp_path, **settings) as w:
        await w.corpus("docs", rows(3))
        await w.corpus("more", rows(3), model="fake/other-embed")
        held = gate(w, "embedd")
        held.held = lambda request: b"other-embed" in request.content
        held.early = True
        found = await w.search("welder")
        held.open()
        assert found["corpora"]["docs"]["status"] == "ok"
        assert found["corpora"]["more"]["status"] == "unavailable"
        assert "within 0.5 s" in found["corpora"]["more"]["reason"]
        assert {hit["corpus"] for hit in found["hits"]} == {"docs"}
