"""Exports and audits over ASGI: the same bytes again, what stays, and the chain."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.observerd import observer

pytestmark = pytest.mark.anyio

EXPORT = "/observer/distillation/export"
BASELINES = "/observer/distillation/baselines"
HELD = {"id": "h", "prompt": "which glove is safe for welding in the rain", "answer": "none is"}
AUDIT: dict[str, Any] = {
    "held_out": "abc",
    "scorer": "deterministic/1",
    "judge": "tier/frontier_review",
    "verdicts": [{"scorer": "accepted", "judge": "accepted"}] * 30
    + [{"scorer": "accepted", "judge": "rejected"}] * 5
    + [{"scorer": "accepted"}] * 2,
}


def score(run_id: str, verdict: str = "accepted", **more: Any) -> dict[str, Any]:
    return {
        "run_id": run_id, "scorer": "deterministic/1", "scorer_status": "ok", "verdict": verdict,
        "score": 0.9, "raw_score": 0.9, "reasons": ["near"], "evidence": ["e"], "offered": ["e"],
        **more,
    }  # fmt: skip


def run(name: str, **more: Any) -> dict[str, Any]:
    prompt = f"what does worker {name} do on a rainy day at the yard"
    made = {"id": name, "prompt": prompt, "answer": f"{name} welds indoors", "parents": []}
    return {**made, "score": score(name), **more}


async def test_an_export_is_the_same_in_any_order_and_says_what_stayed(tmp_path: Path) -> None:
    runs = [run(f"r{n}") for n in range(12)]
    runs.append(run("leak", prompt=HELD["prompt"]))
    runs.append(run("child", parents=["h"]))
    runs.append(run("bad", score=score("bad", "rejected", evidence=[])))
    async with observer(tmp_path) as client:
        first = await client.post(EXPORT, json={"runs": runs, "held_out": [HELD]})
        assert first.status_code == 200, first.text
        again = await client.post(EXPORT, json={"runs": runs[::-1], "held_out": [HELD]})
        assert again.json() == first.json()
        found = first.json()
        assert {one["row"]: one["decision"] for one in found["withheld"]} == {
            "leak": "stopped",
            "child": "stopped",
        }
        rows = [json.loads(line) for line in found["files"]["chat.jsonl"].splitlines()]
        assert len(rows) == 12
        assert rows[0]["messages"][-1]["role"] == "assistant"
        assert json.loads(found["files"]["manifest.json"])["run_hash"] == found["run_hash"]
        assert sum(found["manifest"]["excluded"].values()) == 3
        other = await client.post(EXPORT, json={"runs": runs[:12], "held_out": [HELD]})
        assert other.json()["run_hash"] != found["run_hash"]


async def test_too_few_scored_runs_export_nothing(tmp_path: Path) -> None:
    runs = [run(f"r{n}", score=None if n < 3 else score(f"r{n}")) for n in range(10)]
    async with observer(tmp_path) as client:
        answer = await client.post(EXPORT, json={"runs": runs})
        assert answer.status_code == 412
        assert "files" not in answer.json()
        lax = await client.post(EXPORT, json={"runs": runs, "coverage_floor": 0.5})
        assert lax.json()["manifest"]["rows"]["chat.jsonl"]["rows"] == 7


@pytest.mark.parametrize(
    "wrong",
    [
        {"verdict": "rejected", "score": None},
        {"scorer_status": "error"},
        {"score": 0.5},
        {"raw_score": 7},
        {"evidence": []},
        {"evidence": ["unseen"]},
        {"run_id": "another"},
        {"offered": None},
    ],
)
async def test_a_score_that_cannot_be_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    async with observer(tmp_path) as client:
        answer = await client.post(EXPORT, json={"runs": [run("r", score={**score("r"), **wrong})]})
        assert answer.status_code == 400, answer.text
        twice = await client.post(EXPORT, json={"runs": [run("r"), run("r")]})
        assert twice.status_code == 400


async def test_audits_are_chained_and_survive_a_restart(tmp_path: Path) -> None:
    async with observer(tmp_path) as client:
        made = await asyncio.gather(*(client.post(BASELINES, json=AUDIT) for _ in range(4)))
        assert {one.json()["seq"] for one in made} == {1}
        metrics = made[0].json()["metrics"]
        assert (metrics["runs"], metrics["judged"], metrics["upheld"]) == (37, 35, 30)
        second = await client.post(BASELINES, json={**AUDIT, "judge": "tier/cloud_judge"})
        assert second.json()["prev"] == made[0].json()["hash"]
        before = (await client.get(BASELINES)).json()
        assert (len(before["baselines"]), before["problems"]) == (2, [])
        few = await client.post(BASELINES, json={**AUDIT, "runs": 3})
        assert few.status_code == 400
        none = await client.post(BASELINES, json={**AUDIT, "verdicts": []})
        assert none.status_code == 400
    async with observer(tmp_path) as client:
        assert (await client.get(BASELINES)).json() == before
        assert (await client.post(BASELINES, json=AUDIT)).json()["seq"] == 3
