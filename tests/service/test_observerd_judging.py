"""Judging and drift over ASGI: verdicts, failures that are reviews, and what is refused."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from services.observerd.app import create_app
from tests.support.apps import client_of, make_config, running
from tests.support.observerd import run_nodes

pytestmark = pytest.mark.anyio

SCORE = "/observer/distillation/score"
WORDS = "reset password settings page click link email account oak pine soil water".split()
CASE: dict[str, Any] = {
    "run_id": "r1",
    "question": "how do I reset my password on the settings page",
    "answer": "to reset your password click the reset link in the mail that the page sends you",
    "evidence": [
        {
            "id": "e1",
            "text": "the settings page sends you a mail: click the reset link in it, then choose "
            "another password for your account",
        },
        {"id": "e2", "text": "oak and pine like dry soil"},
    ],
}


class Embedder:
    """Stands in for embedd: a text's vector counts the words it knows."""

    def __init__(self) -> None:
        self.broken = ""

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/embed")
        async def embed(request: Request) -> Any:
            if self.broken == "down":
                return Response(
                    b'{"error":{"code":"unavailable","message":"away","details":{}}}', 503
                )
            texts = (await request.json())["texts"]
            vectors = [[float(text.split().count(w)) + 0.01 for w in WORDS] for text in texts]
            if self.broken == "short":
                vectors = vectors[:1]
            if self.broken == "ragged":
                vectors[0] = [1.0]
            if self.broken == "zero":
                vectors = [[0.0] * len(WORDS) for _ in texts]
            return {"model": "m", "dim": len(WORDS), "vectors": vectors, "tokens": 1}

        return app


@asynccontextmanager
async def observed(tmp_path: Path, embedder: Embedder) -> AsyncGenerator[httpx.AsyncClient]:
    async with running(embedder.app()) as transport:
        app = create_app(make_config(tmp_path), transports={"embedd": transport})
        async with client_of(app) as client:
            yield client


