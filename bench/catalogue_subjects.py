"""Who commits in `bench/catalogue.py`: catalogd's store, pyiceberg as it comes, and bare writes."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from prometheus_client import CollectorRegistry
from pyiceberg.catalog.sql import SqlCatalog

from services.catalogd.core.ingests import Order
from services.catalogd.store.figures import Figures
from services.catalogd.store.pointers import Pointers
from services.catalogd.store.reader import Reader
from services.catalogd.store.rooms import build_rooms
from shared.wire.storaged import ObjectInfo

KEEP = 100


def write_file(directory: Path, number: int) -> Path:
    """A small Parquet file of its own content."""
    path = directory / f"data-{number}.parquet"
    rows = [number * 10 + n for n in range(10)]
    table = pa.table(
        {
            "worker_id": pa.array(rows, pa.int64()),
            "name": [f"worker {row}" for row in rows],
            "city": ["Oslo"] * 10,
            "rate": [row / 2 for row in rows],
        }
    )
    pq.write_table(table, path)
    return path


class Ours:
    """catalogd's store on a folder.

    Args:
        uri: of its database; SQLite in the folder when empty.
    """

    def __init__(self, directory: Path, uri: str = "") -> None:
        directory.mkdir(exist_ok=True)
        pointers = Pointers(uri or f"sqlite:///{directory / 'catalogue.db'}")
        pointers.create_tables()
        self.figures = Figures(CollectorRegistry())
        rooms = build_rooms(pointers, f"file://{directory / 'warehouse'}", KEEP, self.figures)
        self.registrar = rooms.registrar
        self.reader: Reader = rooms.reader
        self.warehouse = directory / "warehouse"

    def commit(self, path: Path) -> None:
        """One register, from the object's footer to the durable pointer."""
        info = ObjectInfo(
            key=path.name,
            etag=f'"{path.name}"',
            size=path.stat().st_size,
            uri=f"file://{path}",
            last_modified="2026-01-01T00:00:00Z",
        )
        files = self.registrar.read_objects([info])
        objects = ((info.key, info.etag),)
        order = Order("workers", "append", False, path.name, None, None, objects)
        self.registrar.register(order, files, 600.0)


class Plain:
    """pyiceberg as it comes."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        uri = f"sqlite:///{directory / 'catalogue.db'}"
        self.catalog = SqlCatalog("plain", uri=uri, warehouse=f"file://{directory / 'warehouse'}")

    def create(self, path: Path) -> None:
        """Makes the table with the columns of a file."""
        self.catalog.create_namespace("plain")
        self.catalog.create_table("plain.workers", pq.read_schema(path))

    def commit(self, path: Path) -> None:
        """One add_files."""
        self.catalog.load_table("plain.workers").add_files([f"file://{path}"])

    def rows(self) -> int:
        """Rows of the table."""
        return self.catalog.load_table("plain.workers").scan().count()


class Limit:
    """The writes of a commit and nothing else."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.count = 0
        self.database = sqlite3.connect(directory / "limit.db", isolation_level=None)
        self.database.execute("pragma journal_mode=wal")
        self.database.execute("pragma synchronous=full")
        self.database.execute("create table pointers (id integer primary key, place text)")

    def commit(self, sizes: list[int]) -> None:
        """Files of these sizes, the directory, one row."""
        self.count += 1
        for position, size in enumerate(sizes):
            name = self.directory / f"{self.count}-{position}"
            fd = os.open(name, os.O_CREAT | os.O_WRONLY, 0o644)
            os.write(fd, b"x" * size)
            os.fsync(fd)
            os.close(fd)
        fd = os.open(self.directory, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        self.database.execute("begin immediate")
        self.database.execute("insert into pointers (place) values (?)", ("x" * 400,))
        self.database.execute("commit")
