"""What was acknowledged comes back: after a restart, damage, a lost disk, storaged gone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from shared.clients.storaged import StoragedClient
from shared.config import Config
from shared.errors import Unavailable
from tests.support.apps import make_config
from tests.support.vectord import storaged_running, until, until_ready, vectord_running

pytestmark = pytest.mark.anyio

VECTORS = np.random.default_rng(5).standard_normal((60, 8)).round(3)
URL = "/vectors/indexes/w"


def config_of(tmp_path: Path, **keys: Any) -> Config:
    return make_config(tmp_path, vectord={"snapshot_interval_s": 0.01, "merge_rows": 8, **keys})


async def make(client: httpx.AsyncClient) -> None:
    await until_ready(client)
    answer = await client.post("/vectors/indexes", json={"name": "w", "dim": 8, "model": "m"})
    assert answer.status_code == 201


async def put(client: httpx.AsyncClient, numbers: range) -> None:
    items = [
        {"id": f"i{n}", "vector": VECTORS[n].tolist(), "text": f"t{n} all", "metadata": {"n": n}}
        for n in numbers
    ]
    answer = await client.put(f"{URL}/items", json={"items": items})
    assert answer.status_code == 200, answer.text


async def story(client: httpx.AsyncClient) -> list[Any]:
    """Everything a caller can see: dense, lexical and filtered hits with their scores."""
    bodies = [
        {"vector": VECTORS[3].tolist(), "k": 100},
        {"text": "t7 all", "k": 1},
        {"vector": VECTORS[5].tolist(), "k": 100, "filter": {"n": {"lt": 20}}},
    ]
    told: list[Any] = []
    for body in bodies:
        answer = await client.post(f"{URL}/search", json=body)
        assert answer.status_code == 200, answer.text
        told.append(answer.json())
    return told


async def info(client: httpx.AsyncClient) -> dict[str, Any]:
    return (await client.get(URL)).json()


async def until_stored(client: httpx.AsyncClient, seq: int) -> None:
    async def is_stored() -> bool:
        found = await info(client)
        return found["stored_seq"] >= seq and found["delta_rows"] < 8

    # The next snapshot waits twenty times as long as the last one took: a second on a busy disk.
    await until(is_stored, 120)


async def test_the_same_hits_after_a_restart(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    async with storaged_running(config) as storaged:
        async with vectord_running(config, storaged) as client:
            await make(client)
            await put(client, range(30))
            await put(client, range(10, 40))
            await client.request("DELETE", f"{URL}/items", json={"ids": ["i0", "i7"]})
            before = await story(client)
        async with vectord_running(config, storaged) as client:
            await until_ready(client)
            assert await story(client) == before
            assert (await info(client))["count"] == 38
            assert (await info(client))["problems"] == []


async def test_without_storaged_writes_stay_durable_and_are_stored_later(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    async with storaged_running(config) as storaged:
        async with vectord_running(config, storaged) as client:
            await make(client)
            storaged.down = True
            await put(client, range(30))
            before = await story(client)
            ready = await client.get("/ready")
            assert ready.status_code == 503
            assert "storaged" in ready.text
        async with vectord_running(config, storaged) as client:

            async def is_loaded() -> bool:
                return (await info(client)).get("status") == "ready"

            await until(is_loaded)
            assert await story(client) == before
            storaged.down = False
            await until_stored(client, 1)
        keys = [o async for o in _objects(config, storaged)]
        assert any(key.endswith("/manifest.json") for key in keys)


async def _objects(config: Config, storaged: httpx.AsyncBaseTransport) -> Any:
    client = StoragedClient(config, {"storaged": storaged})
    async for found in client.walk_objects("_vectors/w/"):
        yield found.key
    await client.aclose()


async def test_a_lost_data_directory_comes_back_from_storage(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    async with storaged_running(config) as storaged:
        async with vectord_running(config, storaged) as client:
            await make(client)
            await put(client, range(30))
            before = await story(client)
        shutil.rmtree(config.data_dir("vectord"))
        async with vectord_running(config, storaged) as client:
            await until_ready(client)
            assert await story(client) == before
            # The new journal goes on where the old one was: a later restart keeps both.
            await put(client, range(30, 35))
            after = await story(client)
        async with vectord_running(config, storaged) as client:
            await until_ready(client)
            assert await story(client) == after
            assert (await info(client))["count"] == 35


@pytest.mark.parametrize(
    ("name", "everywhere"),
    [
        ("vectors.f32", False),
        ("items.jsonl", True),
        ("graph.hnsw", True),
        ("manifest.json", True),
    ],
)
async def test_a_damaged_file_is_mended_loudly(tmp_path: Path, name: str, everywhere: bool) -> None:
    config = config_of(tmp_path)
    async with storaged_running(config) as storaged:
        async with vectord_running(config, storaged) as client:
            await make(client)
            await put(client, range(20))
            await until_stored(client, 1)
            await put(client, range(20, 40))
            await until_stored(client, 2)
            before = await story(client)
        newest = sorted(config.data_dir("vectord").glob("indexes/*/snapshots/*"))[-1]
        damage(newest / name)
        if everywhere:
            keys = [key async for key in _objects(config, storaged)]
            damaged = [key for key in keys if f"{newest.name}/{name}" in key]
            assert len(damaged) == 1
            client = StoragedClient(config, {"storaged": storaged})
            await client.put_object(damaged[0], b"not what was stored")
            await client.aclose()
        async with vectord_running(config, storaged) as client:
            await until_ready(client)
            assert await story(client) == before
            assert (await info(client))["problems"]
            assert "was mended" in (await client.get("/ready")).text
            assert "vectord_problems_total 0.0" not in (await client.get("/metrics")).text
            await until_stored(client, 2)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


async def test_an_index_that_cannot_be_rebuilt_is_never_silently_empty(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    async with storaged_running(config) as storaged:
        async with vectord_running(config, storaged) as client:
            await make(client)
            await put(client, range(20))
            await until_stored(client, 1)
        for kind in ("vectord", "storaged"):
            for path in config.data_dir(kind).rglob("*"):
                if path.is_file() and ("items.jsonl" in path.name or "/journal/" in str(path)):
                    path.unlink()
        async with vectord_running(config, storaged) as client:

            async def has_failed() -> bool:
                return (await info(client)).get("status") == "failed"

            await until(has_failed)
            answer = await client.post(f"{URL}/search", json={"text": "all"})
            assert answer.status_code == 503
            assert "could not be loaded" in answer.text
            assert (await client.get("/ready")).status_code == 503
            assert (await client.delete(URL)).json()["deleted"] is True


async def test_a_deleted_index_stays_deleted_in_storage_too(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    async with storaged_running(config) as storaged:
        async with vectord_running(config, storaged) as client:
            await make(client)
            await put(client, range(20))
            await until_stored(client, 1)
            storaged.down = True
            assert (await client.delete(URL)).json()["deleted"] is True
        storaged.down = False
        async with vectord_running(config, storaged) as client:
            await until_ready(client)
            assert (await client.get(URL)).status_code == 404

            async def is_purged() -> bool:
                return [key async for key in _objects(config, storaged)] == []

            await until(is_purged)


async def test_only_the_newest_snapshots_are_kept(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    async with storaged_running(config) as storaged:
        async with vectord_running(config, storaged) as client:
            await make(client)
            for round_ in range(4):
                await put(client, range(round_ * 10, round_ * 10 + 10))
                await until_stored(client, round_ + 1)
            before = await story(client)
        folders = sorted(config.data_dir("vectord").glob("indexes/*/snapshots/*"))
        # One more where the stop came between writing and storing it.
        assert 2 <= len(folders) <= 3
        keys = [key async for key in _objects(config, storaged)]
        assert sum(key.endswith("/manifest.json") for key in keys) in (2, 3)
        async with vectord_running(config, storaged) as client:
            await until_ready(client)
            assert await story(client) == before


async def test_one_writer_per_directory(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    async with (
        storaged_running(config) as storaged,
        vectord_running(config, storaged) as client,
    ):
        await make(client)
        with pytest.raises(Unavailable, match="in use by process"):
            async with vectord_running(config, storaged):
                pass
        assert (await client.get(URL)).status_code == 200
