"""Daemons tell observerd how their requests went: codes and figures, no texts, no waiting."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from shared.clients.observerd import ObserverdClient
from shared.errors import Unavailable
from shared.telling import RunTeller, hash_request
from shared.wire.observerd import Event
from tests.support.apps import make_config
from tests.support.chatd import world as chatd_world
from tests.support.ingestd import run_trio
from tests.support.pathwayd import config_of
from tests.support.pathwayd import world as pathwayd_world
from tests.support.providers import json_reply
from tests.support.queryd import queryd

pytestmark = pytest.mark.anyio

SECRET = "hunter2-of-the-owner"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every event that reached observerd; none of them may hold the secret."""
    events: list[dict[str, Any]] = []

    async def record(_: ObserverdClient, batch: Sequence[dict[str, Any]]) -> None:
        for event in batch:
            Event.model_validate(event)
            assert SECRET not in json.dumps(event)
            events.append(event)

    monkeypatch.setattr(ObserverdClient, "record", record)
    return events


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    """An observerd that takes a connection and never answers."""

    async def record(_: ObserverdClient, __: Sequence[dict[str, Any]]) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(ObserverdClient, "record", record)


async def test_chats_are_told_without_a_word_of_them(
    tmp_path: Path, told: list[dict[str, Any]]
) -> None:
    async with chatd_world(tmp_path) as world:
        headers = {"x-request-id": "story-7"}
        body = {"model": "ollama/small", "messages": [{"role": "user", "content": SECRET}]}
        assert (await world.client.post("/chat", json=body, headers=headers)).status_code == 200
        world.fakes["ollama"].always = json_reply({"error": f"no {SECRET}"}, 400)
        failed = await world.chat("ollama/small", SECRET)
        assert failed.status_code >= 400
    good, bad = told
    assert (good["run_id"], good["service"], good["mode"]) == ("story-7", "chatd", "chat")
    assert (good["model"], good["status"]) == ("ollama/small", "ok")
    assert good["tokens"]["prompt"] > 0
    assert good["attributes"]["surface"] == good["task_signature"].partition(":")[2]
    assert good["latency_ms"] > 0
    assert bad["status"] == "error"
    assert set(bad["error"]) == {"type"}


async def test_queries_are_told_by_hash(tmp_path: Path, told: list[dict[str, Any]]) -> None:
    async with queryd(tmp_path) as service:
        sql = f"select '{SECRET}' as word"
        assert (await service.sql(sql)).status_code == 200
        assert (await service.sql(sql)).status_code == 200
        assert (await service.sql(f"select {SECRET!r} from nowhere")).status_code >= 400
        await service.sql("select 1")
    assert [event["status"] for event in told] == ["ok", "ok", "error", "ok"]
    assert told[0]["inputs_hash"] == told[1]["inputs_hash"] == hash_request(sql, [])
    assert told[0]["inputs_hash"] != told[3]["inputs_hash"]
    assert told[0]["attributes"]["rows"] == 1
    assert (told[0]["mode"], told[0]["service"]) == ("sql", "queryd")


async def test_ingests_are_told_with_their_counts(
    tmp_path: Path, told: list[dict[str, Any]]
) -> None:
    async with run_trio(make_config(tmp_path)) as trio:
        body = f"a,b\n1,{SECRET}\n2,y\n".encode()
        for _ in range(2):
            answer = await trio.ingestd.post("/ingest?dataset=people", content=body)
            assert answer.status_code == 200, answer.text
    first, second = told
    assert (first["mode"], first["status"]) == ("ingest", "ok")
    assert first["task_signature"] == "ingest:people"
    assert (first["attributes"]["rows_in"], first["attributes"]["duplicate"]) == (2, False)
    assert second["attributes"]["duplicate"] is True


async def test_searches_of_traces_are_told(tmp_path: Path, told: list[dict[str, Any]]) -> None:
    async with pathwayd_world(config_of(tmp_path)) as world:
        await world.until_ready()
        await world.add({"said": SECRET})
        await world.search(SECRET)
        await world.post("/pathway/search", {"filter": {"no": {"such": SECRET}}}, expect=400)
    good, bad = told
    assert (good["mode"], good["attributes"]["hits"]) == ("pathway.search", 1)
    assert (bad["status"], bad["error"]) == ("error", {"type": "invalid"})


async def test_a_hanging_observerd_costs_a_request_nothing(tmp_path: Path, hanging: None) -> None:
    async with queryd(tmp_path) as service:
        assert (await service.sql("select 1")).status_code == 200
        begun = time.monotonic()
        for _ in range(5):
            assert (await service.sql("select 1")).status_code == 200
        assert time.monotonic() - begun < 5
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 15


async def test_a_dead_observerd_costs_a_request_nothing(tmp_path: Path) -> None:
    # Nobody listens on the configured port.
    async with chatd_world(tmp_path) as world:
        for _ in range(3):
            assert (await world.chat("ollama/small")).status_code == 200
        async with asyncio.timeout(10):
            while await world.figure("lakehouse_chatd_unreported_events_total") < 3:
                await asyncio.sleep(0.02)
        assert (await world.chat("ollama/small")).status_code == 200


async def test_what_is_told_is_bounded_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def record(_: ObserverdClient, __: Sequence[dict[str, Any]]) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(ObserverdClient, "record", record)
    registry = CollectorRegistry()
    teller = RunTeller("queryd", make_config(tmp_path), registry)
    for _ in range(2500):
        teller.tell("sql", 1.0)
    await teller.aclose()
    assert registry.get_sample_value("lakehouse_queryd_unreported_events_total") == 2500


def test_a_hash_keeps_parts_apart() -> None:
    assert hash_request("ab", "c") != hash_request("a", "bc")
    assert hash_request("\ud800")
