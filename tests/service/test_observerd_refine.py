"""Config refinement over ASGI, beside a matrixd that tests direct."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.refining import REFINER, RIGHT, SPEC, Matrix, observed

pytestmark = pytest.mark.anyio


async def learn(client: httpx.AsyncClient, number: int, **more: Any) -> dict[str, Any]:
    body = {"run_id": f"r{number}", "query": f"query {number}", "relevant": [RIGHT], **more}
    answer = await client.post(f"{REFINER}/runs", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def tuned(client: httpx.AsyncClient) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while not (view := (await client.get(REFINER)).json())["applied"]:
            await asyncio.sleep(0.01)
    return view


async def test_what_serves_logged_runs_better_is_promoted_applied_and_survives_a_restart(
    tmp_path: Path,
) -> None:
    matrix = Matrix()
    async with observed(tmp_path, matrix) as client:
        made = await client.put(REFINER, json=SPEC)
        assert (made.status_code, made.json()["incumbent"]) == (201, SPEC["start"])
        first = await learn(client, 0)
        assert [one["values"] for one in first["replays"]] == [
            {"lexical": 0.0, "use_playbook": False},
            {"lexical": 1.2, "use_playbook": False},
            {"lexical": 0.0, "use_playbook": True},
        ]
        assert [round(one["score"], 3) for one in first["replays"]] == [0.387, 1.0, 0.387]
        assert matrix.searches[1]["tuning"] == {"lexical": 1.2}
        decisions: list[dict[str, Any]] = []
        for number in range(1, 60):
            decisions += (await learn(client, number))["decisions"]
        assert [one["kind"] for one in decisions] == ["promoted", "dropped"]
        # What was replaced is a challenger from then on, and soon proved worse.
        assert decisions[1]["values"] == SPEC["start"]
        assert decisions[0]["values"] == {"lexical": 1.2, "use_playbook": False}
        assert decisions[0]["replaced"] == SPEC["start"]
        assert "lexical 0.0 to 1.2" in decisions[0]["reason"]
        assert decisions[0]["evidence"]["runs"] == 30
        before = await tuned(client)
        assert matrix.tunings == {"jobs": {"lexical": 1.2}}
    matrix.tunings.clear()
    asked = len(matrix.searches)
    async with observed(tmp_path, matrix) as client:
        assert await tuned(client) == before
        assert len(matrix.searches) == asked
        # Applied anew, because nobody can know whether it had been before the process ended.
        assert matrix.tunings == {"jobs": {"lexical": 1.2}}
        assert (await learn(client, 5))["duplicate"] is True


async def test_a_run_that_cannot_be_replayed_teaches_nothing_and_can_be_sent_again(
    tmp_path: Path,
) -> None:
    matrix = Matrix()
    async with observed(tmp_path, matrix) as client:
        await client.put(REFINER, json=SPEC)
        await tuned(client)
        matrix.down = True
        body = {"run_id": "r", "query": "q", "relevant": [RIGHT]}
        answer = await client.post(f"{REFINER}/runs", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert (await client.get(REFINER)).json()["runs"] == 0
        matrix.down = False
        again = (await client.post(f"{REFINER}/runs", json=body)).json()
        assert (again["duplicate"], len(again["replays"])) == (False, 3)


async def test_two_at_once_count_once(tmp_path: Path) -> None:
    async with observed(tmp_path, Matrix()) as client:
        await client.put(REFINER, json=SPEC)
        found = await asyncio.gather(*(learn(client, 1) for _ in range(8)))
        assert sorted(one["duplicate"] for one in found) == [False, *[True] * 7]
        assert (await client.get(REFINER)).json()["runs"] == 1


async def test_hands_can_freeze_thaw_and_undo(tmp_path: Path) -> None:
    matrix = Matrix()
    async with observed(tmp_path, matrix) as client:
        await client.put(REFINER, json={**SPEC, "corpora": ["jobs", "gone"]})
        frozen = (await client.post(f"{REFINER}/freeze", json={"reason": "drift"})).json()
        assert frozen["frozen"] == "drift"
        await learn(client, 1)
        assert (await client.get(REFINER)).json()["skipped"] == 1
        thawed = (await client.post(f"{REFINER}/thaw", json={"reason": "well again"})).json()
        assert thawed["frozen"] is None
        values = {"lexical": 1.2, "use_playbook": True}
        pinned = await client.post(f"{REFINER}/pin", json={"values": values, "reason": "mine"})
        assert pinned.json()["incumbent"] == values
        view = await tuned(client)
        assert [one["kind"] for one in view["decisions"]] == ["frozen", "thawed", "pinned"]
        assert matrix.tunings == {"jobs": {"lexical": 1.2}}
        assert [r["name"] for r in (await client.get("/observer/refiners")).json()["refiners"]] == [
            "jobs"
        ]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"knobs": {"lexikal": [1.0]}, "start": {"lexikal": 1.0}}, "Did you mean lexical"),
        ({"knobs": {"lexical": [1.0, 11.0]}, "start": {"lexical": 1.0}}, "0 to 10"),
        ({"knobs": {"candidates": [10.5]}, "start": {"candidates": 10.5}}, "whole numbers"),
        ({"knobs": {"use_playbook": [1, 0]}, "start": {"use_playbook": 1}}, "true and false"),
        ({"start": {"lexical": 0.5, "use_playbook": False}}, "was not declared"),
        ({"start": {"lexical": 0.0}}, "use_playbook"),
        ({"knobs": {}}, "knobs"),
        ({"corpora": []}, "corpora"),
        ({"policy": {"alpha": 0}}, "alpha"),
    ],
)
async def test_a_refiner_that_makes_no_sense_is_refused(
    tmp_path: Path, change: dict[str, Any], word: str
) -> None:
    async with observed(tmp_path, Matrix()) as client:
        answer = await client.put(REFINER, json={**SPEC, **change})
        assert answer.status_code == 400, answer.text
        assert word in answer.json()["error"]["message"]
        assert (await client.get(REFINER)).status_code == 404


async def test_the_same_spec_again_is_the_same_refiner_and_another_is_409(tmp_path: Path) -> None:
    async with observed(tmp_path, Matrix()) as client:
        assert (await client.put(REFINER, json=SPEC)).status_code == 201
        assert (await client.put(REFINER, json=SPEC)).status_code == 200
        other = await client.put(REFINER, json={**SPEC, "corpora": ["others"]})
        assert other.status_code == 409
        assert "corpora" in other.json()["error"]["details"]["differences"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("runs", {"run_id": "r", "query": "q", "relevant": []}),
        ("runs", {"run_id": "r", "query": "", "relevant": [RIGHT]}),
        ("runs", {"run_id": "r", "query": "q", "relevant": [{**RIGHT, "grade": 0}]}),
        ("pin", {"values": {"lexical": 7.0, "use_playbook": True}, "reason": "x"}),
        ("freeze", {}),
        ("thaw", {"reason": ""}),
    ],
)
async def test_what_makes_no_sense_is_400_and_changes_nothing(
    tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    async with observed(tmp_path, Matrix()) as client:
        await client.put(REFINER, json=SPEC)
        before = await tuned(client)
        assert (await client.post(f"{REFINER}/{path}", json=body)).status_code == 400
        assert (await client.get(REFINER)).json() == before
        missing = await client.post(f"/observer/refiners/nobody/{path}", json=body)
        assert missing.status_code in (400, 404)
