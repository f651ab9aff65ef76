"""Dead letters over ASGI: what a peer did not take waits, is tried again, and counts once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.observerd.core.events import letters as core
from services.observerd.store import letters as store
from services.observerd.store.letters import Letters
from shared.errors import InsufficientStorage
from tests.service.test_observerd_judging import CASE, SCORE, Embedder
from tests.service.test_observerd_judging import observed as judged
from tests.service.test_observerd_refine import REFINER, RIGHT, SPEC, Matrix
from tests.service.test_observerd_refine import observed as refined

pytestmark = pytest.mark.anyio

LETTERS = "/observer/letters"


async def score(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await client.post(SCORE, json={**CASE, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def waiting(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    return (await client.get(LETTERS, params=query)).json()["letters"]


async def figures(client: httpx.AsyncClient) -> dict[str, int]:
    return (await client.get("/observer/stats")).json()["letters"]


async def test_a_failed_scoring_waits_over_a_restart_and_its_replay_counts_once(
    tmp_path: Path,
) -> None:
    embedder = Embedder()
    async with judged(tmp_path, embedder) as client:
        embedder.broken = "down"
        found = await score(client)
        assert (found["verdict"], found["scorer_status"]) == ("needs_human_review", "error")
        again = await score(client)
        assert again["letter"] == found["letter"]
        (letter,) = await waiting(client)
        assert letter["id"] == found["letter"]
        assert (letter["kind"], letter["run_id"], letter["attempts"]) == ("score", "r1", 2)
        assert (letter["error"], "away" in letter["message"]) == ("error", True)
        whole = (await client.get(f"{LETTERS}/{letter['id']}")).json()
        assert whole["work"]["answer"] == CASE["answer"]
        failed = (await client.post(f"{LETTERS}/{letter['id']}/replay")).json()
        assert (failed["settled"], failed["error"]) == (False, "unavailable")
    embedder.broken = ""
    async with judged(tmp_path, embedder) as client:
        (letter,) = await waiting(client)
        assert letter["attempts"] == 3
        done = (await client.post(f"{LETTERS}/{letter['id']}/replay")).json()
        assert done["settled"]
        assert done["result"]["scorer_status"] == "ok"
        twice = (await client.post(f"{LETTERS}/{letter['id']}/replay")).json()
        assert twice == {**done, "already": True}
        run = (await client.get("/observer/runs/r1")).json()
        assert run["events"] == 1
        assert run["verdicts"] == {done["result"]["verdict"]: 1}
        assert await waiting(client) == []
        assert (await figures(client)) == {
            "waiting": 0, "bytes": 0, "kept": 1, "replayed": 1, "discarded": 0, "refused": 0,
        }  # fmt: skip
    async with judged(tmp_path, embedder) as client:
        assert (await client.post(f"{LETTERS}/{letter['id']}/replay")).json() == twice


async def test_work_that_succeeds_elsewhere_has_no_letter_any_more(tmp_path: Path) -> None:
    embedder = Embedder()
    async with judged(tmp_path, embedder) as client:
        embedder.broken = "down"
        assert (await score(client))["letter"]
        embedder.broken = ""
        assert (await score(client))["letter"] is None
        assert await waiting(client) == []


async def test_a_hiccup_is_tried_again_before_it_is_a_letter(tmp_path: Path) -> None:
    embedder = Embedder()
    async with judged(tmp_path, embedder) as client:
        embedder.broken = "down"
        asked = asyncio.ensure_future(score(client))
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            while not asked.done() and embedder.broken:
                await asyncio.sleep(0.02)
                embedder.broken = ""
        assert (await asked)["scorer_status"] == "ok"
        assert (await figures(client))["kept"] == 0


async def test_a_letter_is_given_up_and_stays_so(tmp_path: Path) -> None:
    embedder = Embedder()
    async with judged(tmp_path, embedder) as client:
        embedder.broken = "down"
        letter = (await score(client))["letter"]
        assert (await client.delete(f"{LETTERS}/{letter}")).status_code == 204
        assert (await client.delete(f"{LETTERS}/{letter}")).status_code == 404
        assert (await client.post(f"{LETTERS}/{letter}/replay")).status_code == 404
    async with judged(tmp_path, embedder) as client:
        assert await waiting(client) == []
        assert (await figures(client))["discarded"] == 1


async def test_a_run_that_matrixd_did_not_take_is_learnt_later_and_once(tmp_path: Path) -> None:
    matrix = Matrix()
    async with refined(tmp_path, matrix) as client:
        assert (await client.put(REFINER, json=SPEC)).status_code == 201
        matrix.down = True
        body = {"run_id": "r1", "query": "query 1", "relevant": [RIGHT]}
        refused = await client.post(f"{REFINER}/runs", json=body)
        assert refused.status_code == 503
        name = refused.json()["error"]["details"]["letter"]
        assert [one["id"] for one in await waiting(client, kind="refine")] == [name]
        assert await waiting(client, kind="score") == []
        missing = await client.post("/observer/refiners/none/runs", json=body)
        assert missing.status_code == 404
        matrix.down = False
        both = await asyncio.gather(
            client.post(f"{LETTERS}/replay", json={"kind": "refine"}),
            client.post(f"{LETTERS}/replay"),
        )
        assert sorted(one.json()["settled"] for one in both) == [0, 1]
        assert (await client.get(REFINER)).json()["runs"] == 1
        late = await client.post(f"{REFINER}/runs", json=body)
        assert late.json()["duplicate"]
        assert (await client.get(REFINER)).json()["runs"] == 1


async def test_pages_and_checkpoints_lose_no_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_CHECKPOINT_RECORDS", 3)
    embedder = Embedder()
    async with judged(tmp_path, embedder) as client:
        embedder.broken = "ragged"
        names = [(await score(client, run_id=f"r{n}"))["letter"] for n in range(7)]
    assert list(tmp_path.rglob("letters/*.ckpt"))
    async with judged(tmp_path, embedder) as client:
        first = (await client.get(LETTERS, params={"limit": 4})).json()
        rest = (await client.get(LETTERS, params={"cursor": first["next_cursor"]})).json()
        assert [one["id"] for one in first["letters"] + rest["letters"]] == names
        assert rest["next_cursor"] is None
        embedder.broken = ""
        done = (await client.post(f"{LETTERS}/replay", json={"limit": 5})).json()
        assert (done["settled"], done["waiting"]) == (5, 2)


async def test_where_there_is_no_room_the_failure_is_answered_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = Embedder()
    async with judged(tmp_path, embedder) as client:
        embedder.broken = "ragged"
        monkeypatch.setattr(core, "MOST_LETTERS", 1)
        assert (await score(client))["letter"]
        assert (await score(client, run_id="r2"))["letter"] is None

        async def full(_: Letters, __: Any) -> None:
            raise InsufficientStorage("full")

        monkeypatch.setattr(Letters, "_write", full)
        assert (await score(client))["letter"] is None
        assert (await figures(client))["refused"] == 2
