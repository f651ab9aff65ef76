"""queryd over Parquet files in a real S3 server's bucket."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from scripts.seaweed import Seaweed
from services.queryd.app import create_app
from shared.wire.catalogd import DataFile
from tests.support.apps import make_config, running
from tests.support.queryd import FakeCatalogue, Service
from tests.support.storaged import BucketPlace


class BucketCatalogue(FakeCatalogue):
    """A catalogue whose files lie in a bucket."""

    def __init__(self, folder: Path, place: BucketPlace) -> None:
        super().__init__(folder)
        self.place = place

    def write(self, sql: str) -> DataFile:
        made = super().write(sql)
        path = Path(made.uri.removeprefix("file://"))
        key = f"datasets/it/{path.name}"
        self.place.put(key, path.read_bytes())
        path.unlink()
        address = self.place.configure().storage.address
        return DataFile(uri=address + key, size=made.size, rows=made.rows)


@asynccontextmanager
async def queryd_on_s3(
    tmp_path: Path, server: Seaweed, endpoint: str = "", **section: Any
) -> AsyncGenerator[Service]:
    """Runs queryd in this process with its workers on the bucket.

    Args:
        endpoint: of something between the workers and the server.
    """
    place = BucketPlace(tmp_path, server, endpoint)
    config = make_config(tmp_path, queryd=section, storage=place.storage)
    catalogue = BucketCatalogue(tmp_path / "made", place)
    async with (
        running(create_app(config, catalogue=catalogue)) as transport,
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client,
    ):
        yield Service(client, transport, catalogue, config)
