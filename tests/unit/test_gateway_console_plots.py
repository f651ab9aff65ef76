"""Chart maths: ticks, bars, lines, intervals, sparklines, and which columns are drawn."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.console.core import plots
from services.gateway.console.core.charting import choose_columns, make_chart
from services.gateway.console.core.plots import Point, find_ticks, plot_rows, plot_values, spark
from shared.wire.base import Column

NAME, COUNT, DAY = (
    Column(name="name", type="VARCHAR"),
    Column(name="n", type="BIGINT"),
    Column(name="day", type="DATE"),
)
finite = st.floats(-1e12, 1e12, allow_nan=False)


@given(finite, finite)
def test_ticks_are_round_rising_and_hold_the_range(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    if high - low < 1e-6 * max(1.0, abs(low), abs(high)):
        return
    ticks = find_ticks(low, high)
    assert ticks == sorted(set(ticks))
    assert 2 <= len(ticks) <= 12
    slack = (high - low) * 1e-6
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack


def test_ticks_of_one_value_are_still_a_scale() -> None:
    assert find_ticks(0, 0)[-1] > 0
    assert find_ticks(5, 5)[-1] >= 10


def test_a_bar_is_as_long_as_its_value_and_begins_at_nought() -> None:
    plot = plot_values(["a", "b", "c"], [10.0, 20.0, -10.0], "bar")
    assert plot is not None
    assert plot.zero is not None
    one, two, three = plot.marks
    assert two.height == pytest.approx(2 * one.height)
    assert three.height == pytest.approx(one.height)
    assert one.y + one.height == pytest.approx(plot.zero)
    assert three.y == pytest.approx(plot.zero)


@given(st.lists(st.one_of(st.none(), finite), max_size=200), st.sampled_from(["bar", "line"]))
def test_every_mark_lies_inside_the_drawing(values: list[float | None], kind: str) -> None:
    plot = plot_values([str(i) for i in range(len(values))], values, kind)  # type: ignore[arg-type]
    usable = [value for value in values if value is not None]
    assert (plot is None) == (not usable)
    if plot is None:
        return
    assert len(plot.marks) == min(len(usable), plots.MOST_BARS if kind == "bar" else 10**6)
    for mark in plot.marks:
        assert plot.left - 1e-6 <= mark.x <= plot.right + 1e-6
        assert 0 <= mark.y <= plot.bottom + 1
        assert mark.y + mark.height <= plot.bottom + 1


def test_numbers_that_are_none_are_left_out() -> None:
    assert plot_values(["a"], [None], "bar") is None
    assert plot_values(["a", "b"], [math.nan, math.inf], "line") is None
    assert plot_values([], [], "line") is None


def test_labels_do_not_lie_on_each_other() -> None:
    plot = plot_values([f"a long name {i}" for i in range(40)], [1.0] * 40, "bar")
    assert plot is not None
    gaps = [b.at - a.at for a, b in zip(plot.x_ticks, plot.x_ticks[1:], strict=False)]
    assert min(gaps) >= plots.LETTER * max(len(tick.text) for tick in plot.x_ticks)


def test_an_interval_spans_its_ends_on_the_scale() -> None:
    plot = plot_rows([Point("a", 0.5, 0.25, 1.0), Point("b", -0.5, -1.0, 0.0)])
    assert plot is not None
    assert plot.zero is not None
    first, second = plot.marks
    assert first.low - plot.zero == pytest.approx((first.high - plot.zero) / 4)
    assert second.high == pytest.approx(plot.zero)
    assert plot_rows([]) is None


def test_a_sparkline_ends_where_its_values_end() -> None:
    points = [tuple(map(float, p.split(","))) for p in spark([0, 5, 10], 100, 20).split()]
    assert points == [(0, 18), (50, 10), (100, 2)]
    assert spark([1]) == ""
    assert spark([0, 0]) != ""


def test_columns_are_chosen_by_their_types() -> None:
    assert choose_columns([NAME, COUNT]) == (0, 1)
    assert choose_columns([COUNT, NAME]) == (0, 0)
    assert choose_columns([COUNT, COUNT]) == (0, 1)
    assert choose_columns([NAME, DAY]) is None


def test_a_chart_is_what_was_asked_or_what_fits() -> None:
    rows = [["2026-01-01", "7"], ["2026-01-02", 9], ["2026-01-03", None], ["x", "no number"]]
    chart = make_chart([DAY, COUNT], rows)
    assert chart is not None
    assert chart.plot is not None
    assert (chart.kind, len(chart.plot.marks), chart.cut) == ("line", 2, 2)
    asked = make_chart([DAY, COUNT], rows, across=99, up=1, kind="bar")
    assert asked is not None
    assert (asked.across, asked.kind) == (0, "bar")
    assert make_chart([NAME], [["a"]]) is None
    assert make_chart([NAME, COUNT], []) is None
