"""Several catalogd over one database: their upkeep and their writes do each other no harm."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.catalogd.app import create_app
from services.storaged.app import create_app as create_storaged
from tests.support import catalogd as support
from tests.support.apps import make_config, running
from tests.support.catalogd import DATASETS, Pair

pytestmark = pytest.mark.anyio

FILES = 24


async def test_upkeep_of_two_beside_their_writes(tmp_path: Path) -> None:
    section: dict[str, Any] = {
        "database_uri": support.choose_database(tmp_path) or f"sqlite:///{tmp_path / 'shared.db'}",
        "warehouse": f"file://{tmp_path / 'warehouse'}",
        "keep_snapshots": 5,
        "compact_min_files": 4,
        "upkeep_interval_s": 0.05,
        "collect_interval_s": 0.1,
        # Longer than a write of this test takes between its object and its register.
        "collect_grace_s": 20.0,
    }
    config = make_config(tmp_path, catalogd=section)
    async with running(create_storaged(config)) as storaged:
        transports: dict[str, httpx.AsyncBaseTransport] = {"storaged": storaged}
        async with (
            running(create_app(config, transports=transports)) as one,
            running(create_app(config, transports=transports)) as other,
            httpx.AsyncClient(transport=storaged, base_url="http://127.0.0.1") as storage,
            httpx.AsyncClient(transport=one, base_url="http://127.0.0.1", timeout=60) as first,
            httpx.AsyncClient(transport=other, base_url="http://127.0.0.1", timeout=60) as second,
        ):
            pairs = [Pair(config, storage, client, transports) for client in (first, second)]

            async def write(pair: Pair, numbers: range) -> None:
                for number in numbers:
                    identity = await pair.catalog.put(f"{DATASETS}/t/identity")
                    key = f"datasets/{identity.json()['uuid']}/{number:064x}-0.parquet"
                    await pair.put(key, {"x": [number]})
                    await pair.register("t", key, ingest_id=f"i{number}")

            await asyncio.gather(
                write(pairs[0], range(FILES)), write(pairs[1], range(FILES, 2 * FILES))
            )
            async with asyncio.timeout(60):
                while (await pairs[0].get("/t"))["files"] >= 4:
                    await asyncio.sleep(0.05)
            # Both ask at once: each gets an answer, and the rows are there once.
            answers = await asyncio.gather(
                *(
                    pair.catalog.post(path)
                    for _ in range(3)
                    for pair in pairs
                    for path in (f"{DATASETS}/t/compact", "/catalog/collect")
                )
            )
            assert {answer.status_code for answer in answers} == {200}
            said = {a.json()["status"] for a in answers if a.request.url.path.endswith("collect")}
            assert "done" in said
            assert said <= {"done", "busy"}
            for pair in pairs:
                assert sorted(x for (x,) in await pair.rows("t")) == list(range(2 * FILES))
                for snapshot in (await pair.get("/t/snapshots"))["snapshots"]:
                    rows = await pair.rows("t", snapshot=snapshot["snapshot_id"])
                    assert len(rows) == snapshot["rows"]
