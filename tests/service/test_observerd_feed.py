"""Feeding the playbook over ASGI: what gets in, what never does, and the same run twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from services.observerd.app import create_app
from tests.support.apps import client_of, make_config, running
from tests.support.matrixd import world

pytestmark = pytest.mark.anyio

FEED = "/observer/distillation/feed"
SOURCE = "distilled:deterministic/1"
HELD = {"id": "query:h1", "prompt": "which glove is safe for welding in the rain", "answer": ""}
SHOWN = [["jobs", "d1"], ["jobs", "d2"], ["other", "d2"]]


def score(run_id: str, verdict: str = "accepted", **more: Any) -> dict[str, Any]:
    value = {"accepted": 0.9, "partially_accepted": 0.6, "rejected": 0.1}.get(verdict)
    return {
        "run_id": run_id, "scorer": "deterministic/1", "scorer_status": "ok", "verdict": verdict,
        "score": value, "raw_score": value, "reasons": ["near"],
        "evidence": ["jobs/d1"] if verdict != "rejected" else [],
        "offered": ["jobs/d1", "jobs/d2", "other/d2"], **more,
    }  # fmt: skip


def failed(run_id: str, status: str = "timeout") -> dict[str, Any]:
    return {
        "run_id": run_id, "scorer": "deterministic/1", "scorer_status": status,
        "verdict": "needs_human_review", "score": None, "raw_score": None, "reasons": ["away"],
        "evidence": [], "offered": [],
    }  # fmt: skip


def run(name: str, **more: Any) -> dict[str, Any]:
    asked = f"who repairs machine {name} in the northern hall"
    search = {
        "query": asked, "corpora": ["jobs", "other"],
        "shown": [{"corpus": c, "id": i} for c, i in SHOWN],
    }  # fmt: skip
    made = {"id": name, "question": asked, "answer": f"the fitter of {name} does", "search": search}
    return {**made, "score": score(name), "parents": [f"query:{name}", "jobs/d1"], **more}


class Playbook:
    """Stands in for matrixd: an episode a key, durable over breaks."""

    def __init__(self) -> None:
        self.episodes: dict[str, dict[str, Any]] = {}
        self.retired: list[str] = []
        self.break_after = -1
        self.gone = ""

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/matrix/playbook")
        async def record(request: Request) -> Response:
            body, key = await request.json(), request.headers["idempotency-key"]
            if any(one["id"] == self.gone for one in body["ratings"]):
                return refuse(422, "unprocessable", "no such document")
            held = self.episodes.get(key)
            name = f"ep-{key}"
            if held is not None and held != body:
                return refuse(409, "conflict", "another", {"episode_id": name})
            self.episodes[key] = body
            if self.break_after == 0:
                # It is recorded, and the answer is lost.
                return refuse(503, "unavailable", "gone")
            self.break_after -= 1
            return Response(
                httpx.Response(
                    200,
                    json={"episode_id": name, "duplicate": held is not None, "seq": 1,
                          "retired": name in self.retired, "recorded_at": "t"},
                ).content
            )  # fmt: skip

        @app.get("/matrix/playbook")
        async def list_episodes(source: str, run_id: str) -> Any:
            found = [
                {"episode_id": f"ep-{key}", "seq": 1, "query": body["query"], "ratings": [],
                 "source": body["source"], "run_id": body["run_id"], "corpora": [], "models": [],
                 "recorded_at": "t", "retired_at": "t" if f"ep-{key}" in self.retired else None}
                for key, body in self.episodes.items()
                if (body["source"], body["run_id"]) == (source, run_id)
            ]  # fmt: skip
            return {"episodes": found, "total": 1, "retired": 0, "sources": {}}

        @app.post("/matrix/playbook/retire")
        async def retire(request: Request) -> Any:
            names = (await request.json())["episode_ids"]
            self.retired += names
            return {"retired": len(names), "already": 0, "episode_ids": names}

        return app


def refuse(status: int, code: str, message: str, details: Any = None) -> Response:
    error = {"code": code, "message": message, "details": details or {}}
    return Response(httpx.Response(status, json={"error": error}).content, status)


@asynccontextmanager
async def observed(folder: Path, playbook: Playbook) -> AsyncGenerator[httpx.AsyncClient]:
    async with running(playbook.app()) as transport:
        app = create_app(make_config(folder), transports={"matrixd": transport})
        async with client_of(app) as client:
            yield client


async def feed(client: httpx.AsyncClient, *runs: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"runs": list(runs), "held_out": [HELD], "coverage_floor": 0.0, **more}
    answer = await client.post(FEED, json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert len(found["recorded"]) + len(found["withheld"]) == len(runs)
    return found


async def test_an_accepted_run_is_recorded_once_under_its_scorers_own_source(
    tmp_path: Path,
) -> None:
    playbook = Playbook()
    async with observed(tmp_path, playbook) as client:
        tried = run("r2", task="t", score=score("r2", "rejected"), parents=["jobs/d2"])
        first = await feed(client, run("r1", task="t"), tried)
        assert first["reasons"] == {"verdict: rejected": 1}
        made = first["recorded"][0]
        assert (made["source"], made["helped"], made["duplicate"]) == (SOURCE, ["jobs/d1"], False)
        # What only a rejected attempt at the same task was made from counts against it.
        assert made["harmed"] == ["jobs/d2"]
        again = await feed(client, run("r1", task="t"), tried)
        assert again["recorded"][0] == {**made, "duplicate": True}
        (episode,) = playbook.episodes.values()
        assert episode == {
            "query": run("r1")["question"],
            "ratings": [
                {"corpus": "jobs", "id": "d1", "rating": 1},
                {"corpus": "jobs", "id": "d2", "rating": -1},
            ],
            "source": SOURCE,
            "run_id": "t",
            "corpora": ["jobs", "other"],
        }
        seen = (await client.get("/observer/events", params={"run_id": "t"})).json()["events"]
        verdicts = {one["event"]["node_id"]: one["event"]["verdict"] for one in seen}
        assert (len(seen), verdicts) == (2, {"r1": "accepted", "r2": "rejected"})
        assert seen[0]["event"]["attributes"]["episode_id"] == made["episode_id"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": HELD["prompt"]}, "stopped: exact"),
        ({"answer": f"I heard {HELD['prompt']} and do not know"}, "stopped: "),
        ({"parents": ["query:h1", "jobs/d1"]}, "stopped: lineage"),
        ({"parents": ["chat:7", "jobs/d1"]}, "stopped: lineage"),
        ({"parents": None}, "quarantined: lineage"),
        (
            {
                "search": {
                    "query": HELD["prompt"],
                    "shown": [{"corpus": "jobs", "id": "d1"}],
                }
            },
            "stopped: exact",
        ),
    ],
)
async def test_what_is_held_out_never_gets_in_and_leaves_no_text(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    playbook = Playbook()
    async with observed(tmp_path, playbook) as client:
        found = await feed(
            client, run("r1", **change), parents={"chat:7": ["query:h1"], "query:h1": []}
        )
        assert found["recorded"] == []
        assert found["withheld"][0]["reason"].startswith(reason)
        assert found["withheld"][0]["hits"]
        assert playbook.episodes == {}
        (event,) = (await client.get("/observer/events", params={"run_id": "r1"})).json()["events"]
        assert event["event"]["attributes"]["held_out"] is True
        assert {"inputs", "outputs"} & event["event"].keys() == set()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"score": None}, "unobserved"),
        ({"score": failed("r1")}, "unscored: timeout"),
        ({"score": score("r1", "rejected")}, "verdict: rejected"),
        ({"score": score("r1", "partially_accepted")}, "verdict: partially_accepted"),
        ({"score": score("r1", "needs_human_review", raw_score=0.5)}, "verdict: needs_human"),
        ({"search": None}, "search unknown"),
        ({"parents": ["query:r1"]}, "made from nothing that the search showed"),
        # The id alone names two documents, so it names none.
        ({"parents": ["d2"]}, "made from nothing that the search showed"),
        # The scorer saw it and did not rest on it.
        ({"parents": ["jobs/d2"]}, "made from nothing that the search showed"),
    ],
)
async def test_what_is_not_accepted_or_not_known_is_told_and_not_recorded(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    playbook = Playbook()
    async with observed(tmp_path, playbook) as client:
        found = await feed(client, run("r1", **change), run("r2"))
        assert found["withheld"][0]["reason"].startswith(reason)
        assert [one["run"] for one in found["recorded"]] == ["r2"]
        assert len(playbook.episodes) == 1


async def test_a_policy_lets_partial_answers_in_and_too_few_scores_let_nothing_in(
    tmp_path: Path,
) -> None:
    playbook = Playbook()
    async with observed(tmp_path, playbook) as client:
        partial = run("r1", score=score("r1", "partially_accepted"))
        found = await feed(client, partial, policy="accepted_and_partial", label="night")
        assert found["recorded"][0]["source"] == f"{SOURCE}/night"
        body = {"runs": [run("r2"), run("r3", score=failed("r3"))], "held_out": []}
        answer = await client.post(FEED, json=body)
        assert (answer.status_code, answer.json()["error"]["details"]["scored"]) == (412, 1)
        assert len(playbook.episodes) == 1


async def test_the_attempts_at_a_task_are_one_episode(tmp_path: Path) -> None:
    playbook = Playbook()
    async with observed(tmp_path, playbook) as client:
        other = score("r2", evidence=["other/d2"])
        found = await feed(
            client, run("r1", task="t"), run("r2", task="t", score=other, parents=["other/d2"])
        )
        assert [one["helped"] for one in found["recorded"]] == [["jobs/d1", "other/d2"]] * 2
        assert len(playbook.episodes) == 1
        # One attempt more does not change what was recorded, and is told.
        late = run("r3", task="t", score=score("r3", "rejected"), parents=["jobs/d2"])
        again = await feed(client, run("r1", task="t"), late)
        assert again["recorded"] == []
        assert again["withheld"][0]["reason"].startswith("its task was recorded before")


async def test_a_feed_that_broke_off_is_sent_again_and_nothing_is_there_twice(
    tmp_path: Path,
) -> None:
    playbook = Playbook()
    runs = [run(f"r{n}") for n in range(6)]
    async with observed(tmp_path, playbook) as client:
        playbook.break_after = 3
        body = {"runs": runs, "held_out": [HELD]}
        broken = await client.post(FEED, json=body)
        assert (broken.status_code, broken.json()["error"]["code"]) == (503, "unavailable")
        # Recorded without an answer; observerd has told nobody of it.
        assert len(playbook.episodes) == 4
    playbook.break_after = -1
    async with observed(tmp_path, playbook) as client:
        found = await feed(client, *runs)
        assert [one["duplicate"] for one in found["recorded"]] == [True] * 4 + [False] * 2
        assert len(playbook.episodes) == 6
        both = await asyncio.gather(feed(client, *runs), feed(client, *runs))
        assert all(len(one["recorded"]) == 6 for one in both)
        assert len(playbook.episodes) == 6
        stats = (await client.get("/observer/stats")).json()
        assert stats["by_mode"]["distillation.feed"]["by_verdict"] == {"accepted": 6}


async def test_a_feed_that_broke_off_waits_as_a_letter(tmp_path: Path) -> None:
    playbook = Playbook()
    runs = [run(f"r{n}") for n in range(6)]
    async with observed(tmp_path, playbook) as client:
        playbook.break_after = 3
        broken = await client.post(FEED, json={"runs": runs, "held_out": [HELD]})
        letter = broken.json()["error"]["details"]["letter"]
    playbook.break_after = -1
    async with observed(tmp_path, playbook) as client:
        done = (await client.post(f"/observer/letters/{letter}/replay")).json()
        assert done["settled"]
        assert len(done["result"]["recorded"]) == 6
        assert len(playbook.episodes) == 6
        assert (await client.get("/observer/letters")).json()["letters"] == []


async def test_what_turns_out_to_be_held_out_leaves_the_playbook_again(tmp_path: Path) -> None:
    playbook = Playbook()
    async with observed(tmp_path, playbook) as client:
        made = (await feed(client, run("r1")))["recorded"][0]["episode_id"]
        held = [{"id": "query:r1", "prompt": "something else entirely", "answer": ""}]
        found = await feed(client, run("r1"), held_out=held)
        assert found["withheld"][0]["withdrawn"] == [made]
        assert playbook.retired == [made]
        assert (await feed(client, run("r1"), held_out=held))["withheld"][0]["withdrawn"] == []


async def test_what_the_playbook_refuses_concerns_that_run_alone(tmp_path: Path) -> None:
    playbook = Playbook()
    playbook.gone = "d9"
    async with observed(tmp_path, playbook) as client:
        lost = run("r1", parents=["jobs/d9"], score=score("r1", offered=["x"], evidence=["x"]))
        lost["search"]["shown"].append({"corpus": "jobs", "id": "d9"})
        found = await feed(client, lost, run("r2"))
        assert found["withheld"][0]["reason"].startswith("refused by the playbook")
        assert len(found["recorded"]) == 1
        other = run("r2")
        other["search"]["query"] = "who else repairs machine r2 in the northern hall"
        again = await feed(client, other)
        assert again["withheld"][0]["reason"].startswith("its task was recorded before")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"held_out": None}, "held_out"),
        ({"runs": []}, "runs"),
        ({"runs": [run("r1"), run("r1")]}, "one id"),
        ({"runs": [run("r1", score=score("r2"))]}, "r2"),
        ({"runs": [run("r1", score=score("r1", scorer_status="error"))]}, "verdict"),
        ({"runs": [run("r1", score={"verdict": "accepted"})]}, "no score"),
        ({"runs": [run("../x")]}, "id"),
        ({"policy": "all"}, "policy"),
    ],
)
async def test_what_makes_no_sense_is_400_and_records_nothing(
    tmp_path: Path, change: dict[str, Any], word: str
) -> None:
    playbook = Playbook()
    async with observed(tmp_path, playbook) as client:
        body = {"runs": [run("r1")], "held_out": [], **change}
        if body["held_out"] is None:
            del body["held_out"]
        answer = await client.post(FEED, json=body)
        assert answer.status_code == 400, answer.text
        assert word in answer.json()["error"]["message"]
        assert playbook.episodes == {}


async def test_the_search_is_found_in_what_matrixd_reported_and_the_playbook_learns(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "matrix") as w:
        docs = [{"id": f"d{n}", "text": f"worker {n} does task {n % 7}"} for n in range(30)]
        await w.corpus("jobs", docs)
        cold = await w.search("someone for task 3", k=10)
        shown = [[hit["corpus"], hit["id"]] for hit in cold["hits"]]
        transport = w.matrix._transport
        app = create_app(make_config(tmp_path / "observer"), transports={"matrixd": transport})
        async with client_of(app) as client:
            event = {
                "run_id": "r1", "node_id": "matrix.search", "mode": "matrix.search",
                "service": "matrixd", "status": "ok", "outputs": shown,
                "inputs": {"query": "someone for task 3", "corpora": ["jobs"]},
            }  # fmt: skip
            await client.post("/observer/events", json=event)
            name = f"jobs/{shown[4][1]}"
            made = run(
                "r1",
                search=None,
                parents=[name],
                score=score("r1", evidence=[name], offered=[name]),
            )
            for duplicate in (False, True):
                found = await feed(client, made)
                assert found["recorded"][0]["duplicate"] is duplicate
        listed = (await w.matrix.get("/matrix/playbook")).json()
        assert [(one["source"], one["run_id"]) for one in listed["episodes"]] == [(SOURCE, "r1")]
        warm = await w.search("someone for task 3", k=10, use_playbook=True)
        assert warm["playbook"]["activated"]
