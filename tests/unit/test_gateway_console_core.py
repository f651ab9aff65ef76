"""Graphs, rates, reports, samples and wording of the console."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.console.core import wording
from services.gateway.console.core.dag import HEIGHT, WIDTH, draw_graph
from services.gateway.console.core.lift import find_wilson, view_drift, view_lift
from services.gateway.console.core.rates import Track, read_sample
from services.gateway.console.core.samples import make_request, plot_findings
from shared.daemons import ROOT
from shared.metrics import Metrics
from shared.wire.base import Column
from shared.wire.observerd_judging import DriftAnswer


@st.composite
def graphs(draw: Any) -> dict[str, list[str]]:
    size = draw(st.integers(0, 12))
    names = [f"n{i}" for i in range(size)]
    return {
        name: draw(st.lists(st.sampled_from(names[:at]), unique=True)) if at else []
        for at, name in enumerate(names)
    }


@settings(max_examples=150)
@given(graphs())
def test_a_graph_goes_from_left_to_right_and_no_boxes_overlap(graph: dict[str, list[str]]) -> None:
    drawing = draw_graph(graph)
    places = {box.node: box for box in drawing.boxes}
    assert set(places) == set(graph)
    assert len(drawing.edges) == sum(len(names) for names in graph.values())
    for node, names in graph.items():
        for first in names:
            assert places[first].x + WIDTH < places[node].x
    boxes = drawing.boxes
    for at, one in enumerate(boxes):
        assert 0 <= one.x <= drawing.width - WIDTH
        assert 0 <= one.y <= drawing.height - HEIGHT
        for other in boxes[at + 1 :]:
            apart = abs(one.x - other.x) >= WIDTH or abs(one.y - other.y) >= HEIGHT
            assert apart


def test_a_long_edge_goes_round_the_nodes_between() -> None:
    drawing = draw_graph({"a": [], "b": ["a"], "c": ["b", "a"]})
    long = next(edge for edge in drawing.edges if (edge.before, edge.after) == ("a", "c"))
    middle = next(box for box in drawing.boxes if box.node == "b")
    straight = long.path.split("L")[1].split(" ")[0]
    height = float(straight.split(",")[1])
    assert not middle.y <= height <= middle.y + HEIGHT


def test_damaged_graphs_are_drawn_all_the_same() -> None:
    assert len(draw_graph({"a": ["b"], "b": ["a"], "c": ["gone"]}).boxes) == 3
    assert draw_graph({}).boxes == []


def test_rates_come_out_of_the_daemons_own_figures() -> None:
    metrics = Metrics()
    metrics.observe("/sql", "POST", 200, 0.5)
    metrics.observe('/a{b}"c', "GET", 503, 0.25)
    for probe in ("/health", "/ready", "/metrics", "/console/sql"):
        metrics.observe(probe, "GET", 200, 9.0)
    first = read_sample(metrics.render().decode(), 10.0)
    assert (first.requests, first.failures, first.seconds, first.timed) == (2, 1, 0.75, 2)
    for _ in range(20):
        metrics.observe("/sql", "POST", 200, 0.1)
    track = Track()
    track.add(first)
    track.add(read_sample(metrics.render().decode(), 15.0))
    now = track.now()
    assert now is not None
    assert (now.requests, now.failures) == (4.0, 0.0)
    assert now.mean_s == pytest.approx(0.1)
    assert track.rates() == [4.0]


def test_a_daemon_started_anew_is_not_a_negative_rate() -> None:
    track = Track(kept=3)
    full = Metrics()
    full.observe("/a", "GET", 200, 0.1)
    track.add(read_sample(full.render().decode(), 1.0))
    track.add(read_sample(Metrics().render().decode(), 2.0))
    assert track.now() is None
    for at in range(3, 9):
        track.add(read_sample(full.render().decode(), float(at)))
    assert len(track.rates()) == 2
    assert min(track.rates()) >= 0


def test_every_report_of_the_tree_can_be_shown() -> None:
    lifts = sorted((ROOT / "reports" / "reality-tests").glob("*.json"))
    drifts = sorted((ROOT / "reports" / "drift").glob("*.json"))
    assert lifts
    assert drifts
    for path in lifts:
        view = view_lift(json.loads(path.read_text()))
        assert view is not None
        assert view.arms is not None or view.merged is not None
        assert len(view.checks) > 5
    for path in drifts:
        shown = view_drift(path.stem, json.loads(path.read_text()))
        assert shown is not None
        assert (shown.alarms is None) == (path.stem == "streams")


def test_merged_corpora_are_shown_as_a_table() -> None:
    merged = {"cold": {"a": 0.5, "mean": 0.25}, "odd": {"x": 1}, "gone": 3, "learned": {"a": 0.6}}
    view = view_lift({"run": {"merged": merged}, "checks": []})
    assert view is not None
    assert view.arms is None
    assert view.merged is not None
    assert view.merged.columns == ["a", "mean"]
    assert view.merged.rows == [("cold", [0.5, 0.25]), ("learned", [0.6, None])]


@pytest.mark.parametrize(
    "report",
    [None, 3, [], {}, {"arms": 3}, {"arms": {"a": {"delta": "x"}}}, [3], {"arms": [], "set": 1}],
)
def test_a_report_that_is_none_of_ours_is_not_shown(report: object) -> None:
    assert view_lift(report) is None
    assert view_drift("x", report) is None


def test_wilsons_interval_is_as_published() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263 gives .2553 to .3662.
    assert find_wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert find_wilson(0, 20)[0] == pytest.approx(0)


def test_samples_hold_what_can_be_compared() -> None:
    columns = [
        Column(name="id", type="VARCHAR"),
        Column(name="city", type="VARCHAR"),
        Column(name="pay", type="DECIMAL(18,2)"),
        Column(name="same", type="BIGINT"),
        Column(name="day", type="DATE"),
    ]
    rows = [[f"w{i}", "Oslo" if i % 2 else "Rome", f"{i}.5", 1, "2026-01-01"] for i in range(80)]
    made = make_request(columns, rows[:40], rows[40:], None)
    assert made is not None
    assert made.kinds == {"city": "categorical", "pay": "numeric"}
    assert made.reference[1].values == {"city": "Oslo", "pay": 1.5}
    assert {row.session for row in made.reference} & {row.session for row in made.current} == set()
    grouped = make_request(columns, rows[:40], rows[40:], "city")
    assert grouped is not None
    assert "city" not in grouped.kinds
    assert {row.session for row in grouped.current} == {"Oslo", "Rome"}
    assert make_request(columns[:1], [["a"]], [["b"]], "id") is None


def test_findings_without_an_interval_are_not_drawn() -> None:
    finding = {
        "feature": "pay",
        "kind": "numeric",
        "status": "insufficient",
        "reason": "too few",
        "sessions": [1, 1],
        "rows": [1, 1],
    }
    answer = {
        "status": "insufficient",
        "findings": [finding],
        "alpha": 0.05,
        "correction": "holm",
        "draws": 9,
        "straddling_sessions": 0,
    }
    assert plot_findings(DriftAnswer.model_validate(answer)) is None
    answer["findings"] = [{**finding, "effect": 0.1, "effect_low": 0.0, "effect_high": 0.2}]
    assert plot_findings(DriftAnswer.model_validate(answer)) is not None


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (wording.write_size(0), "0 B"),
        (wording.write_size(1536), "1.5 KiB"),
        (wording.write_size(3 * 1024**3), "3.0 GiB"),
        (wording.write_duration(0.1204), "120 ms"),
        (wording.write_duration(65), "1 min 5 s"),
        (wording.write_duration(3 * 3600 + 120), "3 h 2 min"),
        (wording.write_duration(90_000), "1 d 1 h"),
        (wording.write_rate(0.125), "0.12"),
        (wording.write_rate(1234.5), "1,234"),
        (wording.write_rate(0), "0"),
        (wording.write_time("2026-11-22T01:02:03.5+02:00"), "2026-11-21 23:02:03"),
        (wording.write_time(""), wording.MISSING),
        (wording.write_time("soon"), wording.MISSING),
        (wording.write_cell({"a": [1, "ü"]}), '{"a": [1, "ü"]}'),
        (wording.write_cell(True), "true"),
        (len(wording.write_cell("x" * 1000)), wording.CELL),
        (wording.is_number("DECIMAL(18,2)"), True),
        (wording.is_number("VARCHAR"), False),
        (wording.is_number("INTEGER[]"), False),
    ],
)
def test_figures_are_written_as_a_person_reads_them(made: object, wanted: object) -> None:
    assert made == wanted