async def score(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await client.post(SCORE, json={**CASE, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_an_answer_is_judged_by_what_it_was_made_from(tmp_path: Path) -> None:
    async with observed(tmp_path, Embedder()) as client:
        right = await score(client)
        assert right["scorer_status"] == "ok"
        assert right["verdict"] in ("accepted", "partially_accepted")
        assert right["evidence"] == ["e1"]
        assert right["reasons"]
        wrong = await score(client, answer="oak trees want dry soil and little water")
        assert wrong["verdict"] not in ("accepted", "partially_accepted")
        assert (await score(client, answer="  "))["verdict"] == "rejected"
        unseen = await score(client, evidence=[])
        assert (unseen["verdict"], unseen["score"]) == ("needs_human_review", None)


@pytest.mark.parametrize("fault", ["down", "short", "ragged", "zero"])
async def test_a_scorer_that_fails_accepts_nothing_and_invents_no_score(
    tmp_path: Path, fault: str
) -> None:
    embedder = Embedder()
    async with observed(tmp_path, embedder) as client:
        embedder.broken = fault
        found = await score(client)
        assert found["verdict"] not in ("accepted", "partially_accepted")
        if found["scorer_status"] != "ok":
            assert (found["verdict"], found["score"]) == ("needs_human_review", None)
            assert found["reasons"]
        else:
            assert fault == "zero"
        run = await run_nodes(client, {"id": "judge", "mode": "distillation.score", "with": CASE})
        assert run["nodes"]["judge"]["output"]["verdict"] == found["verdict"]


def rows(count: int, mean: float, seed: int, prefix: str) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    return [
        {"session": f"{prefix}{n}", "values": {"score": chance.gauss(mean, 1.0)}}
        for n in range(count)
    ]


async def test_samples_that_differ_are_told_from_those_that_do_not(tmp_path: Path) -> None:
    async with observed(tmp_path, Embedder()) as client:
        body = {"reference": rows(80, 0.0, 1, "a"), "kinds": {"score": "numeric"}}

        async def ask(current: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
            sent = {**body, "current": current, **more}
            answer = await client.post("/observer/drift/distributions", json=sent)
            assert answer.status_code == 200, answer.text
            return answer.json()

        moved = await ask(rows(80, 1.5, 2, "b"))
        assert moved["status"] == "drifted"
        assert moved["findings"][0]["effect"] is not None
        assert await ask(rows(80, 1.5, 2, "b")) == moved
        assert (await ask(rows(80, 0.0, 3, "c")))["status"] == "stable"
        few = await ask(rows(9, 5.0, 4, "d"))
        assert few["status"] == "insufficient"
        assert few["findings"][0]["p_adjusted"] is None


async def test_a_scorer_that_judges_its_anchors_otherwise_has_drifted(tmp_path: Path) -> None:
    async with observed(tmp_path, Embedder()) as client:
        kinds = ("accepted", "rejected")
        steady = [
            {"id": f"a{n}", "expected": kinds[n % 2], "baseline": kinds[n % 2],
             "current": kinds[n % 2]}
            for n in range(60)
        ]  # fmt: skip
        drifted = [{**one, "current": "accepted"} for one in steady]
        for anchors, verdict in (
            (steady, "none"),
            (drifted, "judge"),
            (steady[:5], "insufficient"),
        ):
            answer = await client.post("/observer/drift/scorer", json={"anchors": anchors})
            assert (answer.status_code, answer.json()["verdict"]) == (200, verdict)
            run = await run_nodes(
                client, {"id": "d", "mode": "drift.scorer", "with": {"anchors": anchors}}
            )
            assert run["nodes"]["d"]["output"] == answer.json()


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        (SCORE, {**CASE, "run_id": ""}, "run_id"),
        (SCORE, {**CASE, "evidence": [{"id": "e"}]}, "text"),
        (SCORE, {k: v for k, v in CASE.items() if k != "answer"}, "answer"),
        ("/observer/drift/scorer", {"anchors": [{"id": "a", "expected": "x"}]}, "baseline"),
        (
            "/observer/drift/scorer",
            {"anchors": [{"id": "a", "expected": "x", "baseline": "x"}] * 2},
            "a",
        ),
        ("/observer/drift/distributions", {"reference": [], "current": [], "kinds": {}}, "kinds"),
        (
            "/observer/drift/distributions",
            {"reference": [], "current": [], "kinds": {"x": "number"}},
            "kinds",
        ),
        (
            "/observer/drift/distributions",
            {
                "reference": [{"session": f"a{n}", "values": {"x": "text"}} for n in range(40)],
                "current": [{"session": f"b{n}", "values": {"x": 1}} for n in range(40)],
                "kinds": {"x": "numeric"},
            },
            "x",
        ),
    ],
)
async def test_what_makes_no_sense_is_400(
    tmp_path: Path, path: str, body: dict[str, Any], word: str
) -> None:
    async with observed(tmp_path, Embedder()) as client:
        answer = await client.post(path, json=body)
        assert answer.status_code == 400, answer.text
        assert word in answer.json()["error"]["message"]


async def test_named_corpora_are_searched_with_the_question_and_with_the_answer(
    tmp_path: Path,
) -> None:
    asked: list[str] = []
    texts = [
        "click the reset link in the mail", "the settings page sends a mail with a link",
        "choose another password for the account", "oak and pine", "soil and water",
        CASE["answer"].upper(),
    ]  # fmt: skip

    def matrix() -> FastAPI:
        app = FastAPI()

        @app.post("/matrix/search")
        async def search(request: Request) -> Any:
            body = await request.json()
            if body["corpora"] == ["none"]:
                return Response(b'{"error":{"code":"not_found","message":"no","details":{}}}', 404)
            asked.append(body["query"])
            hits = [
                {"corpus": "help", "id": str(n), "score": 0.5, "rank": n, "text": text,
                 "metadata": {}}
                for n, text in enumerate(texts, 1)
            ]  # fmt: skip
            return {"hits": hits, "corpora": {}, "playbook": {"activated": False, "notes": []}}

        return app

    async with running(Embedder().app()) as embedd, running(matrix()) as matrixd:
        peers = {"embedd": embedd, "matrixd": matrixd}
        async with client_of(create_app(make_config(tmp_path), transports=peers)) as client:
            found = await score(client, evidence=[], corpora=["help"])
            assert asked == [CASE["question"], CASE["answer"]]
            assert found["scorer_status"] == "ok"
            # The answer itself proves nothing of itself.
            assert found["offered"] == [f"help/{n}" for n in range(1, 6)]
            assert any("nearest to the answer" in reason for reason in found["reasons"])
            missing = await client.post(SCORE, json={**CASE, "evidence": [], "corpora": ["none"]})
            assert missing.status_code == 404
            assert (await client.get("/observer/letters")).json()["letters"] == []
            asked.clear()
            given = [{"id": "n1", "text": "a mail"}]
            await score(client, corpora=["help"], neighbours=given)
            assert asked == []
