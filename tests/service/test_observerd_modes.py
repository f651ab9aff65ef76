"""The modes that other daemons carry out: what goes to them, and what becomes of the answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.observerd.app import create_app
from tests.support.apps import client_of, make_config
from tests.support.observerd import run_nodes, step

pytestmark = pytest.mark.anyio


class Fleet(httpx.AsyncBaseTransport):
    """All the other daemons: answers by path, and keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any], httpx.Headers]] = []
        self.answers: dict[str, Any] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.asked.append((request.url.path, json.loads(request.content), request.headers))
        answer = self.answers[request.url.path]
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, int):
            error = {"code": "x", "message": "no", "details": {}, "service": "s", "request_id": "r"}
            return httpx.Response(answer, json={"error": error})
        return httpx.Response(200, json=answer)


@asynccontextmanager
async def fleet(folder: Path) -> AsyncGenerator[tuple[httpx.AsyncClient, Fleet]]:
    peers = Fleet()
    names = ("matrixd", "pathwayd", "queryd", "chatd")
    app = create_app(make_config(folder), transports=dict.fromkeys(names, peers))
    async with client_of(app) as client:
        yield client, peers


HIT = {
    "corpus": "c", "id": "1", "score": 0.5, "rank": 1, "text": "t", "metadata": {"a": 1},
}  # fmt: skip


async def test_hits_go_from_search_to_relevance_to_the_playbook(tmp_path: Path) -> None:
    async with fleet(tmp_path) as (client, peers):
        peers.answers = {
            "/matrix/search": {"hits": [HIT], "corpora": {}, "playbook": {}},
            "/matrix/relevance": {"kept": [{**HIT, "relevance": 0.9}], "dropped": []},
            "/matrix/playbook": {
                "episode_id": "e",
                "seq": 1,
                "recorded_at": "t",
                "duplicate": True,
            },
            "/matrix/downgrade": {"mode": "isolated", "downgraded": True, "reason": "strong"},
        }
        rating = {"corpus": "$keep.output.kept[0].corpus", "id": "$keep.output.kept[0].id",
                  "rating": 1}  # fmt: skip
        run = await run_nodes(
            client,
            step("find", mode="matrix.search",
                 **{"with": {"query": "q", "corpora": ["c"], "k": 3}}),
            step("keep", "find", mode="matrix.relevance",
                 **{"with": {"query": "q", "candidates": "$find.output.hits"}}),
            step("note", "keep", mode="playbook.record",
                 **{"with": {"query": "q", "ratings": [rating], "source": "test"}}),
            step("gate", mode="matrix.downgrade", **{"with": {"mode": "composed", "model": "m"}}),
            run_id="story",
        )  # fmt: skip
        assert run["status"] == "completed", run
        asked = {path: body for path, body, _ in peers.asked}
        assert asked["/matrix/search"] == {"query": "q", "corpora": ["c"], "k": 3}
        assert "rank" not in asked["/matrix/relevance"]["candidates"][0]
        assert asked["/matrix/playbook"]["run_id"] == "story"
        assert asked["/matrix/playbook"]["ratings"] == [{"corpus": "c", "id": "1", "rating": 1}]
        headers = {path: headers for path, _, headers in peers.asked}
        assert headers["/matrix/playbook"]["idempotency-key"]
        assert headers["/matrix/search"]["x-request-id"] == "story.find"
        assert 0 < int(headers["/matrix/search"]["x-deadline-ms"]) <= 60_000
        # Whether it had been recorded before depends on interruptions, not on the work.
        assert "duplicate" not in run["nodes"]["note"]["output"]
        assert run["nodes"]["gate"]["output"]["downgraded"] is True


async def test_a_repeated_recording_has_the_same_key(tmp_path: Path) -> None:
    async with fleet(tmp_path) as (client, peers):
        recorded = {"episode_id": "e", "seq": 1, "recorded_at": "t"}
        peers.answers = {"/matrix/playbook": [503, recorded]}
        node = step(
            "note",
            mode="playbook.record",
            idempotent=True,
            retry={"attempts": 2, "delay_s": 1},
            **{"with": {"query": "q", "ratings": [{"corpus": "c", "id": "1", "rating": 1}]}},
        )
        run = await run_nodes(client, node)
        assert (run["status"], run["nodes"]["note"]["attempts"]) == ("completed", 2)
        assert len({headers["idempotency-key"] for _, _, headers in peers.asked}) == 1


async def test_sql_pathway_and_chat(tmp_path: Path) -> None:
    async with fleet(tmp_path) as (client, peers):
        peers.answers = {
            "/sql": {"columns": [{"name": "n", "type": "INTEGER"}], "rows": [[42]],
                     "row_count": 1, "truncated": False, "elapsed_ms": 1.5},
            "/pathway/search": {"hits": [], "mode": "hybrid", "semantic": {"status": "ok"},
                                "matched": 0},
            "/chat": {"model": "m", "provider": "p", "content": "hi", "finish_reason": "stop",
                      "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
                      "latency_ms": 9.0},
        }  # fmt: skip
        message = {"role": "user", "content": "n is $rows.output.rows[0][0]"}
        run = await run_nodes(
            client,
            step("rows", mode="sql", **{"with": {"sql": "select 42 as n"}}),
            step("past", mode="pathway.search", **{"with": {"query": "x"}}),
            step("ask", "rows", mode="chat",
                 **{"with": {"model": "tier/local_fast", "messages": [message], "max_tokens": 9}}),
            step("streams", mode="chat",
                 **{"with": {"model": "m", "messages": [message | {"content": "x"}],
                             "stream": True}}),
            run_id="asks",
        )  # fmt: skip
        assert run["nodes"]["rows"]["output"]["rows"] == [[42]]
        assert "elapsed_ms" not in run["nodes"]["rows"]["output"]
        assert run["nodes"]["past"]["output"]["matched"] == 0
        assert run["nodes"]["ask"]["output"]["content"] == "hi"
        assert run["nodes"]["streams"]["error"]["type"] == "invalid"
        sent = next(body for path, body, _ in peers.asked if path == "/chat")
        assert sent == {
            "model": "tier/local_fast",
            "messages": [{"role": "user", "content": "n is 42"}],
            "max_tokens": 9,
        }
        seen: dict[str, Any] = {}
        async with asyncio.timeout(10):
            while seen.get("prompt_tokens") != 3:
                seen = (await client.get("/observer/runs/asks")).json()
                await asyncio.sleep(0.01)
        assert (seen["completion_tokens"], "m" in seen["models"]) == (2, True)


async def test_inputs_that_turn_out_wrong_fail_the_node_and_say_where(tmp_path: Path) -> None:
    async with fleet(tmp_path) as (client, peers):
        run = await run_nodes(
            client,
            step("a", mode="fixture.echo", **{"with": {"k": "many"}}),
            step("b", "a", mode="matrix.search", retry={"attempts": 3},
                 **{"with": {"query": "q", "k": "$a.output.k"}}),
        )  # fmt: skip
        node = run["nodes"]["b"]
        assert (node["state"], node["attempts"], node["error"]["type"]) == ("failed", 1, "invalid")
        assert "matrix.search cannot take k" in node["error"]["message"]
        assert peers.asked == []
