"""Streams over ASGI: alarms, what is too little to say, and what outlives a restart."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.observerd.store import streaming
from tests.support.observerd import observer, run_nodes

pytestmark = pytest.mark.anyio

STREAMS = "/observer/drift/streams"
DICE = random.Random(4)
LOW = [float(DICE.random() < 0.2) for _ in range(400)]
HIGH = [float(DICE.random() < 0.6) for _ in range(400)]


async def feed(client: httpx.AsyncClient, name: str, values: list[float], **more: Any) -> Any:
    answer = await client.post(f"{STREAMS}/{name}/values", json={"values": values, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_stream_rings_when_its_mean_changes_and_not_before(tmp_path: Path) -> None:
    async with observer(tmp_path) as client:
        made = await client.put(f"{STREAMS}/accepts", json={"mean": 0.2, "reference_size": 500})
        assert made.status_code == 201
        assert made.json()["status"] == "insufficient"
        assert made.json()["evidence"] is None
        few = await feed(client, "accepts", LOW[:29])
        assert few["stream"]["status"] == "insufficient"
        calm = await feed(client, "accepts", LOW[29:])
        assert (calm["stream"]["status"], calm["rang"]) == ("stable", [])
        assert calm["stream"]["false_alarms_expected"] == pytest.approx(0.04)
        loud = await feed(client, "accepts", HIGH)
        assert loud["rang"][0]["direction"] == "up"
        assert 400 < loud["rang"][0]["at"] < 500
        assert loud["rang"][0]["evidence"] >= loud["stream"]["evidence_needed"]
        assert loud["stream"]["status"] == "drifted"
        listed = (await client.get(STREAMS)).json()["streams"]
        assert [(one["name"], one["status"]) for one in listed] == [("accepts", "drifted")]


async def test_an_alarm_stays_until_a_reset_which_may_name_another_mean(tmp_path: Path) -> None:
    async with observer(tmp_path) as client:
        await client.put(f"{STREAMS}/s", json={"reference": LOW})
        await feed(client, "s", HIGH)
        await feed(client, "s", LOW)
        assert (await client.get(f"{STREAMS}/s")).json()["status"] == "drifted"
        reset = await client.post(f"{STREAMS}/s/reset", json={"reason": "new model", "mean": 0.6})
        assert reset.status_code == 200
        view = reset.json()
        assert (view["status"], view["seen"], view["resets"]) == ("insufficient", 0, 1)
        for wrong in ({"mean": 0.5, "reference": LOW}, {"reference_size": 9}, {"mean": 7.0}):
            refused = await client.post(f"{STREAMS}/s/reset", json={"reason": "r", **wrong})
            assert refused.status_code == 400, refused.text
        assert view["low_mean"] == view["high_mean"] == 0.6
        assert (await feed(client, "s", HIGH))["stream"]["status"] == "stable"


async def test_a_batch_counts_once_and_all_outlives_a_restart(tmp_path: Path) -> None:
    async with observer(tmp_path) as client:
        await client.put(f"{STREAMS}/s", json={"mean": 0.2})
        first = await feed(client, "s", LOW, id="monday")
        again = await feed(client, "s", LOW, id="monday")
        assert again["duplicate"]
        assert again["stream"] == first["stream"]
        await feed(client, "s", HIGH[:20])
        before = (await client.get(f"{STREAMS}/s")).json()
    async with observer(tmp_path) as client:
        assert (await client.get(f"{STREAMS}/s")).json() == before
        assert (await feed(client, "s", LOW, id="monday"))["duplicate"]
        same = await client.put(f"{STREAMS}/s", json={"mean": 0.2})
        assert (same.status_code, same.json()) == (200, before)
        assert (await client.put(f"{STREAMS}/s", json={"mean": 0.3})).status_code == 409
        assert (await client.delete(f"{STREAMS}/s")).status_code == 204
        assert (await client.get(f"{STREAMS}/s")).status_code == 404
    async with observer(tmp_path) as client:
        assert (await client.get(STREAMS)).json() == {"streams": []}


async def test_checkpoints_take_the_place_of_old_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "_CHECKPOINT_RECORDS", 5)
    async with observer(tmp_path) as client:
        await client.put(f"{STREAMS}/s", json={"mean": 0.2})
        for at in range(23):
            await feed(client, "s", LOW[at * 10 : at * 10 + 10], id=f"b{at}")
        before = (await client.get(f"{STREAMS}/s")).json()
    assert list(tmp_path.rglob("streams/*.ckpt"))
    async with observer(tmp_path) as client:
        assert (await client.get(f"{STREAMS}/s")).json() == before
        assert (await feed(client, "s", LOW, id="b3"))["duplicate"]


async def test_two_at_once_both_count(tmp_path: Path) -> None:
    async with observer(tmp_path) as client:
        await client.put(f"{STREAMS}/s", json={"mean": 0.2})
        await asyncio.gather(*(feed(client, "s", LOW[:10], id=f"x{n % 4}") for n in range(12)))
        assert (await client.get(f"{STREAMS}/s")).json()["seen"] == 40


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "either mean or reference"),
        ({"mean": 0.2, "reference": LOW}, "either mean or reference"),
        ({"mean": 2.0}, "must lie between"),
        ({"reference": LOW[:29]}, "insufficient"),
    ],
)
async def test_what_cannot_be_watched_is_refused(
    tmp_path: Path, body: dict[str, Any], says: str
) -> None:
    async with observer(tmp_path) as client:
        answer = await client.put(f"{STREAMS}/s", json=body)
        assert answer.status_code == 400
        assert says in answer.text
        assert (await client.get(STREAMS)).json() == {"streams": []}


async def test_a_value_out_of_bounds_refuses_the_whole_batch(tmp_path: Path) -> None:
    async with observer(tmp_path) as client:
        await client.put(f"{STREAMS}/s", json={"mean": 0.2})
        answer = await client.post(f"{STREAMS}/s/values", json={"values": [0.1, 1.5]})
        assert answer.status_code == 400
        assert (await client.get(f"{STREAMS}/s")).json()["seen"] == 0


async def test_a_workflow_feeds_a_stream(tmp_path: Path) -> None:
    async with observer(tmp_path) as client:
        await client.put(f"{STREAMS}/s", json={"mean": 0.2})
        run = await run_nodes(
            client,
            {"id": "feed", "mode": "drift.stream", "with": {"stream": "s", "values": LOW}},
        )
        assert run["status"] == "completed"
        assert run["nodes"]["feed"]["output"]["stream"]["status"] == "stable"
