"""Plots as geometry: where each mark of a chart goes. Templates draw it, escaped, as SVG.

Everything is in pixels of the drawing's own box; a chart without a finite value is None, so
that a page can say that there is nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

WIDTH, HEIGHT = 720.0, 320.0
LEFT, RIGHT, TOP, BOTTOM = 68.0, 48.0, 30.0, 56.0
# Most bars that can be told apart, and the room of a label's letter.
MOST_BARS = 60
LETTER = 7.0
NAMES = 220.0
ROW = 26.0


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: its place and its words."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A bar, or a point with its interval; `low` and `high` equal `y` where there is none."""

    x: float
    y: float
    low: float
    high: float
    width: float
    height: float
    label: str
    series: int = 0


@dataclass(frozen=True, slots=True)
class Plot:
    """A chart: its axes, marks, and the lines between them."""

    width: float
    height: float
    y_ticks: list[Tick]
    x_ticks: list[Tick]
    zero: float | None
    marks: list[Mark]
    lines: list[str]
    kind: Literal["bar", "line", "interval", "rows"]
    left: float = LEFT
    right: float = WIDTH - RIGHT
    bottom: float = HEIGHT - BOTTOM


@dataclass(frozen=True, slots=True)
class Point:
    """A value with its interval at a place or under a name."""

    name: str
    value: float
    low: float
    high: float


def spark(values: Sequence[float], width: float = 120, height: float = 28) -> str:
    """The points of a sparkline as SVG has them; empty with fewer than two values."""
    if len(values) < 2:
        return ""
    top = max(max(values), 1e-9)
    step = width / (len(values) - 1)
    return " ".join(
        f"{i * step:.1f},{height - 2 - (height - 4) * value / top:.1f}"
        for i, value in enumerate(values)
    )


def find_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, about `wanted` of them."""
    # Values that differ by less than a number can hold are one.
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-290):
        high = low + (abs(low) if abs(low) > 1e-290 else 1.0)
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def write_tick(value: float) -> str:
    """A tick's number, short."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            divisor = 1e3 if unit == "k" else size
            return f"{value / divisor:g}{unit}"
    return f"{value:g}"


def plot_values(
    names: Sequence[str], values: Sequence[float | None], kind: Literal["bar", "line"]
) -> Plot | None:
    """A bar or a line for each value, evenly spaced in the order given."""
    pairs = [
        (name, value)
        for name, value in zip(names, values, strict=True)
        if value is not None and math.isfinite(value)
    ]
    if kind == "bar":
        pairs = pairs[:MOST_BARS]
    if not pairs:
        return None
    found = [value for _, value in pairs]
    # A bar's length is its value, so bars begin at nought; a line's height is only compared.
    low, high = min(found), max(found)
    if kind == "bar":
        low, high = min(0.0, low), max(0.0, high)
    scale = _Scale(find_ticks(low, high))
    room = (WIDTH - LEFT - RIGHT) / len(pairs)
    base = scale.place(0.0) if kind == "bar" else HEIGHT - BOTTOM
    marks: list[Mark] = []
    for number, (name, value) in enumerate(pairs):
        x, y = LEFT + room * (number + 0.5), scale.place(value)
        bar = min(48.0, room * 0.72)
        label = f"{name}: {value:g}"
        top, depth = min(y, base), max(abs(base - y), 0.5)
        if kind == "bar":
            marks.append(Mark(x - bar / 2, top, top, top, bar, depth, label))
        else:
            marks.append(Mark(x, y, y, y, 0, 0, label))
    line = [" ".join(f"{m.x:.1f},{m.y:.1f}" for m in marks)] if kind == "line" else []
    longest = max(len(_shorten(name)) for name, _ in pairs)
    every = math.ceil((longest + 1) * LETTER / room)
    x_ticks = [
        Tick(LEFT + room * (number + 0.5), _shorten(name))
        for number, (name, _) in enumerate(pairs)
        if number % every == 0
    ]
    zero = scale.place(0.0) if scale.low <= 0.0 <= scale.high else None
    return Plot(WIDTH, HEIGHT, scale.ticks(), x_ticks, zero, marks, line, kind)


def plot_curves(curves: Sequence[Sequence[Point]]) -> Plot | None:
    """Lines of points with intervals over the same named places, a little apart."""
    points = [point for curve in curves for point in curve]
    if not points:
        return None
    places = list(dict.fromkeys(point.name for point in points))
    scale = _Scale(
        find_ticks(min(0.0, *(p.low for p in points)), max(0.0, *(p.high for p in points)))
    )
    room = (WIDTH - LEFT - RIGHT) / len(places)
    marks: list[Mark] = []
    lines: list[str] = []
    for number, curve in enumerate(curves):
        shift = 10.0 * (number - (len(curves) - 1) / 2)
        own = [
            Mark(
                LEFT + room * (places.index(p.name) + 0.5) + shift,
                scale.place(p.value),
                scale.place(p.low),
                scale.place(p.high),
                0,
                0,
                f"{p.name}: {p.value:.3f} ({p.low:.3f} to {p.high:.3f})",
                number,
            )
            for p in curve
        ]
        marks += own
        lines.append(" ".join(f"{m.x:.1f},{m.y:.1f}" for m in own))
    x_ticks = [Tick(LEFT + room * (i + 0.5), name) for i, name in enumerate(places)]
    return Plot(WIDTH, HEIGHT, scale.ticks(), x_ticks, scale.place(0.0), marks, lines, "interval")


def plot_rows(points: Sequence[Point]) -> Plot | None:
    """A row for each named value with its interval, on one scale from left to right."""
    if not points:
        return None
    ticks = find_ticks(min(0.0, *(p.low for p in points)), max(0.0, *(p.high for p in points)))
    low, high = ticks[0], ticks[-1]
    left, right = NAMES, WIDTH - RIGHT

    def place(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    marks = [
        Mark(
            place(p.value),
            ROW * (number + 0.5) + 4,
            place(p.low),
            place(p.high),
            0,
            0,
            f"{p.name}: {p.value:+.3f} ({p.low:+.3f} to {p.high:+.3f})",
        )
        for number, p in enumerate(points)
    ]
    bottom = ROW * len(points) + 8
    names = [Tick(mark.y, _shorten(p.name, 34)) for mark, p in zip(marks, points, strict=True)]
    x_ticks = [Tick(place(tick), write_tick(tick)) for tick in ticks]
    return Plot(
        WIDTH, bottom + 28, names, x_ticks, place(0.0), marks, [], "rows", left, right, bottom
    )


class _Scale:
    """From values to heights: the lowest tick at the bottom, the highest at the top."""

    def __init__(self, values: list[float]) -> None:
        self.values = values
        self.low, self.high = values[0], values[-1]

    def place(self, value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (self.high - value) / (self.high - self.low)

    def ticks(self) -> list[Tick]:
        return [Tick(self.place(value), write_tick(value)) for value in self.values]


def _shorten(text: str, most: int = 12) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
