"""Conversions of small files in this process, their results read back from Parquet."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import httpx
from fastapi import FastAPI

from services.catalogd.app import create_app as create_catalogd
from services.ingestd.app import create_app as create_ingestd
from services.ingestd.core.job import Job, Limits, Outcome
from services.ingestd.core.options import Options
from services.ingestd.worker.convert import convert
from services.storaged.app import create_app as create_storaged
from shared.config import Config
from tests.support.apps import running

Row = tuple[str | None, ...]
# Line number, column name, error type, message, raw line.
Reject = tuple[int, str | None, str, str, str]


@dataclass(frozen=True, slots=True)
class Converted:
    """What a file became: the outcome, the rows as text in order, the sidecar's lines."""

    outcome: Outcome
    rows: list[Row]
    rejects: list[Reject]

    @property
    def types(self) -> list[str]:
        return [kind for _, kind in self.outcome.columns]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.outcome.columns]


def convert_bytes(
    folder: Path,
    data: bytes,
    *,
    table: Sequence[tuple[str, str]] | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> Converted:
    """Converts a file of these bytes as the worker does."""
    work = Path(tempfile.mkdtemp(dir=folder))
    source = work / "source"
    source.write_bytes(data)
    inner = work / "work"
    inner.mkdir()
    job = Job(
        source=str(source),
        folder=str(inner),
        ingest_id="test",
        options=Options(**options),
        table=None if table is None else tuple(table),
        limits=limits or Limits(memory_bytes=256 * 1024 * 1024),
    )
    outcome = convert(job, lambda _: None)
    assert outcome.rows_in == outcome.rows_out + outcome.rejects
    rows: list[Row] = []
    for part in outcome.parts:
        rows += read_parquet(part.path)
    assert len(rows) == outcome.rows_out
    rejects: list[Any] = read_parquet(outcome.sidecar.path, raw=True) if outcome.sidecar else []
    return Converted(outcome, rows, rejects)


@functools.cache
def reader() -> duckdb.DuckDBPyConnection:
    """One connection for all tests: making one costs more than most conversions."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def read_parquet(path: str | Path, *, raw: bool = False) -> list[Any]:
    """All rows of a Parquet file, their values as text unless `raw`."""
    columns = "*" if raw else "COLUMNS(*)::VARCHAR"
    return reader().execute(f"SELECT {columns} FROM read_parquet('{path}')").fetchall()


@dataclass(frozen=True, slots=True)
class Trio:
    """storaged, catalogd and ingestd joined in this process, with a client of each."""

    config: Config
    storaged: httpx.AsyncClient
    catalogd: httpx.AsyncClient
    ingestd: httpx.AsyncClient
    app: FastAPI
    transports: Mapping[str, httpx.AsyncBaseTransport]

    async def post(self, query: str, data: bytes, content_type: str = "text/csv") -> httpx.Response:
        return await self.ingestd.post(
            f"/ingest?{query}", content=data, headers={"content-type": content_type}
        )

    async def read_rows(self, dataset: str) -> list[Row]:
        """The rows of a dataset's current snapshot, as text, sorted."""
        files = (await self.catalogd.get(f"/catalog/datasets/{dataset}/files")).json()
        rows: list[Row] = []
        for file in files["files"]:
            rows += read_parquet(file["uri"].removeprefix("file://"))
        return sorted(rows, key=lambda row: tuple(value or "" for value in row))

    async def list_keys(self, prefix: str = "datasets/") -> list[str]:
        answer = (await self.storaged.get("/storage/objects", params={"prefix": prefix})).json()
        return [one["key"] for one in answer["objects"]]

    def leftovers(self) -> list[Path]:
        """What lies in ingestd's data directory but its lock and the jobs' journal."""
        folder = self.config.data_dir("ingestd")
        return [entry for entry in folder.iterdir() if entry.name not in (".lock", "jobs")]


@asynccontextmanager
async def run_trio(config: Config, **overrides: httpx.AsyncBaseTransport) -> AsyncGenerator[Trio]:
    """Runs the three daemons; a transport given by name takes the place of the real one."""
    async with AsyncExitStack() as stack:
        transports: dict[str, httpx.AsyncBaseTransport] = {}
        storaged = await stack.enter_async_context(running(create_storaged(config)))
        transports["storaged"] = storaged
        catalogd = await stack.enter_async_context(
            running(create_catalogd(config, transports=transports))
        )
        transports["catalogd"] = catalogd
        app = create_ingestd(config, transports={**transports, **overrides})
        ingestd = await stack.enter_async_context(running(app))

        async def client(transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
            return await stack.enter_async_context(
                httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60)
            )

        yield Trio(
            config,
            await client(storaged),
            await client(catalogd),
            await client(ingestd),
            app,
            transports,
        )
