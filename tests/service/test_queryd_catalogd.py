"""queryd joined to the real catalogd and storaged, in one process."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from services.queryd.app import create_app
from tests.support.apps import make_config, running
from tests.support.catalogd import Pair, catalogd_pair

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def trio(tmp_path: Path) -> AsyncGenerator[tuple[Pair, httpx.AsyncClient]]:
    """storaged, catalogd and queryd; gives the first two and a client of the third."""
    async with (
        catalogd_pair(tmp_path) as pair,
        running(create_app(pair.config, transports=pair.transports)) as own,
        httpx.AsyncClient(transport=own, base_url="http://127.0.0.1", timeout=60) as client,
    ):
        yield pair, client


async def ask(client: httpx.AsyncClient, sql: str, **body: Any) -> list[list[Any]]:
    response = await client.post("/sql", json={"sql": sql, **body})
    assert response.status_code == 200, response.text
    return response.json()["rows"]


async def test_what_is_registered_can_be_asked_at_once(tmp_path: Path) -> None:
    async with trio(tmp_path) as (pair, client):
        for number in range(5):
            key = await pair.put(f"datasets/w/{number}.parquet", {"id": [number], "n": ["é"]})
            await pair.register("workers", key)
            assert await ask(client, "SELECT count(*), max(id) FROM workers") == [
                [number + 1, number]
            ]
        assert (await client.get("/sql/tables")).json() == {"tables": ["workers"]}
        described = (await client.get("/sql/tables/workers")).json()
        assert (described["rows"], described["files"]) == (5, 5)
        assert described["columns"] == [
            {"name": "id", "type": "BIGINT"},
            {"name": "n", "type": "VARCHAR"},
        ]
        assert sorted(described["sample"]) == [[n, "é"] for n in range(5)]
        assert (await client.get("/ready")).json()["checks"]["catalogd"] == "ok"


async def test_every_type_of_the_catalogue_comes_through(tmp_path: Path) -> None:
    table = pa.table(
        {
            "b": pa.array([True, None]),
            "i": pa.array([1, None], pa.int32()),
            "d": pa.array([Decimal("1.10"), None], pa.decimal128(9, 2)),
            "f": pa.array([0.5, None], pa.float32()),
            "day": pa.array([date(2026, 1, 31), None]),
            "at": pa.array([datetime(2026, 1, 31, 12, 0, 0, 5), None], pa.timestamp("us")),
            "tz": pa.array(
                [datetime(2026, 1, 31, 12, tzinfo=UTC), None], pa.timestamp("us", "UTC")
            ),
            "bin": pa.array([b"\x00\xff", None]),
            "l": pa.array([[1, None], None], pa.list_(pa.int64())),
            "s": pa.array([{"a b": 1, 'q"': "x"}, None]),
            "m": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
        }
    )
    async with trio(tmp_path) as (pair, client):
        await pair.register("types", await pair.put("datasets/t/1.parquet", table))
        response = await client.post("/sql", json={"sql": "FROM types"})
        assert response.status_code == 200, response.text
        full, empty = response.json()["rows"]
        assert full == [
            True,
            1,
            1.1,
            0.5,
            "2026-01-31",
            "2026-01-31T12:00:00.000005",
            "2026-01-31T12:00:00Z",
            "AP8=",
            [1, None],
            {"a b": 1, 'q"': "x"},
            {"k": 1},
        ]
        assert empty == [None] * 11


async def test_an_evolved_dataset_reads_with_all_its_columns(tmp_path: Path) -> None:
    async with trio(tmp_path) as (pair, client):
        old = await pair.put("datasets/e/1.parquet", {"a": pa.array([1], pa.int32())})
        await pair.register("evolved", old)
        new = await pair.put(
            "datasets/e/2.parquet", {"b": ["x"], "a": pa.array([2**40], pa.int64())}
        )
        await pair.register("evolved", new, evolve=True)
        assert await ask(client, "SELECT a, b FROM evolved ORDER BY a") == [[1, None], [2**40, "x"]]


async def test_an_older_snapshot_can_be_asked_by_id_and_by_time(tmp_path: Path) -> None:
    async with trio(tmp_path) as (pair, client):
        first = await pair.register("t", await pair.put("datasets/t/1.parquet", {"a": [1]}))
        await pair.register("t", await pair.put("datasets/t/2.parquet", {"a": [2]}))
        await pair.register("t", await pair.put("datasets/t/3.parquet", {"a": [3]}), mode="replace")
        snapshots = (await pair.get("/t/snapshots"))["snapshots"]
        asked = "SELECT a FROM t ORDER BY a"
        assert await ask(client, asked) == [[3]]
        assert await ask(client, asked, as_of=first["snapshot_id"]) == [[1]]
        assert await ask(client, asked, as_of=snapshots[1]["time"]) == [[1], [2]]
        for wrong, status in (("2001-01-01T00:00:00Z", 404), ("12345", 404), ("yesterday", 404)):
            response = await client.post("/sql", json={"sql": asked, "as_of": wrong})
            assert response.status_code == status, response.text


async def test_a_dataset_that_is_gone_is_404(tmp_path: Path) -> None:
    async with trio(tmp_path) as (pair, client):
        await pair.register("workers", await pair.put("datasets/w/1.parquet", {"a": [1]}))
        assert await ask(client, "FROM workers") == [[1]]
        assert (await pair.catalog.delete("/catalog/datasets/workers")).status_code == 200
        response = await client.post("/sql", json={"sql": "FROM workers"})
        assert response.status_code == 404
        assert (await client.get("/sql/tables/workers")).status_code == 404


async def test_a_catalogd_that_is_down_is_503(tmp_path: Path) -> None:
    app = create_app(make_config(tmp_path))
    async with (
        running(app) as own,
        httpx.AsyncClient(transport=own, base_url="http://127.0.0.1", timeout=60) as client,
    ):
        response = await client.post("/sql", json={"sql": "FROM workers"})
        assert response.status_code == 503
        assert "catalogd cannot be reached" in response.json()["error"]["message"]
        assert await ask(client, "SELECT 1") == [[1]]
        assert (await client.get("/sql/tables")).status_code == 503
