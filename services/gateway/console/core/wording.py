"""Figures, times and cells in the words of a person."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

# Longest cell and text shown; more is cut, with a mark.
CELL = 300
MISSING = "\N{EN DASH}"
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def write_count(value: float | None) -> str:
    """12,345."""
    return MISSING if value is None else f"{value:,.0f}"


def write_size(value: float) -> str:
    """1.5 MiB."""
    for unit in _SIZES[:-1]:
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_SIZES[-1]}"


def write_rate(value: float | None) -> str:
    """Requests a second, with as many digits as mean something."""
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def write_figure(value: float | None, digits: int = 3) -> str:
    """A measured figure."""
    return MISSING if value is None else f"{value:.{digits}f}"


def write_signed(value: float | None, digits: int = 3) -> str:
    """A difference."""
    return MISSING if value is None else f"{value:+.{digits}f}"


def write_duration(seconds: float | None) -> str:
    """2 d 3 h, 4 min 5 s, 120 ms."""
    if seconds is None:
        return MISSING
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for size, name, part, part_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // part} {part_name}"
    return f"{whole // 60} min {whole % 60} s"


def read_time(text: str | None) -> datetime | None:
    """An RFC 3339 time, None where there is none."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def write_time(text: str | None) -> str:
    """A time as the daemons write it, to the second, in UTC."""
    found = read_time(text)
    return MISSING if found is None else f"{found.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def write_cell(value: Any) -> str:
    """A value of a table as text; nested ones as JSON."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, dict | list):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = str(value)
    return cut(text, CELL)


def write_json(value: Any) -> str:
    """A value as JSON over several lines."""
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)


def cut(text: str, most: int) -> str:
    """At most so many characters, with a mark where something is missing."""
    return text if len(text) <= most else text[: most - 1] + "…"


def is_number(column_type: str) -> bool:
    """Whether a SQL type is a number."""
    name = column_type.partition("(")[0].upper()
    return name in _NUMBERS


_NUMBERS = frozenset(
    "TINYINT SMALLINT INTEGER BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT UHUGEINT "
    "FLOAT DOUBLE DECIMAL".split()
)
