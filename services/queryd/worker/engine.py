"""One query's DuckDB: a database in memory of its own, locked down before the query runs.

The order matters: settings first, then views (they must open files), then the files that may
be read, then external access off, then the configuration locked. What the gate let through
runs against exactly the files of the datasets it names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from services.queryd.core.gate import Refusal, find_datasets
from services.queryd.core.jsontext import SqlType
from services.queryd.core.pace import choose_ahead_bytes, choose_batch_rows, guess_row_bytes
from services.queryd.core.statement import (
    Statement,
    check_parameters,
    locate,
    only_statement,
    parameter_names,
    read_statement,
    refuse_unserialized,
)
from services.queryd.core.views import (
    Table,
    common_folder,
    is_bare_cast,
    is_plain_type,
    is_remote,
    make_secret,
    make_view,
    probe_type,
    quote_text,
)
from services.queryd.worker.settings import WorkerSettings
from shared.errors import Internal, Invalid

# Share of the worker's memory that DuckDB manages itself, and spills to disk beyond; the rest
# is for what it allocates outside of its buffers, and for the answer on its way out.
_MANAGED = 0.65
_SERIALIZE = "SELECT json_serialize_sql($1::VARCHAR)"
_NESTED = frozenset(("list", "array", "struct", "map", "union"))


class Engine:
    """A database for one query. Make a new one for the next."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.connection = duckdb.connect(
            ":memory:",
            config={
                "threads": settings.threads,
                "memory_limit": f"{int(settings.memory_mb * _MANAGED)}MiB",
                "temp_directory": settings.scratch,
                "max_temp_directory_size": f"{settings.temp_mb}MiB",
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "allow_community_extensions": "false",
                "allow_persistent_secrets": "false",
                "extension_directory": settings.scratch,
                "home_directory": settings.scratch,
                "python_enable_replacements": "false",
                "errors_as_json": "true",
            },
        )
        self.connection.execute("SET TimeZone = 'UTC'")
        if settings.extension:
            run = self.connection.execute
            run(f"LOAD {quote_text(settings.extension)}")
            # A query's own deadline is shorter; what falters is tried again within it.
            run("SET http_retries = 6")
            run("SET http_retry_backoff = 2")
            run("SET enable_http_metadata_cache = true")
        self.used = False
        self.row_bytes = 0.0

    def plan(
        self, sql: str, parameters: list[Any] | dict[str, Any]
    ) -> tuple[Statement, tuple[str, ...]]:
        """Parses and gates the SQL; gives the statement to run and the datasets it reads.

        Raises:
            Invalid, Forbidden: it is not a statement that may run.
        """
        statement = read_statement(sql)
        reply = self._serialize(statement.text)
        if reply["error"]:
            raise refuse_unserialized(reply, sql, statement)
        root = only_statement(reply)
        try:
            datasets = find_datasets(root["node"])
        except Refusal as refusal:
            error = refusal.error
            if refusal.offset is not None:
                error.details.update(locate(sql, statement.offset + refusal.offset))
            raise error from None
        check_parameters(parameter_names(root), parameters)
        return statement, datasets

    def prepare(
        self,
        tables: Sequence[Table],
        *,
        lossless: bool,
        secret: Mapping[str, str | bool] | None = None,
    ) -> None:
        """Makes the datasets' views and locks everything down.

        Args:
            lossless: Arrow keeps types that only DuckDB has, for a second look at them.
            secret: what opens the bucket, where files may lie in one.
        """
        self.used = True
        folder = common_folder(tables) or self.settings.scratch
        os.chdir(folder)
        remote = [path for table in tables for path in table.files if is_remote(path)]
        if remote and secret:
            self._make_secret(secret, remote)
        for table in tables:
            self._make_view(table, folder)
        run = self.connection.execute
        files = [path for table in tables for path in table.files]
        self.row_bytes = guess_row_bytes(tables)
        run(f"SET streaming_buffer_size = '{choose_ahead_bytes(self.row_bytes)}B'")
        if lossless:
            run("SET arrow_lossless_conversion = true")
        run(f"SET allowed_paths = [{', '.join(map(quote_text, files))}]")
        run("SET enable_external_access = false")
        run("SET lock_configuration = true")

    def run(
        self, statement: Statement, parameters: list[Any] | dict[str, Any]
    ) -> tuple[list[tuple[str, SqlType]], pa.RecordBatchReader, int]:
        """Starts the statement; gives its columns, its rows as a stream, and rows per batch."""
        sql, given = statement.runnable, parameters or None
        if statement.profiles:
            # As a stream, it would tell the profile before the query has run.
            done = self.connection.sql(sql, params=given)
            columns = _read_columns(zip(done.columns, done.types, strict=True))
            rows = choose_batch_rows(columns, self.row_bytes)
            return columns, done.to_arrow_reader(rows), rows
        cursor = self.connection.execute(sql, given)
        columns = _read_columns((d[0], d[1]) for d in cursor.description or ())
        rows = choose_batch_rows(columns, self.row_bytes)
        return columns, cursor.to_arrow_reader(rows), rows

    def close(self) -> None:
        """Ends the database; its scratch files go with it."""
        self.connection.close()
        os.chdir(self.settings.scratch)

    def _make_secret(self, secret: Mapping[str, str | bool], files: Sequence[str]) -> None:
        try:
            self.connection.execute(make_secret(secret, files))
        except duckdb.Error:
            # Its text would hold the statement, and that the key.
            raise Internal("The bucket's key could not be used. See [storage].") from None

    def _make_view(self, table: Table, folder: str) -> None:
        for _, kind in table.columns:
            if not is_plain_type(kind) and not is_bare_cast(self._serialize(probe_type(kind))):
                raise Internal(f"Dataset '{table.name}' has a column type that cannot be read.")
        try:
            self.connection.execute(make_view(table, folder))
        except duckdb.BinderException:
            # A column of the catalogue that no file has yet.
            self.connection.execute(make_view(table, folder, tolerant=True))

    def _serialize(self, text: str) -> dict[str, Any]:
        row = self.connection.execute(_SERIALIZE, [text]).fetchone()
        try:
            return json.loads(row[0])  # pyright: ignore[reportOptionalSubscript]
        except RecursionError:
            raise Invalid("The SQL is nested too deeply. Simplify it.") from None


def _read_columns(described: Iterable[tuple[str, Any]]) -> list[tuple[str, SqlType]]:
    return [(name, read_type(kind)) for name, kind in described]


def read_type(kind: Any) -> SqlType:
    """DuckDB's description of a type as the core reads it."""
    if kind.id not in _NESTED:
        return SqlType(kind.id, str(kind))
    members = [(name, child) for name, child in kind.children if name != "size"]
    if kind.id == "union":
        members = members[1:]  # the first is the tag
    return SqlType(kind.id, str(kind), tuple((name, read_type(c)) for name, c in members))
