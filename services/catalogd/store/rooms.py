"""The rooms that need pyiceberg, built together when the first call needs them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from services.catalogd.store.catalog import DatasetCatalog
from services.catalogd.store.collection import Collector
from services.catalogd.store.commits import Commits
from services.catalogd.store.compaction import Compactor
from services.catalogd.store.figures import Figures
from services.catalogd.store.objectio import ObjectBridge, Objects
from services.catalogd.store.pointers import Pointers
from services.catalogd.store.reader import Reader
from services.catalogd.store.registrar import Registrar
from services.catalogd.store.tools import Tools
from services.catalogd.store.versions import Versions
from services.catalogd.store.views import describe_table


@dataclass(frozen=True, slots=True)
class Rooms:
    """Reading and writing of datasets over one catalogue."""

    reader: Reader
    registrar: Registrar
    versions: Versions
    commits: Commits
    compactor: Compactor
    collector: Collector


def build_rooms(
    pointers: Pointers,
    warehouse: str,
    keep: int,
    figures: Figures,
    storage: tuple[str, Objects, asyncio.AbstractEventLoop] | None = None,
    find_key: Callable[[str], str | None] = lambda _: None,
) -> Rooms:
    """Opens the catalogue of a database and a warehouse.

    Args:
        storage: the bucket's address, storaged's client and its loop, where there is a bucket.
        find_key: the object's key for an address, where it is known.
    """
    catalog = DatasetCatalog(
        pointers,
        warehouse,
        lambda name, metadata: describe_table(name, metadata).model_dump_json(by_alias=True),
        ObjectBridge(*storage) if storage else None,
    )
    tools = Tools(pointers, catalog, Commits(figures), figures, keep, now_ms)
    return Rooms(
        Reader(pointers, catalog, find_key),
        Registrar(tools),
        Versions(tools),
        tools.commits,
        Compactor(tools),
        Collector(pointers, catalog),
    )


def now_ms() -> int:
    """The clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000
