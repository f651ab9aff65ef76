"""observerd's core of events: figures that can be taken back, the ring, verdicts."""

from __future__ import annotations

import math
import random
from typing import Any, get_args

import orjson
import pytest

from services.observerd.core.distill.scores import Response, Score
from services.observerd.core.events.figures import Breakdown, Group
from services.observerd.core.events.records import Kept, keep, make_payload
from services.observerd.core.events.ring import Ring
from services.observerd.core.events.runs import assemble_run
from services.observerd.core.events.verdicts import settle_verdict
from shared.errors import Invalid
from shared.wire.observerd import Event, Verdict


def make(seq: int, run: str = "r", status: str = "ok", **more: Any) -> Kept:
    payload = make_payload(Event.model_validate({"run_id": run, "status": status, **more}))
    return keep(seq, seq * 1000, payload, orjson.dumps(payload))


def test_figures_of_what_was_taken_back_are_those_of_what_is_left() -> None:
    dice = random.Random(3)
    events = [
        make(
            n,
            status=dice.choice(["ok", "error", "started"]),
            mode=dice.choice(["a", "b", None]),
            model=dice.choice(["m", None]),
            latency_ms=dice.choice([None, dice.lognormvariate(3, 2)]),
            verdict=dice.choice([None, "rejected"]),
            scorer_status=dice.choice([None, "ok", "error"]),
            tokens={"prompt": dice.randrange(9), "completion": 1},
        )
        for n in range(1, 400)
    ]
    moving, still = Breakdown(), Breakdown()
    for event in events:
        moving.count(event, 1)
    for event in events[:250]:
        moving.count(event, -1)
    for event in events[250:]:
        still.count(event, 1)
    assert moving.total.describe() == still.total.describe()
    for name in Breakdown.NAMES:
        assert moving.describe(name, 10) == still.describe(name, 10)
    assert sum(g.events for g in still.describe("mode", 10)[0].values()) < 149


def test_quantiles_are_right_to_within_their_buckets() -> None:
    dice = random.Random(5)
    values = sorted(dice.lognormvariate(2, 1.5) for _ in range(2001))
    group = Group()
    for n, value in enumerate(values):
        group.count(make(n, latency_ms=value), 1)
    figures = group.describe()
    for found, share in ((figures.latency_p50_ms, 0.5), (figures.latency_p95_ms, 0.95)):
        assert found == pytest.approx(values[math.ceil(share * len(values)) - 1], rel=0.04)


def test_largest_groups_are_shown_and_the_rest_is_counted() -> None:
    breakdown = Breakdown()
    for n in range(10):
        for _ in range(n + 1):
            breakdown.count(make(1, mode=f"m{n}"), 1)
    shown, left = breakdown.describe("mode", 3)
    assert list(shown) == ["m9", "m8", "m7"]
    assert left == 7


def test_the_ring_keeps_the_newest_within_its_bytes_and_counts_the_rest() -> None:
    ring = Ring(1000, 5 * len(make(1, run="r0", outputs="x" * 500).blob))
    for n in range(1, 21):
        ring.add(make(n, run=f"r{n % 3}", outputs="x" * 500))
    assert (len(ring), ring.evicted, ring.first_seq) == (5, 15, 16)
    assert [event.seq for event in ring.after(17, 2, None)] == [18, 19]
    assert [event.seq for event in ring.newest(10, "r2")] == [17, 20]
    assert ring.figures.total.events == 5
    assert [run.events[-1].seq for run in ring.runs()] == [20, 19, 18]
    found = ring.run("r2")
    assert found is not None
    assert assemble_run(found, steps=False).complete is False
    big = Ring(10, 10)
    big.add(make(1, outputs="x" * 500))
    assert len(big) == 1  # the newest stays, however large


def test_a_run_that_began_in_memory_is_whole() -> None:
    ring = Ring(3, 10**9)
    for n in range(1, 5):
        ring.add(make(n, run="old"))
    ring.add(make(5, run="new", status="started"))
    ring.add(make(6, run="other", node_id="a"))
    runs = {run.events[-1].run_id: run.complete for run in ring.runs()}
    assert runs == {"old": False, "new": True, "other": None}


@pytest.mark.parametrize(
    ("verdict", "status", "score", "evidence", "expected"),
    [
        (None, None, None, [], (None, None, None)),
        ("accepted", "ok", 0.9, ["e"], ("accepted", "ok", 0.9)),
        ("rejected", "ok", 0.0, [], ("rejected", "ok", 0.0)),
        ("accepted", "ok", 0.9, [], ("needs_human_review", "partial", None)),
        ("accepted", "ok", 0.9, [""], ("needs_human_review", "partial", None)),
        ("partially_accepted", "ok", 0.6, ["e"], ("partially_accepted", "ok", 0.6)),
        ("partially_accepted", "ok", 0.6, [], ("needs_human_review", "partial", None)),
        ("partially_accepted", "ok", 0.6, [""], ("needs_human_review", "partial", None)),
        ("needs_human_review", "ok", 0.5, [], ("needs_human_review", "ok", None)),
        ("accepted", None, 0.9, ["e"], ("needs_human_review", "partial", None)),
        (None, "ok", 0.9, ["e"], ("needs_human_review", "partial", None)),
        ("accepted", "ok", math.nan, ["e"], ("needs_human_review", "out_of_range", None)),
        ("accepted", "ok", 1.0001, ["e"], ("needs_human_review", "out_of_range", None)),
        ("accepted", "error", 1.0, ["e"], ("needs_human_review", "error", None)),
    ],
)
def test_only_a_whole_answer_of_a_working_scorer_is_believed(
    verdict: Any, status: Any, score: Any, evidence: list[str], expected: tuple[Any, ...]
) -> None:
    assert tuple(settle_verdict(verdict, status, score, evidence)) == expected


@pytest.mark.parametrize("verdict", get_args(Verdict))
@pytest.mark.parametrize("evidence", [[], [""], ["e"]])
def test_an_event_and_the_scorer_hold_to_one_rule(verdict: Verdict, evidence: list[str]) -> None:
    settled = settle_verdict(verdict, "ok", 0.6, evidence)
    try:
        response = Response("r", verdict, 0.6, ("why",), tuple(evidence), frozenset(evidence))
    except Invalid:
        assert settled.verdict == "needs_human_review"
        assert settled.scorer_status == "partial"
    else:
        score = Score("r", "s", "ok", response)
        assert tuple(settled) == (score.verdict, "ok", score.score)


def test_what_was_claimed_is_kept_apart() -> None:
    event = Event(run_id="r", status="ok", verdict="accepted", scorer_status="error", score=1.0)
    payload = make_payload(event)
    assert payload["claimed"] == "accepted"
    assert payload["verdict"] == "needs_human_review"
    assert "score" not in payload
