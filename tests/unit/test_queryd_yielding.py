"""When long queries make way, with a clock of the test's own."""

from __future__ import annotations

import pytest

from services.queryd.core.yielding import (
    LONG_PATIENCE_S,
    NEIGHBOUR_S,
    PATIENCE_S,
    PAUSE_S,
    TURN_S,
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


def test_a_long_one_goes_behind_stands_still_for_newcomers_and_comes_back() -> None:
    manners: Manners[str] = Manners(restores=True)
    manners.start("long", 0.0)
    manners.start("short", 1.0)
    assert manners.weigh(1.0, waiting=False) == [("long", Move.BEHIND), ("long", Move.STOP)]
    assert manners.count_long() == 1
    assert manners.weigh(1.01, waiting=False) == []
    assert manners.finish("short") == []
    assert manners.weigh(1.02, waiting=False) == [("long", Move.GO)]
    # The neighbour is remembered for a while, and then it is as fast as before.
    assert manners.weigh(1.0 + NEIGHBOUR_S - 0.01, waiting=False) == []
    assert manners.weigh(1.0 + NEIGHBOUR_S, waiting=False) == [("long", Move.LEVEL)]
    assert manners.count_long() == 0


def test_no_query_stands_still_for_one_that_is_long_itself() -> None:
    manners: Manners[str] = Manners(restores=True)
    manners.start("a", 0.0)
    manners.start("b", 1.0)
    manners.weigh(1.0, waiting=False)
    moves = manners.weigh(1.0 + PATIENCE_S, waiting=False)
    # a began too long ago to be a neighbour of b, which is therefore level still.
    assert moves == [("a", Move.GO)]
    manners.start("c", 1.5)
    moves = manners.weigh(1.5, waiting=False)
    assert set(moves) == {("a", Move.STOP), ("b", Move.BEHIND), ("b", Move.STOP)}


def test_whatever_ends_its_worker_is_as_it_was() -> None:
    manners: Manners[str] = Manners(restores=True)
    manners.start("long", 0.0)
    manners.start("short", 1.0)
    manners.weigh(1.0, waiting=False)
    assert manners.finish("long") == [Move.GO, Move.LEVEL]
    assert manners.finish("short") == []


@pytest.mark.parametrize("gap_s", [0.0, 0.002])
def test_a_stream_of_newcomers_leaves_turns_to_a_long_one(gap_s: float) -> None:
    """Short queries without an end: the long one runs for its share of the time, and no more."""
    manners: Manners[str] = Manners(restores=True)
    manners.start("long", 0.0)
    now, runs, ran = 1.0, True, 0.0
    step, left = 0.001, 0.0
    busy = False
    while now < 61.0:
        if left <= 0:
            if busy:
                manners.finish("short")
            else:
                manners.start("short", now)
            busy = not busy
            left = 0.03 if busy else gap_s
        for who, move in manners.weigh(now, waiting=False):
            assert who == "long"
            if move in (Move.STOP, Move.GO):
                runs = move is Move.GO
        now, left = now + step, left - step
        ran += step if runs else 0
    least = TURN_S / (PAUSE_S + TURN_S)
    gaps = gap_s / (0.03 + gap_s)
    assert least * 0.8 <= ran / 60 <= least + gaps + 0.05


def test_who_waits_for_a_worker_is_a_neighbour_too() -> None:
    manners: Manners[str] = Manners(restores=True)
    manners.start("long", 0.0)
    assert manners.weigh(5.0, waiting=True) == [("long", Move.BEHIND)]
    assert manners.count_long() == 1
    assert manners.weigh(5.1, waiting=False) == [("long", Move.LEVEL)]


def test_where_it_cannot_be_undone_a_query_goes_behind_late_and_for_good() -> None:
    manners: Manners[str] = Manners(restores=False)
    manners.start("long", 0.0)
    manners.start("short", 1.0)
    assert manners.weigh(1.0, waiting=False) == [("long", Move.STOP)]
    manners.finish("short")
    assert manners.weigh(1.01, waiting=False) == [("long", Move.GO)]
    manners.start("short", LONG_PATIENCE_S)
    moves = manners.weigh(LONG_PATIENCE_S, waiting=False)
    assert moves == [("long", Move.BEHIND), ("long", Move.STOP)]
    manners.finish("short")
    later = LONG_PATIENCE_S + NEIGHBOUR_S
    assert manners.weigh(later, waiting=False) == [("long", Move.GO)]
    assert manners.finish("long") == [Move.LEVEL]


def test_it_is_looked_at_again_in_time() -> None:
    manners: Manners[str] = Manners(restores=True)
    manners.start("long", 0.0)
    assert manners.next_s() == PATIENCE_S
    manners.start("short", 1.0)
    manners.weigh(1.0, waiting=False)
    assert (manners.next_s() or 9) <= TURN_S
    manners.forget("short")
