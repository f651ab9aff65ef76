"""vectord over ASGI beside a real storaged: every route, and what each refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from services.storaged.app import create_app as create_storaged
from services.vectord.app import create_app
from shared.clients.vectord import VectordClient
from shared.config import Config
from shared.errors import Conflict, Invalid
from shared.wire.vectord import ARROW_STREAM, IndexSpec, Query
from tests.support.apps import make_config, running

pytestmark = pytest.mark.anyio

ARROW = {"content-type": ARROW_STREAM, "accept": ARROW_STREAM}
CITIES = ["Oslo", "Bergen", "Tromsø"]


@asynccontextmanager
async def joined(config: Config) -> AsyncGenerator[httpx.AsyncClient]:
    """vectord with its storaged, ready."""
    async with AsyncExitStack() as stack:
        storaged = await stack.enter_async_context(running(create_storaged(config)))
        app = create_app(config, transports={"storaged": storaged})
        transport = await stack.enter_async_context(running(app))
        client = await stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")
        )
        await until_ready(client)
        yield client


async def until_ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(20):
        while (await client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.01)


def items(count: int, dim: int = 4, seed: int = 1) -> list[dict[str, Any]]:
    vectors = np.random.default_rng(seed).standard_normal((count, dim))
    return [
        {
            "id": f"i{n}",
            "vector": vectors[n].tolist(),
            "text": f"worker {n} in {CITIES[n % 3]}",
            "metadata": {"city": CITIES[n % 3], "n": n, "even": n % 2 == 0},
        }
        for n in range(count)
    ]


async def filled(client: httpx.AsyncClient, count: int = 30, **spec: Any) -> list[dict[str, Any]]:
    body = {"name": "w", "dim": 4, "model": "m1", **spec}
    assert (await client.post("/vectors/indexes", json=body)).status_code == 201
    made = items(count, body["dim"])
    answer = await client.put("/vectors/indexes/w/items", json={"items": made})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"written": count, "duplicates": 0, "count": count}
    return made


async def test_an_index_is_made_once_and_described(tmp_path: Path) -> None:
    async with joined(make_config(tmp_path)) as client:
        body = {"name": "a", "dim": 3, "metric": "l2"}
        assert (await client.post("/vectors/indexes", json=body)).status_code == 201
        assert (await client.post("/vectors/indexes", json=body)).status_code == 200
        other = await client.post("/vectors/indexes", json={**body, "dim": 4, "m": 8})
        assert other.status_code == 409
        assert set(other.json()["error"]["details"]["differences"]) == {"dim", "m"}
        listed = (await client.get("/vectors/indexes")).json()["indexes"]
        assert [(i["name"], i["metric"], i["count"]) for i in listed] == [("a", "l2", 0)]
        assert (await client.get("/vectors/indexes/a")).json()["status"] == "ready"
        assert (await client.get("/vectors/indexes/b")).status_code == 404
        gone = await client.delete("/vectors/indexes/a")
        assert gone.json() == {"name": "a", "deleted": True}
        assert (await client.delete("/vectors/indexes/a")).json()["deleted"] is False
        assert (await client.get("/vectors/indexes")).json() == {"indexes": []}
        assert (await client.post("/vectors/indexes", json={**body, "dim": 9})).status_code == 201


async def test_items_are_written_read_replaced_and_removed(tmp_path: Path) -> None:
    async with joined(make_config(tmp_path)) as client:
        made = await filled(client)
        got = (await client.get("/vectors/indexes/w/items/i3")).json()
        assert (got["text"], got["metadata"]) == (made[3]["text"], made[3]["metadata"])
        assert got["vector"] == pytest.approx(made[3]["vector"], rel=1e-6)

        twice = [{"id": "i3", "vector": [1, 0, 0, 0]}, {"id": "i3", "vector": [0, 0, 0, 9]}]
        answer = await client.put("/vectors/indexes/w/items", json={"items": twice})
        assert answer.json() == {"written": 1, "duplicates": 1, "count": 30}
        got = (await client.get("/vectors/indexes/w/items/i3")).json()
        assert got == {"id": "i3", "vector": [0, 0, 0, 9], "text": None, "metadata": {}}

        url = "/vectors/indexes/w/items"
        gone = await client.request("DELETE", url, json={"ids": ["i3", "i4", "none"]})
        assert gone.json() == {"deleted": 2, "count": 28}
        assert (await client.get(f"{url}/i3")).status_code == 404
        gone = await client.request("DELETE", url, json={"filter": {"city": {"eq": "Oslo"}}})
        assert gone.json() == {"deleted": 9, "count": 19}  # i3 was of Oslo
        assert (await client.request("DELETE", url, json={})).status_code == 400
        hits = await search(client, {"text": "worker Oslo", "k": 50})
        assert {h["metadata"]["city"] for h in hits} == {"Bergen", "Tromsø"}


async def search(client: httpx.AsyncClient, body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await client.post("/vectors/indexes/w/search", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["hits"]


async def test_dense_lexical_and_fused_searches(tmp_path: Path) -> None:
    async with joined(make_config(tmp_path)) as client:
        made = await filled(client)
        hits = await search(client, {"vector": made[7]["vector"], "k": 3})
        assert [h["rank"] for h in hits] == [1, 2, 3]
        assert (hits[0]["id"], hits[0]["text"]) == ("i7", made[7]["text"])
        assert hits[0]["score"] == pytest.approx(1.0, abs=1e-6)
        assert hits[0]["score"] >= hits[1]["score"] >= hits[2]["score"]
        assert len(await search(client, {"vector": made[7]["vector"], "k": 99})) == 30

        hits = await search(client, {"text": 'TROMSO AND ("worker* 5:', "k": 40})
        assert hits[0]["id"] == "i5"
        assert len(hits) == 30

        body = {"vector": made[7]["vector"], "text": "20", "include": ["dense", "lexical"], "k": 4}
        answer = (await client.post("/vectors/indexes/w/search", json=body)).json()
        assert [h["id"] for h in answer["lexical"]] == ["i20"]
        assert answer["dense"][0]["id"] == "i7"
        assert {answer["hits"][0]["id"], answer["hits"][1]["id"]} == {"i7", "i20"}
        assert "text" not in answer["hits"][0]

        where = {"and": [{"n": {"gte": 10}}, {"not": {"city": {"in": ["Oslo"]}}}]}
        for query in ({"vector": made[7]["vector"]}, {"text": "worker"}):
            hits = await search(client, {**query, "k": 50, "filter": where})
            assert {h["id"] for h in hits} == {f"i{n}" for n in range(10, 30) if n % 3}


async def test_a_batch_answers_in_order_in_json_and_arrow(tmp_path: Path) -> None:
    async with joined(make_config(tmp_path)) as client:
        made = await filled(client)
        queries = [{"vector": made[n]["vector"], "k": 2} for n in (4, 9)] + [{"text": "11"}]
        answer = await client.post("/vectors/indexes/w/search", json={"queries": queries})
        assert [r["hits"][0]["id"] for r in answer.json()["results"]] == ["i4", "i9", "i11"]

        vectors = np.array([made[n]["vector"] for n in (4, 9)], np.float32)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 4)
        body = to_stream(pa.table({"vector": column}))
        answer = await client.post(
            "/vectors/indexes/w/search",
            params={"k": 2, "filter": json.dumps({"n": {"lt": 9}}), "include": ["metadata"]},
            content=body,
            headers=ARROW,
        )
        assert answer.headers["content-type"] == ARROW_STREAM
        table = pa.ipc.open_stream(answer.content).read_all()
        assert table.column_names == ["query", "rank", "id", "score", "metadata"]
        assert table["query"].to_pylist() == [0, 0, 1, 1]
        assert table["rank"].to_pylist() == [1, 2, 1, 2]
        assert table["id"].to_pylist()[0] == "i4"
        assert "i9" not in table["id"].to_pylist()


def to_stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


async def test_items_come_as_arrow_too(tmp_path: Path) -> None:
    async with joined(make_config(tmp_path)) as client:
        await filled(client)
        column = pa.FixedSizeListArray.from_arrays(pa.array(np.eye(4, dtype=np.float32).ravel()), 4)
        table = pa.table(
            {
                "id": ["x0", "x1", "x2", "x0"],
                "vector": column,
                "text": ["a", None, "c", "d"],
                "metadata": ['{"n": 1}', None, "{}", '{"n": 4}'],
            }
        )
        url = "/vectors/indexes/w/items"
        answer = await client.put(url, content=to_stream(table), headers=ARROW)
        assert answer.json() == {"written": 3, "duplicates": 1, "count": 33}
        got = (await client.get(f"{url}/x0")).json()
        assert got == {"id": "x0", "vector": [0, 0, 0, 1], "text": "d", "metadata": {"n": 4}}
        wrong = table.drop_columns(["vector"]).append_column("vector", pa.array([[1.0]] * 4))
        answer = await client.put(url, content=to_stream(wrong), headers=ARROW)
        assert (answer.status_code, "dimension 1" in answer.text) == (400, True)
        assert (await client.put(url, content=b"nonsense", headers=ARROW)).status_code == 400
        answer = await client.put(url, content=b"x", headers={"content-type": "text/csv"})
        assert answer.status_code == 415
        answer = await client.put(
            url, params={"model": "m2"}, content=to_stream(table), headers=ARROW
        )
        assert answer.status_code == 409


@pytest.mark.parametrize(
    ("item", "status", "word"),
    [
        ({"id": "a", "vector": [1, 2, 3]}, 400, "dimension 3"),
        ({"id": "a", "vector": [0, 0, 0, 0]}, 400, "zero vector"),
        ({"id": "a", "vector": [1e39, 0, 0, 0]}, 400, "infinite"),
        ({"id": "", "vector": [1, 0, 0, 0]}, 400, "items.0.id"),
        ({"id": "a"}, 400, "vector"),
        ({"id": "a", "vector": [1, 0, 0, 0], "text": "x" * 2000}, 413, "2000 bytes"),
        ({"id": "a", "vector": [1, 0, 0, 0], "metadata": {"x": "y" * 900}}, 413, "metadata"),
        ({"id": "a", "vector": [1, 0, 0, 0], "metadata": {"x": 2**70}}, 400, "metadata"),
    ],
)
async def test_a_bad_item_is_refused_and_nothing_is_written(
    tmp_path: Path, item: dict[str, Any], status: int, word: str
) -> None:
    limits = {"max_text_bytes": 1000, "max_metadata_bytes": 500}
    async with joined(make_config(tmp_path, vectord=limits)) as client:
        await filled(client, 3)
        both = [{"id": "good", "vector": [1, 1, 1, 1]}, item]
        if "id" in item and item["id"] == "":
            both = [item]
        answer = await client.put("/vectors/indexes/w/items", json={"items": both})
        assert answer.status_code == status, answer.text
        assert word in answer.text
        assert (await client.get("/vectors/indexes/w")).json()["count"] == 3


async def test_nan_in_json_is_refused(tmp_path: Path) -> None:
    async with joined(make_config(tmp_path)) as client:
        await filled(client, 3)
        raw = b'{"items": [{"id": "a", "vector": [NaN, 1, 2, 3]}]}'
        headers = {"content-type": "application/json"}
        answer = await client.put("/vectors/indexes/w/items", content=raw, headers=headers)
        assert answer.status_code == 400


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({}, 400),
        ({"text": "  "}, 400),
        ({"vector": [1, 2]}, 400),
        ({"vector": [0, 0, 0, 0]}, 400),
        ({"vector": [1, 0, 0, 0], "k": 0}, 400),
        ({"vector": [1, 0, 0, 0], "k": 10_001}, 400),
        ({"vector": [1, 0, 0, 0], "filter": {"city": ["Oslo"]}}, 400),
        ({"vector": [1, 0, 0, 0], "filter": {"city": {"like": "O"}}}, 400),
        ({"vector": [1, 0, 0, 0], "model": "other"}, 409),
        ({"queries": []}, 400),
        ({"queries": [{"text": "a"}], "text": "b"}, 400),
        ({"vector": [1, 0, 0, 0], "nonsense": 1}, 400),
    ],
)
async def test_a_bad_query_is_refused(tmp_path: Path, query: dict[str, Any], status: int) -> None:
    async with joined(make_config(tmp_path)) as client:
        await filled(client, 3)
        answer = await client.post("/vectors/indexes/w/search", json=query)
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]["service"] == "vectord"


async def test_ten_thousand_items_at_once(tmp_path: Path) -> None:
    async with joined(make_config(tmp_path)) as client:
        made = await filled(client, 10_000, dim=8)
        hits = await search(client, {"vector": made[9_999]["vector"], "k": 1})
        assert hits[0]["id"] == "i9999"


async def test_the_typed_client_speaks_all_routes(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    async with AsyncExitStack() as stack:
        storaged = await stack.enter_async_context(running(create_storaged(config)))
        app = create_app(config, transports={"storaged": storaged})
        transport = await stack.enter_async_context(running(app))
        client = VectordClient(config, {"vectord": transport})
        async with asyncio.timeout(20):
            while not app.state.metrics or (await client.request("GET", "/health")) is None:
                await asyncio.sleep(0.01)
            while True:
                try:
                    await client.request("GET", "/ready")
                    break
                except Exception:
                    await asyncio.sleep(0.01)
        spec = IndexSpec(name="w", dim=4, model="m")
        assert (await client.create_index(spec)).name == "w"
        with pytest.raises(Conflict):
            await client.create_index(IndexSpec(name="w", dim=5))
        made = items(5)
        assert (await client.put_items("w", made, model="m")).written == 5
        assert (await client.get_item("w", "i2")).text == made[2]["text"]
        found = await client.search("w", Query(vector=made[2]["vector"], k=1))
        assert found.hits[0].id == "i2"
        several = await client.search_batch("w", [Query(text="3", k=1)], model="m")
        assert several.results[0].hits[0].id == "i3"
        asked = Query(vector=made[2]["vector"], text="4", k=2, include=["text", "vector"])
        candidates = await client.find_candidates("w", [asked], model="m")
        assert candidates.count == 5
        assert candidates.results[0].ids[0] == "i2"
        assert "i4" in candidates.results[0].ids
        assert candidates.results[0].texts[0] == made[2]["text"]
        with pytest.raises(Invalid, match="a vector and a text"):
            await client.find_candidates("w", [Query(text="4")])
        assert (await client.delete_items("w", where={"n": {"lt": 2}})).deleted == 2
        assert (await client.get_index("w")).count == 3
        assert [i.name for i in (await client.list_indexes()).indexes] == ["w"]
        assert await client.delete_index("w")
        await client.aclose()


async def test_figures_are_told(tmp_path: Path) -> None:
    async with joined(make_config(tmp_path)) as client:
        await filled(client, 3)
        await search(client, {"text": "worker"})
        text = (await client.get("/metrics")).text
        assert "lakehouse_vectord_items_written_total 3.0" in text
        assert "lakehouse_vectord_queries_total 1.0" in text
