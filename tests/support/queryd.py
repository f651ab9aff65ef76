"""queryd for tests: a catalogue that is a dictionary, over Parquet files written here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import duckdb
import httpx

from services.queryd.app import create_app
from shared.config import Config
from shared.errors import NotFound
from shared.wire.base import Column
from shared.wire.catalogd import DataFile, Dataset, Files
from tests.support.apps import make_config, running

ARROW = "application/vnd.apache.arrow.stream"
NDJSON = "application/x-ndjson"
CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"


class FakeCatalogue:
    """Answers as catalogd would for datasets made by `add`; snapshots are numbered from 1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tables: dict[str, list[Files]] = {}
        self.asked: list[str] = []
        self.delay_s = 0.0
        self.failure: Exception | None = None
        self.closed = False
        self._count = 0
        self._connection = duckdb.connect()

    def write(self, sql: str) -> DataFile:
        """Writes what a query gives to a new Parquet file."""
        self._count += 1
        path = self.folder / f"{self._count}.parquet"
        self._connection.execute(f"COPY ({sql}) TO '{path}' (FORMAT parquet)")
        row = self._connection.execute(f"SELECT count(*) FROM '{path}'").fetchone()
        assert row is not None
        return DataFile(uri=f"file://{path}", size=path.stat().st_size, rows=row[0])

    def add(self, name: str, *queries: str, columns: dict[str, str] | None = None) -> Files:
        """Makes a new snapshot of a dataset, one file per query.

        Args:
            columns: the catalogue's types; those of the last query when absent.
        """
        files = [self.write(sql) for sql in queries]
        if columns is None:
            described = self._connection.execute(f"DESCRIBE {queries[-1]}").fetchall()
            columns = {row[0]: row[1] for row in described}
        versions = self.tables.setdefault(name, [])
        versions.append(
            Files(
                dataset=name,
                uuid=f"uuid-{name}",
                snapshot_id=str(len(versions) + 1),
                files=files,
                columns=[Column(name=n, type=t) for n, t in columns.items()],
            )
        )
        return versions[-1]

    async def list_files(self, name: str, snapshot: str | None = None) -> Files:
        self.asked.append(name)
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.failure is not None:
            raise self.failure
        versions = self._find(name)
        if snapshot is None:
            return versions[-1]
        for version in versions:
            if version.snapshot_id == snapshot:
                return version
        raise NotFound(f"Dataset {name} keeps no snapshot {snapshot}. The oldest is 1.")

    async def get_dataset(self, name: str) -> Dataset:
        version = self._find(name)[-1]
        return Dataset(
            name=name,
            uuid=version.uuid,
            snapshot_id=version.snapshot_id,
            fingerprint="",
            rows=sum(file.rows for file in version.files),
            bytes=sum(file.size for file in version.files),
            files=len(version.files),
            updated_at="2026-01-31T12:00:00.000Z",
            columns=version.columns,
        )

    async def list_datasets(self) -> list[Dataset]:
        return [await self.get_dataset(name) for name in self.tables]

    async def check(self) -> str:
        return "ok" if self.failure is None else str(self.failure)

    async def aclose(self) -> None:
        self.closed = True

    def _find(self, name: str) -> list[Files]:
        if name not in self.tables:
            raise NotFound(f"There is no dataset {name}.")
        return self.tables[name]


class Service:
    """queryd over a fake catalogue, with an HTTP client of it."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        transport: httpx.ASGITransport,
        catalogue: FakeCatalogue,
        config: Config,
    ) -> None:
        self.client = client
        self.transport = transport
        self.catalogue = catalogue
        self.config = config

    async def sql(
        self,
        sql: str,
        *,
        accept: str | None = None,
        headers: dict[str, str] | None = None,
        **body: Any,
    ) -> httpx.Response:
        """POSTs one query."""
        sent = dict(headers or {})
        if accept:
            sent["accept"] = accept
        return await self.client.post("/sql", json={"sql": sql, **body}, headers=sent)

    async def rows(self, sql: str, **body: Any) -> list[list[Any]]:
        """The rows of a query that must succeed."""
        response = await self.sql(sql, **body)
        assert response.status_code == 200, response.text
        return response.json()["rows"]


@asynccontextmanager
async def queryd(tmp_path: Path, **section: Any) -> AsyncGenerator[Service]:
    """Runs queryd in this process, with its workers as processes of their own."""
    config = make_config(tmp_path, queryd=section)
    # Where storaged would keep them: the only folder that workers can read.
    catalogue = FakeCatalogue(config.data_dir("storaged") / "datasets" / "it")
    app = create_app(config, catalogue=catalogue)
    async with (
        running(app) as transport,
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client,
    ):
        yield Service(client, transport, catalogue, config)
