"""Whatever is sent to pathwayd, it answers: 4xx for what makes no sense, never 5xx."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.support.pathwayd import config_of, world

pytestmark = pytest.mark.anyio

ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 1.5, -0.0, 1e308, "", " ", "a",
    "\x00", "é" * 40, "💥", "'; drop", "../..", "*", "%", '"1"', [], [[]], [None], ["a", 1], {},
    {"": 1}, {"a": {"b": [1, {"c": None}]}}, {"user_id": "a"}, {"or": [{}]}, {"not": []},
    [1.0] * 256, [0.0] * 256, ["x"] * 3, "AAAA", {"eq": 1}, {"in": []}, {"x": {"gt": "a"}},
]  # fmt: skip
FIELDS = (
    "content tags text id dedupe vector vector_model expected_version traces reason query k filter "
    "mode threshold include_superseded explain messages user_id agent_id run_id metadata infer "
    "expiration_date filters top_k limit show_expired data role"
).split()
PATHS = [
    ("POST", "/pathway/traces"),
    ("POST", "/pathway/traces/batch"),
    ("PUT", "/pathway/traces/known"),
    ("POST", "/pathway/traces/known/revise"),
    ("POST", "/pathway/traces/known/retire"),
    ("POST", "/pathway/search"),
    ("POST", "/mem0/memories"),
    ("PUT", "/mem0/memories/known"),
    ("POST", "/mem0/search"),
    ("GET", "/pathway/traces"),
    ("GET", "/pathway/traces/known/history"),
    ("GET", "/mem0/memories"),
    ("DELETE", "/mem0/memories"),
]


def make_body(chance: random.Random) -> Any:
    if chance.random() < 0.05:
        return chance.choice(ODD)
    body = {field: chance.choice(ODD) for field in chance.sample(FIELDS, chance.randrange(6))}
    if chance.random() < 0.5:
        body.setdefault("content", {"n": chance.choice(ODD)})
    if chance.random() < 0.4:
        body.setdefault("query", "story")
    if chance.random() < 0.2:
        body["messages"] = [{"role": chance.choice(ODD), "content": chance.choice(ODD)}]
    if chance.random() < 0.2:
        body["traces"] = [{"content": chance.choice(ODD), "id": chance.choice(ODD)}]
    # Unknown fields are refused at once, which is soon known.
    if chance.random() < 0.7:
        keep = chance.choice(
            [
                {"content", "tags", "text", "id", "dedupe", "vector"},
                {"query", "k", "filter", "mode", "threshold", "vector", "explain"},
                {"messages", "user_id", "agent_id", "metadata", "infer", "expiration_date"},
                {"query", "filters", "user_id", "top_k", "threshold", "explain"},
                {"traces"},
            ]
        )
        body = {k: v for k, v in body.items() if k in keep}
    return body


@pytest.mark.parametrize("seed", range(4))
async def test_no_answer_is_a_5xx(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    statuses: dict[int, int] = {}
    async with world(config_of(tmp_path, embed_wait_s=0)) as w:
        await w.add({"task": "story"}, id="known")
        for _ in range(250):
            method, path = chance.choice(PATHS)
            data = json.dumps(make_body(chance)).encode()
            if chance.random() < 0.05:
                data = data[: chance.randrange(len(data) + 1)]
            headers = {"content-type": chance.choice(["application/json", "text/plain", ""])}
            for name in ("If-Match", "Idempotency-Key"):
                if chance.random() < 0.2:
                    headers[name] = chance.choice(['"1"', "x", "*", "", '"٣"', '"1", 2', "k" * 300])
            params = {}
            if method in ("GET", "DELETE"):
                names = chance.sample(["limit", "cursor", "tag", "status", "user_id", "top_k"], 2)
                params = {name: str(chance.choice(ODD)) for name in names}
            headers = {k: v.encode() for k, v in headers.items()}  # type: ignore[misc]
            answer = await w.client.request(
                method, path, content=data, headers=headers, params=params
            )
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            shown = (method, path, data[:300], headers, params, answer.text[:300])
            assert answer.status_code < 500, shown
            if answer.status_code >= 400:
                assert answer.json()["error"]["message"], shown
        assert (await w.get("/pathway/stats"))["problems"] == []
    assert statuses.get(400, 0) > 50
    assert sum(n for status, n in statuses.items() if status < 300) > 10
