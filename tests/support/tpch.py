"""TPC-H: tables as Parquet files, the 22 queries, and their published answers.

Generator, queries and answers are those of DuckDB's own extension, which comes as a wheel of
the very version of DuckDB.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import duckdb_extension_tpch

QUERIES = range(1, 23)
# Averages are binary fractions: their last digits depend on the order in which threads add up.
TOLERANCE = 1e-9


def connect() -> duckdb.DuckDBPyConnection:
    """A database in memory with the extension loaded."""
    folder = Path(duckdb_extension_tpch.__file__).parent
    (extension,) = folder.glob(f"extensions/v{duckdb.__version__}/tpch.duckdb_extension")
    connection = duckdb.connect()
    connection.execute(f"LOAD '{extension}'")
    return connection


def write_tables(folder: Path, scale: float) -> dict[str, Path]:
    """Generates the eight tables as Parquet files in `folder`, at `scale` GB of text."""
    made: dict[str, Path] = {}
    with connect() as connection:
        connection.execute(f"CALL dbgen(sf = {scale})")
        for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            made[name] = folder / f"{name}.parquet"
            connection.execute(f"COPY {name} TO '{made[name]}' (FORMAT parquet, COMPRESSION zstd)")
    return made


def load_queries() -> dict[int, str]:
    """The queries by number."""
    with connect() as connection:
        return dict(connection.execute("SELECT query_nr, query FROM tpch_queries()").fetchall())


def load_answers(scale: float) -> dict[int, str]:
    """The answers by the query's number: a header, then rows, with fields cut by `|`."""
    with connect() as connection:
        rows = connection.execute(
            "SELECT query_nr, answer FROM tpch_answers() WHERE scale_factor = ?", [scale]
        )
        return dict(rows.fetchall())


def find_difference(names: Sequence[str], rows: Sequence[Sequence[Any]], answer: str) -> str:
    """What of a result is not as the answer says, in order; empty when all is."""
    lines = answer.strip("\n").split("\n")
    # DuckDB names a nameless sum by its argument as well.
    if [name.partition("(")[0] for name in names] != lines[0].split("|"):
        return f"columns {list(names)} instead of {lines[0]}"
    if len(rows) != len(lines) - 1:
        return f"{len(rows)} rows instead of {len(lines) - 1}"
    for number, (row, line) in enumerate(zip(rows, lines[1:], strict=True)):
        expected = line.split("|")
        if len(expected) != len(row) or not all(map(_is_same, row, expected)):
            return f"row {number} is {row} instead of {line}"
    return ""


def _is_same(value: Any, text: str) -> bool:
    if isinstance(value, float):
        return math.isclose(value, float(text), rel_tol=TOLERANCE)
    if isinstance(value, Decimal | int):
        return value == Decimal(text)
    return str(value) == text
