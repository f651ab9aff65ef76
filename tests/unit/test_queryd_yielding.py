"""When long queries make way, with a clock of the test's own."""

from __future__ import annotations

import pytest

from services.queryd.core.yielding import (
    LASTING_S,
    NEIGHBOUR_S,
    PATIENCE_S,
    RUNAWAY_S,
    SUSPECT_S,
    TURN_S,
    WAY_S,
    Manners,
    Move,
)


def test_alone_a_query_is_left_in_peace() -> None:
    manners: Manners[str] = Manners(restores=True)
    assert manners.next_s() is None
    manners.start("long", 0.0)
    for now in (0.0, PATIENCE_S, 1.0, 100.0):
        assert manners.weigh(now, waiting=False) == []
    assert manners.finish("long") == []
    assert manners.next_s() is None


def test_a_long_one_goes_behind_and_comes_back() -> None:
    manners: Manners[str] = Manners(restores=True)
    manners.start("long", 0.0)
    manners.start("short", 0.5)
    assert manners.weigh(0.5, waiting=False) == [("long", Move.BEHIND)]
    assert manners.count_lasting() == 1
    assert manners.weigh(0.51, waiting=False) == []
    assert manners.finish("short") == []
    # The neighbour is remembered for a while, and then it is as fast as before.
    assert manners.weigh(0.5 + NEIGHBOUR_S - 0.01, waiting=False) == []
    assert manners.weigh(0.5 + NEIGHBOUR_S, waiting=False) == [("long", Move.LEVEL)]
    assert manners.count_lasting() == 0


@pytest.mark.parametrize(("began", "usual_s"), [(5.0 - RUNAWAY_S, 0.0), (4.9, SUSPECT_S)])
def test_a_runaway_stands_still_while_a_newcomer_runs(began: float, usual_s: float) -> None:
    manners: Manners[str] = Manners(restores=True)
    manners.start("runaway", began, usual_s)
    manners.start("short", 5.0)
    moves = manners.weigh(5.0, waiting=False)
    assert moves == [("runaway", Move.STOP), ("runaway", Move.BEHIND)]
    assert manners.finish("short") == []
    assert manners.weigh(5.02, waiting=False) == [("runaway", Move.GO)]


def test_a_spare_worker_is_worth_while_for_what_lasts() -> None:
    manners: Manners[str] = Manners(restores=True)
    manners.start("long", 0.0)
    manners.start("known", 0.0, SUSPECT_S)
    for now, wanted in ((PATIENCE_S, 1), (LASTING_S - 0.01, 1), (LASTING_S, 2)):
        manners.weigh(now, waiting=True)
        assert manners.count_lasting() == wanted
    manners.weigh(LASTING_S + NEIGHBOUR_S, waiting=False)
    assert manners.count_lasting() == 0


def test_no_query_stands_still_for_one_that_is_long_itself() -> None:
    manners: Manners[str] = Manners(restores=True)
    manners.start("a", -RUNAWAY_S)
    manners.start("b", 1.0)
    manners.weigh(1.0, waiting=False)
    # a began too long ago to be a neighbour of b, which is therefore level still.
    assert manners.weigh(1.0 + PATIENCE_S, waiting=False) == [("a", Move.GO)]
    manners.start("c", 1.5)
    moves = manners.weigh(1.5, waiting=False)
    assert set(moves) == {("a", Move.STOP), ("b", Move.BEHIND)}


def test_whatever_ends_its_worker_is_as_it_was() -> None:
    manners: Manners[str] = Manners(restores=True)
    manners.start("long", 0.0)
    manners.start("short", RUNAWAY_S)
    manners.weigh(RUNAWAY_S, waiting=False)
    assert manners.finish("long") == [Move.GO, Move.LEVEL]
    assert manners.finish("short") == []


def test_newcomers_without_an_end_leave_turns_to_a_runaway() -> None:
    manners: Manners[str] = Manners(restores=True)
    manners.start("long", 0.0)
    now, stopped, behind, still, level = 3.0, False, False, 0.0, 0.0
    while now < 63.0:
        manners.start("short", now)  # the next, before this one is long itself
        for who, move in manners.weigh(now, waiting=False):
            assert who == "long"
            stopped = {Move.STOP: True, Move.GO: False}.get(move, stopped)
            behind = {Move.BEHIND: True, Move.LEVEL: False}.get(move, behind)
        now += 0.001
        still += 0.001 if stopped else 0
        level += 0 if stopped or behind else 0.001
    assert still + level == pytest.approx(60, abs=0.1)
    assert level == pytest.approx(60 * TURN_S / (WAY_S + TURN_S), rel=0.1)


def test_who_waits_for_a_worker_is_a_neighbour_too() -> None:
    manners: Manners[str] = Manners(restores=True)
    manners.start("long", 0.0)
    assert manners.weigh(5.0, waiting=True) == [("long", Move.BEHIND)]
    assert manners.count_lasting() == 1
    assert manners.weigh(5.1, waiting=False) == [("long", Move.LEVEL)]


def test_where_it_cannot_be_undone_only_a_runaway_goes_behind_and_for_good() -> None:
    manners: Manners[str] = Manners(restores=False)
    manners.start("long", 0.0)
    manners.start("short", 1.0)
    assert manners.weigh(1.0, waiting=False) == []
    assert manners.count_lasting() == 1
    manners.start("short", RUNAWAY_S)
    moves = manners.weigh(RUNAWAY_S, waiting=False)
    assert moves == [("long", Move.STOP), ("long", Move.BEHIND)]
    manners.finish("short")
    later = RUNAWAY_S + NEIGHBOUR_S
    assert manners.weigh(later, waiting=False) == [("long", Move.GO)]
    assert manners.finish("long") == [Move.LEVEL]


def test_it_is_looked_at_again_in_time() -> None:
    manners: Manners[str] = Manners(restores=True)
    assert manners.next_s() is None
    manners.start("long", 0.0)
    assert (manners.next_s() or 9) <= TURN_S
    manners.finish("long")
    manners.forget("long")
    assert manners.next_s() is None
