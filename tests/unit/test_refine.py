"""Config refinement: the lattice, evidence by betting, decisions and guardrails."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from services.observerd.core.refine.contest import Replay
from services.observerd.core.refine.evidence import Alarm, Wealth, share_of_error
from services.observerd.core.refine.lattice import Configuration, Lattice
from services.observerd.core.refine.refiner import Decision, Policy, Refiner
from shared.errors import Invalid

LATTICE = Lattice.declare({"depth": [20, 50, 100], "mode": ["dense", "hybrid"]})
START = LATTICE.configure({"depth": 50, "mode": "dense"})
Score = Callable[[Configuration, random.Random], float]


def gaussian(means: dict[str, float], spread: float = 0.15) -> Score:
    """A run's difficulty is shared by all configurations; each adds its own mean and noise."""

    def score(one: Configuration, chance: random.Random) -> float:
        return min(1.0, max(0.0, means.get(one.hash, 0.5) + chance.gauss(0, spread)))

    return score


def play(
    refiner: Refiner, score: Score, runs: int, chance: random.Random, first: int = 0
) -> list[Decision]:
    found: list[Decision] = []
    for number in range(first, first + runs):
        shared = chance.random()
        replays = {
            one: Replay(score(one, random.Random(f"{shared}{one.hash}")), 5.0)
            for one in refiner.wanted()
        }
        found += refiner.observe(f"run-{number}", f"query {number}", replays)
    return found


def test_neighbours_differ_by_one_step_of_one_knob() -> None:
    assert LATTICE.size == 6
    assert [one.values for one in LATTICE.neighbours(START)] == [
        {"depth": 20, "mode": "dense"},
        {"depth": 100, "mode": "dense"},
        {"depth": 50, "mode": "hybrid"},
    ]
    corner = LATTICE.configure({"mode": "dense", "depth": 20})
    assert [one.values["depth"] for one in LATTICE.neighbours(corner)] == [50, 20]
    text = Lattice.declare({"rank": ["a", "b", "c"], "on": [False, True]})
    assert len(text.neighbours(text.configure({"rank": "a", "on": True}))) == 3


@pytest.mark.parametrize(
    ("knobs", "word"),
    [({}, "Declare"), ({"a": []}, "a: declare"), ({"a": [1, 2, 1]}, "twice")],
)
def test_a_lattice_of_nothing_is_refused(knobs: dict[str, list[int]], word: str) -> None:
    with pytest.raises(Invalid, match=word):
        Lattice.declare(knobs)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"depth": 50}, "mode"),
        ({"depth": 51, "mode": "dense"}, "was not declared"),
        ({"depth": True, "mode": "dense"}, "was not declared"),
        ({"depth": 50, "mode": "dense", "dept": 1}, "no such knob"),
    ],
)
def test_only_what_is_declared_can_be_configured(values: dict[str, object], word: str) -> None:
    with pytest.raises(Invalid, match=word):
        LATTICE.configure(values)  # type: ignore[arg-type]


def test_equal_values_have_one_hash() -> None:
    again = LATTICE.configure({"mode": "dense", "depth": 50})
    assert (again, again.hash) == (START, START.hash)
    assert len({one.hash for one in LATTICE.neighbours(START)} | {START.hash}) == 4


@pytest.mark.parametrize("shape", ["even", "rare", "skewed"])
def test_under_the_null_wealth_passes_its_bound_as_rarely_as_promised(shape: str) -> None:
    chance = random.Random(shape)
    draws = {
        "even": lambda: chance.choice((-0.3, 0.3)),
        "rare": lambda: chance.choice((1.0, *[-1 / 19] * 19)),
        "skewed": lambda: chance.choice((-1.0, *[1 / 9] * 9)),
    }
    passed = 0
    for _ in range(400):
        wealth = Wealth()
        for _ in range(300):
            wealth.bet(draws[shape]())
            if wealth.log >= math.log(20):
                passed += 1
                break
    # At most 5 % are promised; 32 of 400 would be seen in one set of a thousand at 5 %.
    assert passed <= 32


