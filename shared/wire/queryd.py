"""queryd: SQL over the catalogue."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from shared.wire.base import Column, Request, Response

SQL_PATH = "/sql"
TABLES_PATH = "/sql/tables"

# Answer formats beside JSON.
ARROW_TYPE = "application/vnd.apache.arrow.stream"
NDJSON_TYPE = "application/x-ndjson"
CSV_TYPE = "text/csv"
PARQUET_TYPE = "application/vnd.apache.parquet"
# "true" or "false" on a CSV answer whose end was seen before its headers were sent.
TRUNCATED_HEADER = "x-truncated"
# The key of NDJSON's last line when rows were left out; its value is true.
TRUNCATED_KEY = "$truncated"
# Metadata of the batch without rows that ends an Arrow stream, and of a Parquet file: "true" or
# "false", and a count.
ARROW_TRUNCATED = "lakehouse.truncated"
ARROW_ROW_COUNT = "lakehouse.row_count"

Engine = Literal["duckdb", "spark"]


class SqlRequest(Request):
    """One SELECT (or EXPLAIN of one).

    `params` bind to `?` or `$1` in order, or to `$name` as an object. `timeout_s` and
    `max_rows` can only lower the server's limits. `as_of` is a snapshot id, an
    RFC 3339 time or a tag, applied to every table of the query.
    """

    sql: str = Field(min_length=1, max_length=1_000_000)
    params: list[Any] | dict[str, Any] = []
    timeout_s: float | None = Field(default=None, gt=0)
    max_rows: int | None = Field(default=None, ge=0)
    as_of: str | None = None
    engine: Engine = "duckdb"


class SqlResult(Response):
    """The JSON answer. `truncated` says that more rows exist than were returned."""

    columns: list[Column]
    rows: list[list[Any]]
    row_count: int
    truncated: bool
    elapsed_ms: float


class ColumnStatistics(Response):
    """One column: its NULLs, about how many different values, least, greatest and mean.

    Values look as in `SqlResult`, texts cut to 100 characters; None where a type has no such
    figure.
    """

    name: str
    nulls: int
    distinct: int | None = None
    min: Any = None
    max: Any = None
    mean: float | None = None


class TableInfo(Response):
    """One table as SQL sees it, with the first few rows of it.

    `statistics` is of the first 200 columns, and None where they were not made.

    `rows`, `bytes` and `files` are of the snapshot `snapshot_id`; `updated_at` is RFC 3339
    in UTC. The values of `sample` look as in `SqlResult`.
    """

    name: str
    columns: list[Column]
    rows: int
    sample: list[list[Any]] = []
    statistics: list[ColumnStatistics] | None = None
    snapshot_id: str = ""
    bytes: int = 0
    files: int = 0
    updated_at: str = ""


class TableList(Response):
    """All tables that a query may name."""

    tables: list[str]
