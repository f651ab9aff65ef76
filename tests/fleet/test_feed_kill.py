"""observerd is killed while it feeds the playbook: sent again, every run is there once."""

from __future__ import annotations

import json
import random
import threading
import time
from typing import Any

import httpx
import pytest

from scripts.private_fleet import PrivateFleet

DAEMONS = (
    "gateway", "storaged", "catalogd", "ingestd", "queryd", "vectord", "embedd", "matrixd",
    "observerd",
)  # fmt: skip
RUNS, KILLS, ATTEMPTS = 40, 4, 100


def score(run_id: str, name: str) -> dict[str, Any]:
    return {
        "run_id": run_id, "scorer": "deterministic/1", "scorer_status": "ok",
        "verdict": "accepted", "score": 0.9, "raw_score": 0.9, "reasons": ["near"],
        "evidence": [name], "offered": [name],
    }  # fmt: skip


def make_run(number: int, *parents: str) -> dict[str, Any]:
    run_id, name = f"r{number}", f"kill/d{number % 10}"
    asked = f"who looks after machine number {number} tonight"
    return {
        "id": run_id, "question": asked, "answer": f"the fitter of hall {number}",
        "score": score(run_id, name), "parents": [f"query:{number}", name, *parents],
        "search": {"query": asked, "corpora": ["kill"],
                   "shown": [{"corpus": "kill", "id": f"d{number % 10}"}]},
    }  # fmt: skip


@pytest.mark.timeout(240)
def test_a_killed_feed_is_sent_again_and_nothing_is_there_twice_or_held_out() -> None:
    dice = random.Random(5)
    runs = [make_run(n) for n in range(RUNS)]
    # Made from held-out queries; a crash lets none of them in.
    runs += [make_run(n, "query:held") for n in range(RUNS, RUNS + 8)]
    held_out = [{"id": "query:held", "prompt": "which glove for wet welding", "answer": ""}]
    with PrivateFleet(DAEMONS) as fleet:
        gateway = fleet.urls["gateway"]
        client = httpx.Client(base_url=f"{gateway}/v1", timeout=60)
        lines = "\n".join(
            json.dumps({"id": f"d{n}", "text": f"fitter of machine {n}"}) for n in range(10)
        )
        client.put("/storage/objects/kill.jsonl", content=lines).raise_for_status()
        spec = {"name": "kill", "source": {"objects": "kill.jsonl"}, "id": "id", "text": "{text}"}
        client.post("/matrix/corpora?wait=60", json=spec).raise_for_status()
        body = {"runs": runs, "held_out": held_out}
        broken = 0
        for _ in range(KILLS):
            delay = dice.uniform(0.03, 0.5)
            killer = threading.Timer(delay, fleet.kill, ("observerd",))
            killer.start()
            try:
                answer = client.post("/observer/distillation/feed", json=body)
                broken += answer.status_code >= 500
            except httpx.TransportError:
                broken += 1
            killer.join()
        assert broken > 0
        for _ in range(ATTEMPTS):
            answer = client.post("/observer/distillation/feed", json=body)
            if answer.status_code == 200:
                break
            time.sleep(0.1)
        found = answer.json()
        assert len(found["recorded"]) == RUNS, answer.text
        assert found["reasons"] == {"stopped: lineage": 8}
        listed = client.get("/matrix/playbook", params={"limit": 1000, "retired": True}).json()
        assert listed["total"] == RUNS
        assert sorted(one["run_id"] for one in listed["episodes"]) == sorted(
            one["id"] for one in runs[:RUNS]
        )
        # What became of each run is on record once.
        seen = client.get("/observer/events", params={"after": 0, "limit": 1000}).json()["events"]
        fed = [one["event"] for one in seen if one["event"].get("mode") == "distillation.feed"]
        assert len(fed) == len(runs)
        client.close()
