"""Plots as inline SVG, drawn with the page's own colours."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 160, 16, 44
COLOURS = ("var(--one)", "var(--two)", "var(--three)")
BAR, LINE = 22, 14
NAMES = 210


def draw_curves(
    curves: Mapping[str, Sequence[tuple[float, float, float, float]]], across: str, up: str
) -> str:
    """Lines of (x, value, low, high), on a shared scale, x spaced evenly."""
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return ""
    places = sorted({point[0] for point in points})
    low = min(0.0, *(point[2] for point in points))
    high = max(0.01, *(point[3] for point in points))
    pad = 0.06 * (high - low)
    low, high = low - pad, high + pad
    step = (WIDTH - LEFT - RIGHT) / max(1, len(places))

    def put_x(x: float, shift: float) -> float:
        return LEFT + step * (places.index(x) + 0.5) + shift

    def put_y(y: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - y) / (high - low)

    parts = [_frame(WIDTH, HEIGHT, f"{up} by {across}")]
    ticks = _ticks(low, high)
    # Ticks less than a hundredth apart would read alike with two digits.
    digits = 3 if len(ticks) > 1 and ticks[1] - ticks[0] < 0.0099 else 2
    for tick in ticks:
        y = put_y(tick)
        weight = 1.4 if tick == 0 else 0.5
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
            f'stroke="var(--soft)" stroke-width="{weight}" opacity=".5"/>'
            + _label(LEFT - 8, y + 4, f"{tick:+.{digits}f}", "end")
        )
    for x in places:
        parts.append(_label(put_x(x, 0), HEIGHT - 22, f"{x:g}", "middle"))
    parts.append(_label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, across, "middle"))
    for number, curve in enumerate(curves.values()):
        if not curve:
            continue
        colour, shift = COLOURS[number % len(COLOURS)], 8.0 * number - 4
        line = " ".join(f"{put_x(x, shift):.1f},{put_y(y):.1f}" for x, y, _, _ in curve)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, y, bottom, top in curve:
            at = put_x(x, shift)
            parts.append(
                f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{put_y(bottom):.1f}" '
                f'y2="{put_y(top):.1f}" stroke="{colour}" stroke-width="1.5"/>'
                f'<circle cx="{at:.1f}" cy="{put_y(y):.1f}" r="3.5" fill="{colour}"/>'
            )
    ends = {name: put_y(curve[-1][1]) + 4 for name, curve in curves.items() if curve}
    for name, y in _spread(ends).items():
        colour = COLOURS[list(curves).index(name) % len(COLOURS)]
        parts.append(_label(WIDTH - RIGHT + 8, y, name, "start", colour))
    return "".join(parts) + "</svg>"


def draw_bars(rows: Mapping[str, tuple[float, float, float]]) -> str:
    """One bar a row, (value, low, high), around zero."""
    if not rows:
        return ""
    low = min(0.0, *(each[1] for each in rows.values()))
    high = max(0.01, *(each[2] for each in rows.values()))
    height = TOP + BAR * len(rows) + 8

    def put_x(x: float) -> float:
        return NAMES + (WIDTH - NAMES - 24) * (x - low) / (high - low)

    parts = [_frame(WIDTH, height, "change of nDCG@10 by arm")]
    for number, (name, (value, bottom, top)) in enumerate(rows.items()):
        y = TOP + BAR * number
        colour = "var(--good)" if value >= 0 else "var(--bad)"
        left, right = sorted((put_x(0), put_x(value)))
        middle = y + BAR / 2 - 3
        parts.append(
            _label(NAMES - 10, y + BAR - 9, name, "end")
            + f'<rect x="{left:.1f}" y="{y}" width="{max(1.0, right - left):.1f}" '
            f'height="{BAR - 6}" fill="{colour}" opacity=".55"/>'
            f'<line x1="{put_x(bottom):.1f}" x2="{put_x(top):.1f}" y1="{middle}" y2="{middle}" '
            'stroke="var(--ink)" stroke-width="1.4"/>'
        )
    zero = put_x(0)
    parts.append(
        f'<line x1="{zero:.1f}" x2="{zero:.1f}" y1="{TOP - 6}" y2="{height - 6}" '
        'stroke="var(--soft)"/>'
    )
    return "".join(parts) + "</svg>"


def _frame(width: float, height: float, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" '
        f'aria-label="{html.escape(title)}" font-family="system-ui,sans-serif" font-size="12">'
    )


def _label(x: float, y: float, text: str, anchor: str, colour: str = "var(--soft)") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">'
        f"{html.escape(text)}</text>"
    )


def _spread(places: Mapping[str, float]) -> dict[str, float]:
    """The labels' heights, from the top, each far enough below the one before to be read."""
    found: dict[str, float] = {}
    least = -math.inf
    for name, y in sorted(places.items(), key=lambda item: item[1]):
        found[name] = max(y, least)
        least = found[name] + LINE
    return found


def _ticks(low: float, high: float) -> list[float]:
    span = high - low
    step = next(s for s in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if span / s <= 8)
    first = int(low / step) - 1
    return [
        round(n * step, 6) for n in range(first, int(high / step) + 2) if low <= n * step <= high
    ]
