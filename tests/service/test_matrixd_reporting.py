"""matrixd tells observerd of its searches, and is none the worse when nobody listens."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.observerd.app import create_app as create_observerd
from tests.support.apps import running
from tests.support.matrixd import world
from tests.support.vectord import Down

pytestmark = pytest.mark.anyio

ROWS = [{"id": str(n), "text": f"{word} work"} for n, word in enumerate(["dock", "ward", "yard"])]


async def test_searches_and_compositions_reach_observerd(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        await made.corpus("jobs", ROWS)
        await made.stop()
        async with running(create_observerd(made.config)) as observer:
            made.peers["observerd"] = Down(observer)
            await made.start()
            headers = {"x-request-id": "story-1"}
            body: dict[str, Any] = {"query": "dock work", "corpora": ["jobs"], "k": 2}
            await made.matrix.post("/matrix/search", json=body, headers=headers)
            asked = {"query": "dock work", "model": "tier/local_fast", "corpora": ["jobs"]}
            await made.matrix.post("/matrix/compose", json=asked, headers=headers)
            missing = {"query": "x", "corpora": ["none"]}
            refused = await made.matrix.post(
                "/matrix/search", json=missing, headers={"x-request-id": "-odd"}
            )
            assert refused.status_code == 404
            await made.stop()  # which sends what is left
            async with httpx.AsyncClient(transport=observer, base_url="http://127.0.0.1") as client:
                events = (await client.get("/observer/events")).json()["events"]
            await made.start()
    search, compose, failed = (one["event"] for one in events)
    assert (search["run_id"], search["mode"], search["status"]) == (
        "story-1",
        "matrix.search",
        "ok",
    )
    assert search["inputs"] == {**body}
    assert search["outputs"][0] == ["jobs", "0"]
    assert search["latency_ms"] > 0
    assert (compose["mode"], compose["attributes"]["mode"]) == ("matrix.compose", "composed")
    assert (failed["run_id"], failed["status"]) == ("r-odd", "error")
    assert failed["error"]["type"] == "not_found"


async def test_nobody_waits_for_an_observer_that_is_away(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        await made.corpus("jobs", ROWS)
        odd = {"query": "x", "filters": {"n": {"eq": 2**80}}}
        assert (await made.matrix.post("/matrix/search", json=odd)).status_code < 500
        for _ in range(4):
            assert (await made.search("dock work"))["hits"]
        dropped = 0.0
        async with asyncio.timeout(10):
            while dropped < 5:
                text = (await made.matrix.get("/metrics")).text
                lines = [line for line in text.split("\n") if "unreported_events_total " in line]
                dropped = float(next(line for line in lines if line[0] != "#").split()[-1])
                await asyncio.sleep(0.02)
        assert dropped == 5
