"""What the reports of playbook_lift and of drift say, made ready for plots.

A report is a file that a person may have edited or an older version wrote: what is missing
or of another kind is left out of the page, and never breaks it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from services.gateway.console.core.plots import Plot, Point, plot_curves, plot_rows

Json = dict[str, Any]
# Arms whose names end in how many recordings came before.
CURVES = ("paraphrase", "unseen")


@dataclass(frozen=True, slots=True)
class LiftView:
    """A report of playbook_lift."""

    name: str
    at: str
    passed: bool
    checks: list[Json]
    facts: list[tuple[str, str]]
    cold: list[tuple[str, Json]]
    learning: Plot | None
    arms: Plot | None
    merged: Table | None


@dataclass(frozen=True, slots=True)
class Table:
    """Figures by row, each row's in the order of the columns; None where there is none."""

    columns: list[str]
    rows: list[tuple[str, list[float | None]]]


@dataclass(frozen=True, slots=True)
class DriftView:
    """A curve of false alarms, or the figures of stream alarms where there are no rates."""

    name: str
    rows: list[Json]
    alarms: Plot | None
    power: Plot | None


def view_lift(report: Any) -> LiftView | None:
    """A report of playbook_lift; None when it is something else."""
    whole, run, arms = _mapping(report), _mapping(_mapping(report).get("run")), {}
    arms = {n: p for n, arm in _mapping(whole.get("arms")).items() if (p := _effect(n, arm))}
    merged = _table(_mapping(run.get("merged")))
    if not arms and merged is None:
        return None
    about = _mapping(whole.get("set"))
    facts = [
        ("Documents", about.get("documents")),
        ("Corpora", about.get("corpora")),
        ("Judged queries", about.get("judged_queries")),
        ("Topics recorded", run.get("topics_recorded")),
        ("Seeds", ", ".join(str(seed) for seed in _list(run.get("reported_seeds")))),
    ]
    cold = [(n, _mapping(row)) for n, row in _mapping(whole.get("cold")).items() if row]
    curves = [_curve(kind, arms) for kind in CURVES]
    return LiftView(
        name=str(about.get("name") or "unnamed"),
        at=str(run.get("at") or ""),
        passed=whole.get("passed") is True,
        checks=[_mapping(check) for check in _list(whole.get("checks"))],
        facts=[(name, str(value)) for name, value in facts if value not in (None, "")],
        cold=cold,
        learning=plot_curves(curves) if all(curves) else None,
        arms=plot_rows(list(arms.values())) if arms else None,
        merged=merged,
    )


def view_drift(name: str, report: Any) -> DriftView | None:
    """A report under reports/drift; None when it is something else."""
    rows = [_mapping(row) for row in _list(report)]
    if not rows or not all(rows):
        return None
    return DriftView(
        name=name,
        rows=rows,
        alarms=plot_curves([found]) if (found := _rates(rows)) else None,
        power=plot_curves([found]) if (found := _powers(rows)) else None,
    )


def _table(merged: Mapping[str, Any]) -> Table | None:
    """The figures of corpora of different content, merged; the first row says which there are."""
    rows = {name: found for name, row in merged.items() if (found := _mapping(row))}
    first = next(iter(rows.values()), None) or {}
    columns = list(first)
    told = [
        (name, [_number(row.get(column)) for column in columns])
        for name, row in rows.items()
        if any(column in row for column in columns)
    ]
    return Table(columns, told) if told else None


def _curve(kind: str, arms: Mapping[str, Point]) -> list[Point]:
    sizes = sorted(
        (int(tail), point)
        for name, point in arms.items()
        for head, _, tail in [name.partition(" ")]
        if head == kind and tail.isdigit()
    )
    return [Point(str(size), p.value, p.low, p.high) for size, p in sizes]


def _effect(name: str, arm: Any) -> Point | None:
    found = [_number(_mapping(arm).get(key)) for key in ("delta", "low", "high")]
    if any(value is None for value in found):
        return None
    value, low, high = cast("list[float]", found)
    return Point(name, value, low, high)


def _rates(rows: Sequence[Json]) -> list[Point]:
    points: list[Point] = []
    for row in rows:
        rate = _number(row.get("rate"))
        bounds = [_number(value) for value in _list(row.get("interval_95"))]
        if rate is None or len(bounds) != 2 or bounds[0] is None or bounds[1] is None:
            continue
        points.append(Point(str(row.get("size", "")), rate, bounds[0], bounds[1]))
    return points


def _powers(rows: Sequence[Json]) -> list[Point]:
    """Power with the 95 % interval of its own trials (Wilson's)."""
    points: list[Point] = []
    for row in rows:
        power, trials = _number(row.get("power")), _number(row.get("power_reps"))
        if power is not None and trials:
            low, high = find_wilson(power, trials)
            points.append(Point(str(row.get("size", "")), power, low, high))
    return points


def find_wilson(rate: float, trials: float, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a rate (E. B. Wilson, JASA 22, 1927)."""
    square = z * z / trials
    middle = rate + square / 2
    spread = z * math.sqrt(rate * (1 - rate) / trials + square / (4 * trials))
    return (middle - spread) / (1 + square), (middle + spread) / (1 + square)


def _number(value: Any) -> float | None:
    fit = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fit else None


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []
