"""queryd: SQL over the catalogue."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from shared.wire.base import Column, Request, Response

Engine = Literal["duckdb", "spark"]


class SqlRequest(Request):
    """One SELECT (or EXPLAIN of one).

    `params` bind to `?` or `$1` in order, or to `$name` as an object. `timeout_s` and
    `max_rows` can only lower the server's limits. `as_of` is a snapshot id or an
    RFC 3339 time, applied to every table of the query.
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


class TableInfo(Response):
    """One table as SQL sees it, with a few rows of it."""

    name: str
    columns: list[Column]
    rows: int
    sample: list[list[Any]] = []


class TableList(Response):
    """All tables that a query may name."""

    tables: list[str]
