"""Statistics of a table's columns, as one query and its row read back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.queryd.core.views import quote_name
from shared.wire.base import Column
from shared.wire.queryd import ColumnStatistics

# Columns that are looked at, and characters of a text that is least or greatest.
MOST_COLUMNS = 200
_TEXT = 100

_NUMBERS = (
    "TINYINT SMALLINT INTEGER BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT UHUGEINT "
    "FLOAT DOUBLE DECIMAL"
).split()
_ORDERED = [*_NUMBERS, "VARCHAR", "BOOLEAN", "DATE", "TIME", "TIMESTAMP", "UUID"]
# Per column: values that are not NULL, about how many different, least, greatest, mean.
_FIGURES = 5


def write_profile(table: str, columns: Sequence[Column]) -> str:
    """SQL that gives one row: the table's rows, then five figures for each column.

    Columns past `MOST_COLUMNS` are left out. Least and greatest are for types with an order,
    the mean for numbers.
    """
    parts = ["count(*)"]
    for column in columns[:MOST_COLUMNS]:
        name, base = quote_name(column.name), _base(column.type)
        least, greatest = f"min({name})", f"max({name})"
        if base == "VARCHAR":
            least, greatest = f"left({least}, {_TEXT})", f"left({greatest}, {_TEXT})"
        ordered = base in _ORDERED
        parts += [
            f"count({name})",
            f"approx_count_distinct({name})" if ordered else "NULL",
            least if ordered else "NULL",
            greatest if ordered else "NULL",
            f"avg({name})::DOUBLE" if base in _NUMBERS else "NULL",
        ]
    return f"SELECT {', '.join(parts)} FROM {quote_name(table)}"


def read_profile(columns: Sequence[Column], row: Sequence[Any]) -> list[ColumnStatistics]:
    """What the row of `write_profile` says of each column."""
    rows, figures = row[0], row[1:]
    found: list[ColumnStatistics] = []
    for i, column in enumerate(columns[:MOST_COLUMNS]):
        count, distinct, least, greatest, mean = figures[i * _FIGURES : (i + 1) * _FIGURES]
        found.append(
            ColumnStatistics(
                name=column.name,
                nulls=rows - count,
                # An estimate may exceed what there is.
                distinct=None if distinct is None else min(distinct, count),
                min=least,
                max=greatest,
                # A NaN among the values makes the mean one, which JSON shows as a text.
                mean=mean if isinstance(mean, int | float) else None,
            )
        )
    return found


def _base(sql_type: str) -> str:
    """The type without its numbers and zone: `DECIMAL(9,2)` is DECIMAL."""
    if sql_type.endswith("]"):
        return ""
    return sql_type.partition("(")[0].removesuffix(" WITH TIME ZONE").strip().upper()