def test_wealth_grows_with_a_real_difference_and_not_without() -> None:
    chance = random.Random(3)
    wealth, against = Wealth(), Wealth()
    for _ in range(500):
        difference = 0.05 + chance.uniform(-0.4, 0.4)
        wealth.bet(difference)
        against.bet(-difference)
    assert wealth.log > math.log(100)
    assert against.log < 0


def test_the_watch_raises_no_false_alarm_for_as_long_as_promised() -> None:
    lengths: list[int] = []
    for seed in range(60):
        chance = random.Random(seed)
        alarm = Alarm()
        count = 0
        while alarm.log < math.log(200) and count < 2000:
            alarm.bet(chance.uniform(-0.5, 0.5))
            count += 1
        lengths.append(count)
    # Cut off at 2,000, so the true mean is larger still.
    assert sum(lengths) / len(lengths) >= 200


def test_the_watch_sees_harm_that_begins_late() -> None:
    chance = random.Random(5)
    alarm = Alarm()
    for _ in range(1000):
        alarm.bet(-0.1 + chance.uniform(-0.3, 0.3))
    assert alarm.log < math.log(2000)
    delay = 0
    while alarm.log < math.log(2000):
        alarm.bet(0.1 + chance.uniform(-0.3, 0.3))
        delay += 1
    assert delay < 200


def test_what_all_choices_may_spend_sums_to_the_error() -> None:
    assert math.fsum(share_of_error(0.05, n) for n in range(10_000)) == pytest.approx(0.05, 1e-3)


def test_the_better_configuration_is_reached_one_knob_at_a_time() -> None:
    best = LATTICE.configure({"depth": 100, "mode": "hybrid"})
    half = LATTICE.configure({"depth": 50, "mode": "hybrid"})
    refiner = Refiner(LATTICE, START, Policy())
    found = play(refiner, gaussian({best.hash: 0.62, half.hash: 0.56}), 4000, random.Random(1))
    promoted = [one for one in found if one.kind == "promoted"]
    assert [one.configuration for one in promoted] == [half, best]
    assert refiner.incumbent == best
    assert promoted[0].replaced == START
    assert "mode 'dense' to 'hybrid'" in promoted[0].reason
    assert promoted[0].evidence["runs"] >= Policy().minimum
    assert promoted[0].evidence["held_out_runs"] > 0
    assert "rolled_back" not in {one.kind for one in found}


def test_where_nothing_is_better_something_is_promoted_as_rarely_as_promised() -> None:
    promoted = 0
    for seed in range(30):
        refiner = Refiner(LATTICE, START, Policy())
        found = play(refiner, gaussian({}), 500, random.Random(seed))
        promoted += any(one.kind == "promoted" for one in found)
    # 5 % are promised; more than 5 of 30 would be seen in one set of three hundred.
    assert promoted <= 5


def test_what_is_worse_is_no_longer_replayed() -> None:
    worse = LATTICE.configure({"depth": 20, "mode": "dense"})
    refiner = Refiner(LATTICE, START, Policy())
    found = play(refiner, gaussian({worse.hash: 0.3}), 400, random.Random(2))
    assert [(one.kind, one.configuration) for one in found] == [("dropped", worse)]
    assert worse not in refiner.wanted()


def test_a_promotion_that_turns_bad_is_taken_back_and_not_tried_again() -> None:
    two = Lattice.declare({"on": [False, True]})
    off, on = two.configure({"on": False}), two.configure({"on": True})
    refiner = Refiner(two, off, Policy())
    play(refiner, gaussian({on.hash: 0.65}), 800, random.Random(1))
    assert refiner.incumbent == on
    # The watch may take it back, or the old configuration may win its own contest first.
    found = play(refiner, gaussian({on.hash: 0.35}), 1200, random.Random(2), first=800)
    assert refiner.incumbent == off
    assert found[-1].replaced == on
    assert {one.kind for one in found} & {"rolled_back", "promoted"}


def test_held_out_queries_promote_nothing() -> None:
    refiner = Refiner(LATTICE, START, Policy())
    held = [f"q{n}" for n in range(3000) if refiner.is_held_out(f"q{n}")]
    assert 450 < len(held) < 750
    assert refiner.is_held_out(held[0].upper() + "  ") is True
    better = LATTICE.neighbours(START)[0]
    for number, query in enumerate(held):
        replays = {one: Replay(1.0 if one == better else 0.0, 1.0) for one in refiner.wanted()}
        assert refiner.observe(f"r{number}", query, replays) == []
    assert refiner.incumbent == START
    assert refiner.contests[0].held_out.mean == 1.0


