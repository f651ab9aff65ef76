"""Names of datasets become files to read: asked of catalogd for every query, so that rows
are there as soon as their ingest was answered.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Sequence
from typing import Protocol

from services.queryd.core.views import Table, readable_path
from shared.errors import NotFound
from shared.wire.catalogd import Dataset, Files


class Catalogue(Protocol):
    """What queryd asks catalogd; `shared.clients.catalogd` answers so."""

    async def list_files(self, name: str, snapshot: str | None = None) -> Files:
        """The files of a snapshot (an id or an RFC 3339 time), or of the current one."""
        ...

    async def get_dataset(self, name: str) -> Dataset:
        """A dataset by its current snapshot."""
        ...

    async def list_datasets(self) -> list[Dataset]:
        """All datasets."""
        ...

    async def check(self) -> str:
        """ "ok", or why catalogd cannot be asked."""
        ...

    async def aclose(self) -> None:
        """Closes the connections."""
        ...


async def resolve_tables(
    catalogue: Catalogue, names: Sequence[str], as_of: str | None, address: str = ""
) -> list[Table]:
    """The tables that a query reads, all asked for at once.

    Args:
        address: of the fleet's bucket, where it has one.

    Raises:
        NotFound: a dataset or its snapshot is not there; names what is near.
        Unprocessable: a dataset's files cannot be read from here.
    """
    tasks = [asyncio.ensure_future(_resolve(catalogue, name, as_of, address)) for name in names]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def list_tables(catalogue: Catalogue) -> list[str]:
    """Names of all datasets, sorted."""
    return sorted(dataset.name for dataset in await catalogue.list_datasets())


async def describe_table(catalogue: Catalogue, name: str) -> Dataset:
    """A dataset by its current snapshot.

    Raises:
        NotFound: there is none of this name; names what is near.
    """
    try:
        return await catalogue.get_dataset(name)
    except NotFound as error:
        raise await explain_missing(catalogue, name, error) from error


async def _resolve(catalogue: Catalogue, name: str, as_of: str | None, address: str) -> Table:
    try:
        files = await catalogue.list_files(name, as_of)
    except NotFound as error:
        raise await explain_missing(catalogue, name, error) from error
    return Table(
        name=name,
        columns=tuple((column.name, column.type) for column in files.columns),
        files=tuple(readable_path(name, file.uri, address) for file in files.files),
        row_bytes=sum(f.size for f in files.files) / max(sum(f.rows for f in files.files), 1),
    )


async def explain_missing(catalogue: Catalogue, name: str, error: NotFound) -> NotFound:
    """What to tell when catalogd does not know a dataset: the names nearest to it.

    `error` itself where the dataset is there: then it is its snapshot that is not.
    """
    names = await list_tables(catalogue)
    if name in names:
        return error
    near = difflib.get_close_matches(name, names, 3, 0.6)
    hint = (
        f"Did you mean {' or '.join(near)}?"
        if near
        else "GET /sql/tables lists those there are; POST /ingest makes new ones."
    )
    return NotFound(
        f"There is no dataset '{name}'. {hint}", details={"dataset": name, "did_you_mean": near}
    )
