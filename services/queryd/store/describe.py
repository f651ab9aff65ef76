"""What a table is: its columns, its first rows, and statistics of its columns."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import orjson

from services.queryd.core.accept import Format
from services.queryd.core.limits import choose_timeout
from services.queryd.core.profile import read_profile, write_profile
from services.queryd.core.views import quote_name
from services.queryd.store.catalogue import Catalogue, describe_table
from services.queryd.store.runner import Query, Runner
from shared import context
from shared.errors import LakehouseError
from shared.wire.catalogd import Dataset
from shared.wire.queryd import ColumnStatistics, TableInfo

# Rows of a table that its description shows, and the seconds they may take.
_SAMPLE_ROWS = 5
_SAMPLE_S = 10.0
# What a table may hold for statistics to be made unasked, and the seconds they may then take.
_SMALL_BYTES = 64 << 20
_UNASKED_S = 3.0
# Snapshots whose statistics are kept: they never change.
_KEPT = 256


class Describer:
    """Describes tables; remembers the statistics of snapshots."""

    def __init__(self, runner: Runner, catalogue: Catalogue) -> None:
        self._runner = runner
        self._catalogue = catalogue
        self._known: OrderedDict[tuple[str, str], list[ColumnStatistics]] = OrderedDict()

    async def describe(self, name: str, statistics: bool | None, caller: str) -> TableInfo:
        """One table by its current snapshot.

        Args:
            statistics: None makes them where the table is small enough, or they are known.
            caller: whose the queries are.

        Raises:
            NotFound: there is no such table.
            LakehouseError: the sample, or statistics that were asked for, could not be read.
        """
        dataset = await describe_table(self._catalogue, name)
        sql = f"SELECT * FROM {quote_name(dataset.name)}"
        sample = await self._ask(dataset, sql, _SAMPLE_ROWS, _SAMPLE_S, caller)
        return TableInfo(
            name=dataset.name,
            columns=dataset.columns,
            rows=dataset.rows,
            sample=sample,
            statistics=await self._find_statistics(dataset, statistics, caller),
            snapshot_id=dataset.snapshot_id,
            bytes=dataset.bytes,
            files=dataset.files,
            updated_at=dataset.updated_at,
        )

    async def _find_statistics(
        self, dataset: Dataset, asked: bool | None, caller: str
    ) -> list[ColumnStatistics] | None:
        key = dataset.uuid, dataset.snapshot_id
        if key in self._known:
            self._known.move_to_end(key)
            return None if asked is False else self._known[key]
        if asked is False or (asked is None and dataset.bytes > _SMALL_BYTES):
            return None
        limit = self._runner.section.query_timeout_s if asked else _UNASKED_S
        sql = write_profile(dataset.name, dataset.columns)
        try:
            rows = await self._ask(dataset, sql, 1, limit, caller)
        except LakehouseError:
            if asked:
                raise
            return None
        found = self._known[key] = read_profile(dataset.columns, rows[0])
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return found

    async def _ask(
        self, dataset: Dataset, sql: str, rows: int, limit_s: float, caller: str
    ) -> list[list[Any]]:
        query = Query(
            sql=sql,
            params=[],
            form=Format.JSON,
            timeout_s=choose_timeout(
                limit_s, context.remaining_s(), self._runner.section.query_timeout_s
            ),
            max_rows=rows,
            as_of=dataset.snapshot_id or None,
            caller=caller,
        )
        return orjson.loads(await self._runner.read_all(query))["rows"]
