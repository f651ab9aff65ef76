"""Tools over tables: what there is, what it looks like, and SQL."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from services.mcpd.core.caps import Room, fit_rows
from shared.clients.gateway import Gateway
from shared.sections.mcp import McpdSection
from shared.wire.catalogd import DATASET_NAME
from shared.wire.mcpd import (
    Cell,
    DatasetDescribed,
    DatasetRow,
    DatasetsListed,
    SqlAnswered,
    ToolColumn,
)
from shared.wire.queryd import SqlRequest

DatasetName = Annotated[
    str, Field(description="Name of the dataset, as list_datasets gives it", pattern=DATASET_NAME)
]


class DataTools:
    """Tools over datasets.

    Args:
        gateway: the way to all of it.
        section: how much an answer may hold.
    """

    def __init__(self, gateway: Gateway, section: McpdSection) -> None:
        self._gateway = gateway
        self._section = section

    async def list_datasets(self) -> DatasetsListed:
        """Lists all datasets that SQL can read, with their sizes."""
        found = await self._gateway.catalog.list_datasets()
        rows = [
            DatasetRow(
                name=each.name,
                rows=each.rows,
                columns=len(each.columns),
                updated_at=each.updated_at,
            )
            for each in found
        ]
        room = self._room()
        kept = room.fit(rows[: self._section.max_rows], lambda row: len(row.name) + 80)
        return DatasetsListed(datasets=kept, total=len(rows), truncated=len(kept) < len(rows))

    async def describe_dataset(self, name: DatasetName) -> DatasetDescribed:
        """Shows one dataset: its columns with their SQL types, its size and a few rows."""
        found = await self._gateway.query.get_table(name)
        room = self._room()
        return DatasetDescribed(
            name=found.name,
            rows=found.rows,
            snapshot_id=found.snapshot_id,
            updated_at=found.updated_at,
            columns=[ToolColumn(name=c.name, type=c.type) for c in found.columns],
            sample=fit_rows(found.sample, self._section.max_rows, room),
            truncated=room.truncated,
        )

    async def run_sql(
        self,
        sql: Annotated[
            str,
            Field(
                description="One SELECT in DuckDB's dialect, tables by their dataset's name; "
                "values from users belong into params, not here",
                min_length=1,
                max_length=100_000,
            ),
        ],
        params: Annotated[
            list[Cell] | None,
            Field(description="Values for ? or $1, $2 in the statement", max_length=1000),
        ] = None,
        max_rows: Annotated[
            int,
            Field(description="Most rows in the answer; aggregate instead of reading all", ge=1),
        ] = 100,
        as_of: Annotated[
            str | None,
            Field(
                description="A snapshot id or an RFC 3339 time: the tables as they were then",
                max_length=64,
            ),
        ] = None,
    ) -> SqlAnswered:
        """Runs one SELECT over the datasets and gives its rows."""
        wanted = min(max_rows, self._section.max_rows)
        answer = await self._gateway.query.run_query(
            SqlRequest(
                sql=sql,
                params=params or [],
                max_rows=wanted,
                timeout_s=self._section.max_seconds,
                as_of=as_of,
            )
        )
        room = self._room()
        rows = fit_rows(answer.rows, wanted, room)
        return SqlAnswered(
            columns=[ToolColumn(name=c.name, type=c.type) for c in answer.columns],
            rows=rows,
            row_count=len(rows),
            truncated=answer.truncated or room.truncated,
            elapsed_ms=answer.elapsed_ms,
        )

    def _room(self) -> Room:
        return Room(self._section.max_chars, self._section.max_cell_chars)
