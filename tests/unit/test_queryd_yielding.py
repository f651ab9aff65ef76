"""When long queries make way, with a clock of the test's own."""

from __future__ import annotations

import pytest

from services.queryd.core.expectation import LONG_S
from services.queryd.core.yielding import (
    CROWDED_S,
    HOLD_S,
    LASTING_S,
    LOOK_S,
    NEIGHBOUR_S,
    PATIENCE_S,
    RUNAWAY_S,
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
    assert manners.finish("long", 100.0) == []
    assert manners.next_s() is None


def test_a_long_one_goes_behind_and_comes_back() -> None:
    manners: Manners[str] = Manners(restores=True)
    manners.start("long", 0.0)
    manners.start("short", 0.2)
    assert manners.weigh(0.2, waiting=False) == [("long", Move.BEHIND)]
    assert manners.weigh(0.21, waiting=False) == []
    assert manners.finish("short", 0.22) == []
    # The neighbour is remembered for a while, and then it is as fast as before.
    assert manners.weigh(0.2 + NEIGHBOUR_S - 0.01, waiting=False) == []
    assert manners.weigh(0.2 + NEIGHBOUR_S, waiting=False) == [("long", Move.LEVEL)]


@pytest.mark.parametrize(("began", "expected_s"), [(5.0 - LASTING_S, 0.0), (4.99, LONG_S)])
def test_what_lasts_stands_still_while_a_newcomer_runs(began: float, expected_s: float) -> None:
    manners: Manners[str] = Manners(restores=True)
    manners.start("lasting", began, expected_s)
    manners.start("short", 5.0)
    moves = manners.weigh(5.0, waiting=False)
    assert moves == [("lasting", Move.STOP), ("lasting", Move.BEHIND)]
    assert manners.finish("short", 5.02) == []
    # The next one may come at once, and is not to wait until it is stopped again.
    assert manners.weigh(5.02, waiting=False) == []
    assert manners.next_s() == pytest.approx(HOLD_S)
    assert manners.weigh(5.02 + HOLD_S, waiting=False) == [("lasting", Move.GO)]
    assert manners.next_s() == LOOK_S


def test_who_sends_runaways_is_no_newcomer() -> None:
    manners: Manners[str] = Manners(restores=True)
    manners.start("lasting", 4.0)
    manners.start("another", 5.0, LONG_S)
    moves = manners.weigh(5.0, waiting=False)
    assert set(moves) == {("lasting", Move.BEHIND)}
    manners.finish("another", 5.5)
    assert manners.weigh(5.5, waiting=False) == []


def test_a_spare_worker_is_worth_while_for_long_ones_when_others_wait() -> None:
    manners: Manners[str] = Manners(restores=True)
    manners.start("long", 0.0)
    manners.start("known", 0.0, LONG_S)
    manners.start("short", 0.0)
    for now in (0.0, PATIENCE_S, LASTING_S):
        manners.weigh(now, waiting=False)
        assert manners.count_crowding() == 0
    manners = Manners(restores=True)
    manners.start("long", 0.0)
    manners.start("known", 0.0, LONG_S)
    for now, wanted in ((PATIENCE_S - 0.01, 1), (PATIENCE_S, 2)):
        manners.weigh(now, waiting=True)
        assert manners.count_crowding() == wanted
    manners.start("short", PATIENCE_S + CROWDED_S - 0.1)
    manners.weigh(PATIENCE_S + CROWDED_S - 0.01, waiting=False)
    assert manners.count_crowding() == 2
    manners.weigh(PATIENCE_S + CROWDED_S, waiting=False)
    assert manners.count_crowding() == 0


def test_it_tells_whether_a_worker_will_soon_be_free() -> None:
    manners: Manners[str] = Manners(restores=True)
    assert not manners.all_last(0.0)
    manners.start("long", 0.0)
    assert not manners.all_last(LASTING_S - 0.01)
    assert manners.all_last(LASTING_S)
    manners.start("short", LASTING_S)
    assert not manners.all_last(LASTING_S)


def test_no_query_stands_still_for_one_that_is_long_itself() -> None:
    manners: Manners[str] = Manners(restores=True)
    manners.start("a", -RUNAWAY_S)
    manners.start("b", 1.0)
    manners.weigh(1.0, waiting=False)
    # a began too long ago to be a neighbour of b, which is therefore level still.
    assert manners.weigh(1.0 + PATIENCE_S, waiting=False) == [("a", Move.GO)]
    manners.start("c", 1.2)
    moves = manners.weigh(1.2, waiting=False)
    assert set(moves) == {("a", Move.STOP), ("b", Move.BEHIND)}


def test_time_stood_still_is_not_a_querys_own() -> None:
    manners: Manners[str] = Manners(restores=True)
    manners.start("lasting", 0.0)
    manners.start("short", 1.0)
    manners.weigh(1.0, waiting=False)
    assert manners.read_own_s("lasting", 1.5) == pytest.approx(1.0)
    manners.finish("short", 1.0 + PATIENCE_S)
    manners.weigh(2.0, waiting=False)
    assert manners.read_own_s("lasting", 2.5) == pytest.approx(1.5)


def test_whatever_ends_its_worker_is_as_it_was() -> None:
    manners: Manners[str] = Manners(restores=True)
    manners.start("long", 0.0)
    manners.start("short", LASTING_S)
    manners.weigh(LASTING_S, waiting=False)
    assert manners.finish("long", 0.6) == [Move.GO, Move.LEVEL]
    assert manners.finish("short", 0.6) == []


def crowd(gap_s: float, seconds: float = 60.0) -> tuple[float, float]:
    """Seconds that a lasting query stands still and runs level, beside newcomers.

    Args:
        gap_s: between the end of one newcomer and the start of the next, of 20 ms each.
    """
    manners: Manners[str] = Manners(restores=True)
    manners.start("long", 0.0)
    start = now = 3.0
    stopped, behind, still, level = False, False, 0.0, 0.0
    begins, ends = now, float("inf")
    while now < start + seconds:
        if now >= begins:
            manners.start("short", now)
            begins, ends = float("inf"), now + 0.02
        if now >= ends:
            assert manners.finish("short", now) == []
            begins, ends = now + gap_s, float("inf")
        for who, move in manners.weigh(now, waiting=False):
            if who == "long":
                stopped = {Move.STOP: True, Move.GO: False}.get(move, stopped)
                behind = {Move.BEHIND: True, Move.LEVEL: False}.get(move, behind)
        now += 0.001
        still += 0.001 if stopped else 0
        level += 0 if stopped or behind else 0.001
    return still, level


def test_newcomers_without_an_end_leave_turns_to_a_runaway() -> None:
    still, level = crowd(gap_s=0.0)
    assert still + level == pytest.approx(60, abs=0.1)
    assert level == pytest.approx(60 * TURN_S / (WAY_S + TURN_S), rel=0.1)


def test_whom_newcomers_leave_gaps_needs_no_turns() -> None:
    still, level = crowd(gap_s=0.03)
    assert level == pytest.approx(0, abs=0.01)
    assert still == pytest.approx(60 * (0.02 + HOLD_S) / 0.05, rel=0.1)


def test_who_waits_for_a_worker_is_a_neighbour_too() -> None:
    manners: Manners[str] = Manners(restores=True)
    manners.start("long", 0.0)
    assert manners.weigh(5.0, waiting=True) == [("long", Move.BEHIND)]
    assert manners.count_crowding() == 1
    assert manners.weigh(5.1, waiting=False) == [("long", Move.LEVEL)]


def test_where_it_cannot_be_undone_only_a_runaway_goes_behind_and_for_good() -> None:
    manners: Manners[str] = Manners(restores=False)
    manners.start("long", 0.0)
    manners.start("short", 1.0)
    assert manners.weigh(1.0, waiting=False) == [("long", Move.STOP)]
    assert manners.weigh(1.0 + PATIENCE_S, waiting=False) == [("long", Move.GO)]
    manners.start("short", RUNAWAY_S)
    moves = manners.weigh(RUNAWAY_S, waiting=False)
    assert moves == [("long", Move.STOP), ("long", Move.BEHIND)]
    manners.finish("short", RUNAWAY_S)
    later = RUNAWAY_S + NEIGHBOUR_S
    assert manners.weigh(later, waiting=False) == [("long", Move.GO)]
    assert manners.finish("long", later) == [Move.LEVEL]


def test_it_is_looked_at_again_in_time() -> None:
    manners: Manners[str] = Manners(restores=True)
    assert manners.next_s() is None
    manners.start("long", 0.0)
    assert (manners.next_s() or 9) <= min(TURN_S, LOOK_S)
    manners.finish("long", 0.1)
    manners.forget("long")
    assert manners.next_s() is None