def test_one_query_asked_a_thousand_times_is_one_observation() -> None:
    refiner = Refiner(LATTICE, START, Policy(held_out=0.0))
    for number in range(1000):
        replays = {one: Replay(0.0 if one == START else 1.0, 1.0) for one in refiner.wanted()}
        assert refiner.observe(f"r{number}", "The same  query", replays) == []
    assert refiner.contests[0].learnt.count == 1


def test_a_run_counts_once_and_only_beside_the_incumbent() -> None:
    refiner = Refiner(LATTICE, START, Policy(held_out=0.0))
    replays = {one: Replay(0.5, 1.0) for one in refiner.wanted()}
    refiner.observe("r", "q", replays)
    refiner.observe("r", "another", replays)
    assert (refiner.runs, refiner.contests[0].learnt.count) == (1, 1)
    with pytest.raises(Invalid, match="incumbent"):
        refiner.observe("s", "q", {LATTICE.neighbours(START)[0]: Replay(1.0, 1.0)})
    with pytest.raises(Invalid, match="between 0 and 1"):
        refiner.observe("s", "q", {START: Replay(math.nan, 1.0)})


def test_a_slow_challenger_is_held_back_until_it_is_fast() -> None:
    two = Lattice.declare({"on": [False, True]})
    off, on = two.configure({"on": False}), two.configure({"on": True})
    refiner = Refiner(two, off, Policy(held_out=0.0, latency_ms=50.0))
    kinds: list[str] = []
    for number in range(2000):
        slow = 80.0 if number < 300 else 5.0
        replays = {off: Replay(0.4, 5.0), on: Replay(0.7, slow)}
        kinds += [one.kind for one in refiner.observe(f"r{number}", f"q{number}", replays)]
        if kinds and kinds[-1] == "promoted":
            break
    assert kinds == ["held_back", "promoted"]
    assert refiner.incumbent == on


def test_nothing_is_learnt_while_the_scorer_drifts_and_it_begins_anew_after() -> None:
    refiner = Refiner(LATTICE, START, Policy(held_out=0.0))
    replays = {one: Replay(0.0 if one == START else 1.0, 1.0) for one in refiner.wanted()}
    for number in range(10):
        refiner.observe(f"r{number}", f"q{number}", replays)
    assert [one.kind for one in refiner.freeze("the scorer drifts")] == ["frozen"]
    assert refiner.freeze("again") == []
    for number in range(10, 500):
        assert refiner.observe(f"r{number}", f"q{number}", replays) == []
    assert (refiner.skipped, refiner.incumbent) == (490, START)
    assert [one.kind for one in refiner.thaw("the anchors agree again")] == ["thawed"]
    assert refiner.contests[0].learnt.count == 0
    assert refiner.observe("r500", "q500", replays) == []


def test_every_decision_can_be_undone_by_hand() -> None:
    refiner = Refiner(LATTICE, START, Policy())
    best = LATTICE.configure({"depth": 50, "mode": "hybrid"})
    play(refiner, gaussian({best.hash: 0.7}), 600, random.Random(1))
    assert refiner.incumbent == best
    (undone,) = refiner.pin(START, "the owner prefers it")
    assert (undone.kind, undone.replaced, refiner.incumbent) == ("pinned", best, START)
    assert refiner.pin(START, "again") == []
    assert [one.number for one in refiner.decisions] == list(range(1, len(refiner.decisions) + 1))


def test_the_same_events_give_the_same_state() -> None:
    def once() -> tuple[object, ...]:
        refiner = Refiner(LATTICE, START, Policy())
        best = LATTICE.configure({"depth": 50, "mode": "hybrid"})
        play(refiner, gaussian({best.hash: 0.58}), 900, random.Random(4))
        return (
            tuple(refiner.decisions),
            refiner.incumbent,
            [c.better.logs for c in refiner.contests],
        )

    assert once() == once()
