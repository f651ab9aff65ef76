"""catalogd for tests: joined to a real storaged in one process, or its store alone."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pyarrow as pa
import pyarrow.parquet as pq
from prometheus_client import CollectorRegistry

from services.catalogd.app import create_app
from services.catalogd.core.ingests import Order
from services.catalogd.store.catalog import DatasetCatalog
from services.catalogd.store.commits import Commits
from services.catalogd.store.figures import Figures
from services.catalogd.store.pointers import Pointers
from services.catalogd.store.reader import Reader
from services.catalogd.store.registrar import Registrar
from services.catalogd.store.rooms import now_ms
from services.catalogd.store.tools import Tools
from services.catalogd.store.versions import Versions
from services.catalogd.store.views import describe_table
from services.storaged.app import create_app as create_storaged
from shared.config import Config
from shared.wire.catalogd import IngestRecord, RegisterResponse
from shared.wire.storaged import ObjectInfo
from tests.support.apps import make_config, running

DATASETS = "/catalog/datasets"


def choose_database(_: Path) -> str:
    """The address of the database that belongs to a folder; empty: SQLite in the folder itself.

    tests/conformance/test_catalogd_postgres.py puts its own in the place of this.
    """
    return ""


def parquet_bytes(columns: Mapping[str, Any] | pa.Table, **options: Any) -> bytes:
    """A Parquet file of these columns."""
    table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


@dataclass
class Pair:
    """A catalogd and its storaged, in one process."""

    config: Config
    storage: httpx.AsyncClient
    catalog: httpx.AsyncClient
    transports: dict[str, httpx.AsyncBaseTransport]

    @property
    def database(self) -> str:
        """The address of catalogd's database, for another program."""
        given = self.config.catalogd.database_uri.get_secret_value()
        return given or f"sqlite:///{self.config.data_dir('catalogd') / 'catalogue.db'}"

    async def put(self, key: str, columns: Mapping[str, Any] | pa.Table, **options: Any) -> str:
        """Stores a Parquet object and gives its key."""
        return await self.put_bytes(key, parquet_bytes(columns, **options))

    async def put_bytes(self, key: str, content: bytes) -> str:
        """Stores an object and gives its key."""
        answer = await self.storage.put(f"/storage/objects/{key}", content=content)
        assert answer.status_code in (200, 201), answer.text
        return key

    async def send(self, name: str, *objects: str, **fields: Any) -> httpx.Response:
        """A register request's answer, whatever it is."""
        body = {"name": name, "objects": list(objects), **fields}
        return await self.catalog.post(DATASETS, json=body)

    async def register(self, name: str, *objects: str, **fields: Any) -> dict[str, Any]:
        """A register request that must succeed."""
        answer = await self.send(name, *objects, **fields)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    async def get(self, path: str, **params: str) -> dict[str, Any]:
        """A route below the datasets that must answer 200."""
        answer = await self.catalog.get(f"{DATASETS}{path}", params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def rows(self, name: str, **params: str) -> list[tuple[Any, ...]]:
        """A snapshot's rows as DuckDB reads its files by its columns, sorted."""
        found = await self.get(f"/{name}/files", **params)
        return read_rows(found)


def read_rows(found: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The rows of a `files` answer: every file by name, cast to the columns' SQL types."""
    uris = [file["uri"].removeprefix("file://") for file in found["files"]]
    if not uris:
        return []
    with duckdb.connect() as connection:
        relation = connection.sql("from read_parquet($1, union_by_name=true)", params=[uris])
        columns = ", ".join(
            f'"{column["name"]}"::{column["type"]} as c{position}'
            if column["name"] in relation.columns
            else f"null::{column['type']} as c{position}"
            for position, column in enumerate(found["schema"])
        )
        found_rows = relation.project(columns).to_arrow_table().to_pylist()
        return sorted((tuple(row.values()) for row in found_rows), key=repr)


@asynccontextmanager
async def catalogd_pair(tmp_path: Path, **catalogd: Any) -> AsyncGenerator[Pair]:
    """A running catalogd over a running storaged, with real files under `tmp_path`."""
    section = {"database_uri": choose_database(tmp_path), **catalogd}
    config = make_config(tmp_path, catalogd=section)
    async with running(create_storaged(config)) as storaged:
        transports: dict[str, httpx.AsyncBaseTransport] = {"storaged": storaged}
        async with (
            running(create_app(config, transports=transports)) as own,
            httpx.AsyncClient(transport=storaged, base_url="http://127.0.0.1") as storage,
            httpx.AsyncClient(transport=own, base_url="http://127.0.0.1") as catalog,
        ):
            yield Pair(config, storage, catalog, {**transports, "catalogd": own})


class Store:
    """catalogd's store on a folder, without HTTP or storaged.

    Args:
        directory: where the database, the metadata and the Parquet files lie.
        keep: snapshots that every dataset keeps.
        clock: milliseconds since 1970.
    """

    def __init__(self, directory: Path, keep: int = 100, clock: Callable[[], int] = now_ms) -> None:
        self.directory = directory
        self.uri = choose_database(directory) or f"sqlite:///{directory / 'catalogue.db'}"
        self.pointers = Pointers(self.uri)
        self.pointers.create_tables()
        self.figures = Figures(CollectorRegistry())
        self.catalog = DatasetCatalog(
            self.pointers,
            f"file://{directory / 'warehouse'}",
            lambda *of: describe_table(*of).model_dump_json(by_alias=True),
        )
        self.commits = Commits(self.figures)
        tools = Tools(self.pointers, self.catalog, self.commits, self.figures, keep, clock)
        self.registrar = Registrar(tools)
        self.versions = Versions(tools)
        self.reader = Reader(self.pointers, self.catalog)

    def write(self, key: str, columns: Mapping[str, Any] | pa.Table) -> ObjectInfo:
        """Writes a Parquet file and describes it as storaged would."""
        path = self.directory / f"{key}.parquet"
        # Whole or not at all, as storaged has it; other processes may write the same one.
        part = self.directory / f"{key}.{os.getpid()}.{threading.get_ident()}.part"
        part.write_bytes(parquet_bytes(columns))
        part.replace(path)
        return ObjectInfo(
            key=key,
            etag=f'"{key}"',
            size=path.stat().st_size,
            uri=f"file://{path}",
            last_modified="2026-01-01T00:00:00Z",
        )

    def register(
        self,
        name: str,
        *infos: ObjectInfo,
        ingest_id: str | None = None,
        mode: Any = "append",
        evolve: bool = False,
        uuid: str | None = None,
        record: IngestRecord | None = None,
        patience_s: float = 30.0,
    ) -> RegisterResponse:
        """Makes files part of a dataset."""
        order = Order(
            name, mode, evolve, ingest_id, uuid, record, tuple((i.key, i.etag) for i in infos)
        )
        files = self.registrar.read_objects(infos)
        return self.registrar.register(order, files, patience_s)

    def keys(self, name: str) -> list[str]:
        """Keys of the files that the dataset holds now, sorted."""
        files = self.reader.list_files(name, None).files
        return sorted(Path(file.uri).name.removesuffix(".parquet") for file in files)

    def ingest_ids(self, name: str) -> list[str]:
        """Ingest ids of all retained snapshots, oldest first."""
        snapshots = self.reader.list_snapshots(name).snapshots
        return [snapshot.summary["lakehouse.ingest-id"] for snapshot in snapshots]

    def close(self) -> None:
        """Closes the database."""
        self.pointers.close()
