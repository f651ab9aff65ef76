"""observerd over ASGI: events, figures, runs put together from them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from shared.errors import InsufficientStorage
from shared.journal import Journal, replay_directory
from tests.support.observerd import observer

pytestmark = pytest.mark.anyio

EVENTS = "/observer/events"


def event(run: str = "r1", status: str = "ok", **more: Any) -> dict[str, Any]:
    return {"run_id": run, "status": status, **more}


async def test_is_alive_and_ready(tmp_path: Path) -> None:
    async with observer(tmp_path) as client:
        assert (await client.get("/health")).json()["service"] == "observerd"
        assert (await client.get("/ready")).json()["checks"]["log"] == "ok"


async def test_a_batch_and_a_single_event_are_durable_when_answered(tmp_path: Path) -> None:
    async with observer(tmp_path) as client:
        batch = {"events": [event(node_id="a"), event(node_id="b", latency_ms=12.5)]}
        answer = await client.post(EVENTS, json=batch)
        assert answer.json() == {"accepted": 2, "duplicates": 0, "seq": 2}
        one = event(node_id="c", attributes={"events": 1})
        assert (await client.post(EVENTS, json=one)).json()["seq"] == 3
        logged = [r.payload for r in replay_directory(tmp_path / "data/observerd/events")]
        assert [payload["node_id"] for payload in logged] == ["a", "b", "c"]
        assert logged[1]["latency_ms"] == 12.5


async def test_nothing_of_a_batch_with_a_bad_event_is_recorded(tmp_path: Path) -> None:
    async with observer(tmp_path, max_batch=2) as client:
        for bad in (
            {"events": [event(), event(status="fine")]},
            {"events": [event(), event(run="no spaces")]},
            {"events": [event(), event(latency=1)]},
            {"events": []},
            {"events": [event(), event(), event()]},
            event(latency_ms=-1),
            {},
        ):
            assert (await client.post(EVENTS, json=bad)).status_code == 400
        assert (await client.get("/observer/stats")).json()["log"]["last_seq"] == 0


async def test_a_repeated_id_is_recorded_once_also_after_a_restart(tmp_path: Path) -> None:
    batch = {"events": [event(id="x"), event(id="y"), event(id="x")]}
    async with observer(tmp_path) as client:
        first = (await client.post(EVENTS, json=batch)).json()
        assert (first["accepted"], first["duplicates"]) == (2, 1)
        again = await asyncio.gather(
            *(client.post(EVENTS, json={"events": [event(id="z"), event(id=f"{n}")]})
              for n in range(5))
        )  # fmt: skip
        assert sum(one.json()["accepted"] for one in again) == 6
    async with observer(tmp_path) as client:
        assert (await client.post(EVENTS, json=batch)).json()["accepted"] == 0
        assert (await client.get("/observer/stats")).json()["ring"] == 8


async def test_the_ring_evicts_and_counts_while_the_log_keeps_all(tmp_path: Path) -> None:
    async with observer(tmp_path, ring_events=10) as client:
        await client.post(EVENTS, json={"events": [event(f"r{n}", mode="m") for n in range(25)]})
        stats = (await client.get("/observer/stats")).json()
        assert (stats["ring"], stats["evicted"], stats["log"]["last_seq"]) == (10, 15, 25)
        assert stats["by_mode"]["m"]["events"] == 10
        newest = (await client.get(EVENTS, params={"limit": 3})).json()["events"]
        assert [one["seq"] for one in newest] == [23, 24, 25]
        seen: list[int] = []
        after: int | None = 0
        while after is not None:
            page = (await client.get(EVENTS, params={"after": after, "limit": 7})).json()
            seen += [one["seq"] for one in page["events"]]
            after = page["next_after"]
        assert seen == list(range(1, 26))
        old = (await client.get(EVENTS, params={"after": 0, "run_id": "r3"})).json()["events"]
        assert [one["seq"] for one in old] == [4]
        assert (await client.get("/observer/runs/r3")).status_code == 404
        # Of a run that memory still has, nobody knows whether it is whole.
        assert (await client.get("/observer/runs/r24")).json()["complete"] is None


async def test_runs_are_put_together_from_their_events(tmp_path: Path) -> None:
    async with observer(tmp_path) as client:
        events = [
            event("a", "started"),
            event("a", "error", node_id="n1", error={"type": "timeout"}, model="m"),
            event("b", "ok", node_id="n1"),
            event("a", "ok", node_id="n1", attempt=2, tokens={"prompt": 5, "completion": 7}),
            event("a", "ok", node_id="n2", scorer_status="ok", verdict="rejected", score=0.1),
            event("a", "ok"),
        ]
        await client.post(EVENTS, json={"events": events})
        run = (await client.get("/observer/runs/a")).json()
        assert (run["status"], run["events"], run["complete"]) == ("ok", 5, True)
        steps = {one["node_id"]: one for one in run["steps"]}
        assert (steps["n1"]["status"], steps["n1"]["attempts"]) == ("ok", 2)
        assert (run["verdicts"], run["prompt_tokens"]) == ({"rejected": 1}, 5)
        page = (await client.get("/observer/runs", params={"limit": 1})).json()
        assert [one["run_id"] for one in page["runs"]] == ["a"]
        rest = (await client.get("/observer/runs", params={"cursor": page["next_cursor"]})).json()
        assert [one["run_id"] for one in rest["runs"]] == ["b"]
        assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    "said",
    [
        {"verdict": "accepted", "evidence": ["e"]},
        {"verdict": "accepted", "score": 1.0, "scorer_status": "error", "evidence": ["e"]},
        {"verdict": "accepted", "score": 0.9, "scorer_status": "timeout", "evidence": ["e"]},
        {"verdict": "accepted", "score": 0.9, "scorer_status": "ok"},
        {"verdict": "accepted", "score": 1.2, "scorer_status": "ok", "evidence": ["e"]},
        {"verdict": "rejected", "score": -0.1, "scorer_status": "ok"},
        {"score": 0.5, "scorer_status": "ok"},
        {"scorer_status": "unparseable"},
    ],
)
async def test_a_failed_scorer_is_never_a_verdict(tmp_path: Path, said: dict[str, Any]) -> None:
    async with observer(tmp_path) as client:
        assert (await client.post(EVENTS, json=event(**said))).status_code == 200
        kept = (await client.get(EVENTS)).json()["events"][0]["event"]
        assert kept["verdict"] == "needs_human_review"
        assert kept["scorer_status"] != "ok"
        assert "score" not in kept
        total = (await client.get("/observer/stats")).json()["total"]
        assert (total["scored"], total["unscored"], total["coverage"]) == (0, 1, 0.0)
        assert total["accept_rate"] is None


async def test_what_could_not_be_written_is_refused_and_may_be_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> Any:
        raise InsufficientStorage("full")

    async with observer(tmp_path) as client:
        await client.post(EVENTS, json=event("before"))
        with monkeypatch.context() as patched:
            patched.setattr(Journal, "append_many", fail)
            assert (await client.post(EVENTS, json=event("after", id="x"))).status_code == 507
        assert (await client.get("/observer/runs/after")).status_code == 404
        assert (await client.post(EVENTS, json=event("after", id="x"))).json()["accepted"] == 1


async def test_own_workflow_runs_are_observed_like_any(tmp_path: Path) -> None:
    async with observer(tmp_path) as client:
        nodes = [{"id": "a", "mode": "fixture.echo", "with": {"x": 1}}]
        body = {"name": "seen", "nodes": nodes, "run_id": "own", "task_signature": "t1"}
        await client.post("/observer/workflows/runs", json=body)
        await client.get("/observer/workflows/runs/own", params={"wait": 10})
        seen: dict[str, Any] = {}

        async def look() -> bool:
            seen.update((await client.get("/observer/runs/own")).json())
            return seen.get("status") == "ok"

        async with asyncio.timeout(10):
            while not await look():
                await asyncio.sleep(0.01)
        assert [one["node_id"] for one in seen["steps"]] == ["a", None]
        stats = (await client.get("/observer/stats")).json()
        assert stats["by_task_signature"]["t1"]["by_status"] == {"ok": 2, "started": 1}


async def test_metrics_tell_events_and_evictions(tmp_path: Path) -> None:
    async with observer(tmp_path) as client:
        await client.post(EVENTS, json=event())
        text = (await client.get("/metrics")).text
        assert "lakehouse_observerd_events_total 1.0" in text
