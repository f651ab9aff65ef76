"""The SQL that makes a dataset's files a table, typed as the catalogue types it."""

from __future__ import annotations

import os.path
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from shared.errors import Unprocessable

_SCHEME = "file://"
# Types that need no second look before they are written into SQL.
_PLAIN_TYPE = re.compile(r"[A-Z][A-Z_]*(?: [A-Z]+)*(?:\(\d+(?:,\s*\d+)?\))?(?:\[\d*\])*")


@dataclass(frozen=True, slots=True)
class Table:
    """One dataset as a query reads it.

    `columns` are (name, SQL type) in order; `files` are absolute paths of Parquet files, or
    s3:// addresses of the fleet's bucket;
    `row_bytes` is what a row takes in them, on average.
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    files: tuple[str, ...]
    row_bytes: float = 0.0


def readable_path(dataset: str, uri: str, bucket: str) -> str:
    """What a worker opens a file by.

    Args:
        bucket: what the addresses in the fleet's bucket begin with; empty without one.

    Raises:
        Unprocessable: the file is elsewhere.
    """
    return uri if is_remote(uri) and bucket and uri.startswith(bucket) else local_path(dataset, uri)


def is_remote(path: str) -> bool:
    """Whether a file lies in a bucket."""
    return path.startswith("s3://")


def local_path(dataset: str, uri: str) -> str:
    """The path that a file's address means on this machine.

    Raises:
        Unprocessable: the file is not on this machine.
    """
    if uri.startswith(_SCHEME) and uri[len(_SCHEME) :].startswith("/"):
        return uri[len(_SCHEME) :]
    if uri.startswith("/"):
        return uri
    raise Unprocessable(
        f"Dataset '{dataset}' has files at {uri.split(':', 1)[0]}: addresses, "
        "and this queryd does not read there.",
        details={"dataset": dataset},
    )


def common_folder(tables: Sequence[Table]) -> str | None:
    """The deepest folder that holds all files, or None where there are none.

    A worker stands in it and names files from there, so that no message or plan shows where
    on the server the data lies.
    """
    local = [path for table in tables for path in table.files if not is_remote(path)]
    folders = {os.path.dirname(path) for path in local}
    return os.path.commonpath(folders) if folders else None


def is_plain_type(sql_type: str) -> bool:
    """Whether a type is a bare word with numbers, safe to write into SQL as it is."""
    return _PLAIN_TYPE.fullmatch(sql_type) is not None


def probe_type(sql_type: str) -> str:
    """A statement whose tree `is_bare_cast` can judge."""
    return f"SELECT CAST(NULL AS {sql_type})"


def is_bare_cast(reply: Mapping[str, Any]) -> bool:
    """Whether `json_serialize_sql` of `probe_type` is one cast of NULL and nothing else.

    Members of a struct bring their own names into a type; one that broke out of its quotes
    would be SQL of its own.
    """
    statements = cast("list[Mapping[str, Any]]", reply.get("statements") or [])
    if reply.get("error") or len(statements) != 1:
        return False
    node = cast("Mapping[str, Any]", statements[0]["node"])
    selected = cast("list[Mapping[str, Any]]", node.get("select_list") or [])
    return (
        node["type"] == "SELECT_NODE"
        and not node["modifiers"]
        and not node["cte_map"]["map"]
        and node["from_table"]["type"] == "EMPTY"
        and node["where_clause"] is None
        and len(selected) == 1
        and selected[0]["class"] == "CAST"
        and selected[0]["child"]["class"] == "CONSTANT"
        and not selected[0]["alias"]
    )


def make_view(table: Table, folder: str, *, tolerant: bool = False) -> str:
    """The CREATE VIEW statement of a dataset.

    Every column is cast to the catalogue's type, which costs nothing where the file has it
    already. Files of an evolved dataset are matched by name, absent columns being NULL.

    Args:
        folder: where the worker stands; files are named from there.
        tolerant: also bear columns that no file has, at the price of a UNION in the plan.

    Raises:
        Unprocessable: the dataset has no columns.
    """
    if not table.columns:
        raise Unprocessable(f"Dataset '{table.name}' has no columns to read.")
    name = quote_name(table.name)
    if not table.files:
        return f"CREATE VIEW {name} AS {_make_empty(table)}"
    files = ", ".join(
        quote_text(path if is_remote(path) else os.path.relpath(path, folder))
        for path in table.files
    )
    source = (
        f"read_parquet([{files}], union_by_name => true, "
        "hive_partitioning => false, filename => false)"
    )
    if tolerant:
        source = f"({_make_empty(table)} UNION ALL BY NAME SELECT * FROM {source})"
    columns = ", ".join(
        f"CAST({quote_name(column)} AS {kind}) AS {quote_name(column)}"
        for column, kind in table.columns
    )
    return f"CREATE VIEW {name} AS SELECT {columns} FROM {source}"


def _make_empty(table: Table) -> str:
    columns = ", ".join(
        f"CAST(NULL AS {kind}) AS {quote_name(column)}" for column, kind in table.columns
    )
    return f"SELECT {columns} WHERE false"


def quote_name(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """An SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def make_secret(facts: Mapping[str, str | bool], files: Sequence[str]) -> str:
    """The CREATE SECRET statement by which these files in a bucket are read, and no others."""
    scope = ", ".join(map(quote_text, files))
    values = [
        f"{name.upper()} {quote_text(value) if isinstance(value, str) else str(value).lower()}"
        for name, value in facts.items()
        if value != ""
    ]
    return f"CREATE SECRET (TYPE s3, {', '.join(values)}, SCOPE [{scope}])"
