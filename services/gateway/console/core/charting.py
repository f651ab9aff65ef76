"""A chart of a query's result: which columns, which kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from services.gateway.console.core.plots import Plot, plot_values
from services.gateway.console.core.wording import is_number, write_cell
from shared.wire.base import Column

Kind = Literal["bar", "line"]


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn: columns by position, the kind, and the drawing (None: nothing to draw)."""

    across: int
    up: int
    kind: Kind
    plot: Plot | None
    cut: int


def choose_columns(columns: Sequence[Column]) -> tuple[int, int] | None:
    """Names from the first column, values from the first number behind it.

    Without a number there is no chart, and with one column its rows are the names.
    """
    numbers = [at for at, column in enumerate(columns) if is_number(column.type)]
    behind = [at for at in numbers if at > 0]
    if behind:
        return 0, behind[0]
    return (0, 0) if numbers else None


def choose_kind(columns: Sequence[Column], across: int) -> Kind:
    """A line over time and over numbers, bars over anything else."""
    kind = columns[across].type.upper()
    return "line" if kind.startswith(("DATE", "TIME")) or is_number(kind) else "bar"


def make_chart(
    columns: Sequence[Column],
    rows: Sequence[Sequence[Any]],
    *,
    across: int | None = None,
    up: int | None = None,
    kind: Kind | None = None,
) -> Chart | None:
    """The chart of a result, as asked or else as its columns suggest; None without numbers."""
    chosen = choose_columns(columns)
    if chosen is None or not rows:
        return None
    across = across if across is not None and 0 <= across < len(columns) else chosen[0]
    up = up if up is not None and 0 <= up < len(columns) else chosen[1]
    kind = kind or choose_kind(columns, across)
    names = [write_cell(row[across]) if across != up else str(n + 1) for n, row in enumerate(rows)]
    plot = plot_values(names, [_to_number(row[up]) for row in rows], kind)
    return Chart(across, up, kind, plot, len(rows) - len(plot.marks) if plot else 0)


def _to_number(value: Any) -> float | None:
    """Numbers too long for JSON come as text."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None
