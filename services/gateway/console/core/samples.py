"""Two snapshots of a dataset as the samples that observerd tells apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.gateway.console.core.plots import Plot, Point, plot_rows
from services.gateway.console.core.wording import is_number
from shared.wire.base import Column
from shared.wire.observerd_judging import DriftAnswer, DriftRequest, DriftRow, Kind

# Columns compared at once: the correction for many tests takes power from each.
MOST_COLUMNS = 20
# Texts of more different values than this are names, which have no distribution.
MOST_VALUES = 50


def choose_kinds(columns: Sequence[Column], session: str | None) -> dict[str, Kind]:
    """How each column is compared; dates and nested ones are left out."""
    kinds: dict[str, Kind] = {}
    for column in columns:
        if column.name == session:
            continue
        if is_number(column.type):
            kinds[column.name] = "numeric"
        elif column.type.upper() in ("VARCHAR", "BOOLEAN"):
            kinds[column.name] = "categorical"
    return kinds


def make_request(
    columns: Sequence[Column],
    before: Sequence[Sequence[Any]],
    now: Sequence[Sequence[Any]],
    session: str | None,
) -> DriftRequest | None:
    """The comparison of two samples of the same columns; None when no column can be compared.

    Without a `session` column each row counts for itself; the rows of the two samples are then
    numbered apart, for observerd leaves out what stands on both sides.
    """
    names = [column.name for column in columns]
    kinds = choose_kinds(columns, session)
    for name, kind in list(kinds.items()):
        at = names.index(name)
        values = {str(row[at]) for row in (*before, *now)}
        if (kind == "categorical" and len(values) > MOST_VALUES) or len(values) < 2:
            del kinds[name]
    kinds = dict(list(kinds.items())[:MOST_COLUMNS])
    if not kinds:
        return None
    place = names.index(session) if session in names else None
    return DriftRequest(
        reference=_to_rows(before, names, kinds, place, "before"),
        current=_to_rows(now, names, kinds, place, "now"),
        kinds=kinds,
    )


def plot_findings(answer: DriftAnswer) -> Plot | None:
    """Each column's effect with its interval."""
    return plot_rows(
        [
            Point(one.feature, one.effect, one.effect_low, one.effect_high)
            for one in answer.findings
            if one.effect is not None and one.effect_low is not None and one.effect_high is not None
        ]
    )


def _to_rows(
    rows: Sequence[Sequence[Any]],
    names: Sequence[str],
    kinds: dict[str, Kind],
    place: int | None,
    side: str,
) -> list[DriftRow]:
    return [
        DriftRow(
            session=str(row[place])[:200] or "-" if place is not None else f"{side} {number}",
            values={name: _to_value(row[names.index(name)], kind) for name, kind in kinds.items()},
        )
        for number, row in enumerate(rows)
    ]


def _to_value(value: Any, kind: Kind) -> Any:
    """Numbers as numbers, though long ones come as text; categories as text."""
    if value is None:
        return None
    if kind == "categorical":
        return str(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
