"""What queries are expected to take."""

from __future__ import annotations

import pytest

from services.queryd.core.expectation import LONG_S, Expectation


def test_nothing_is_expected_of_what_is_unknown() -> None:
    known = Expectation()
    assert known.expect("SELECT 1") is None
    known.note("SELECT 1", 0.01)
    assert known.expect("SELECT 1") == pytest.approx(0.01)
    assert known.expect("SELECT 2") is None


def test_one_slow_time_among_many_does_not_mark_a_text() -> None:
    known = Expectation()
    for _ in range(20):
        known.note("q", 0.03)
    known.note("q", 30.0)
    assert (known.expect("q") or 1.0) < LONG_S
    known.note("q", 30.0)
    assert (known.expect("q") or 0.0) > LONG_S


def test_a_text_that_became_fast_is_believed_again() -> None:
    known = Expectation()
    known.note("q", 5.0)
    known.note("q", 0.05)
    assert (known.expect("q") or 0.0) > LONG_S
    for _ in range(5):
        known.note("q", 0.05)
    assert (known.expect("q") or 1.0) < LONG_S


def test_it_forgets_what_was_seen_longest_ago() -> None:
    known = Expectation(most=2)
    for sql in ("first", "second", "first", "third"):
        known.note(sql, 1.0)
    assert known.expect("first") == pytest.approx(1.0)
    assert known.expect("second") is None
    assert known.expect("third") == pytest.approx(1.0)


def test_a_time_of_nothing_and_a_text_that_is_no_text_are_taken() -> None:
    known = Expectation()
    known.note("\udcff", 0.0)
    assert known.expect("\udcff") == pytest.approx(0.001)


def test_what_was_broken_off_early_is_not_taken_for_brief() -> None:
    known = Expectation()
    known.note("q", 0.1, finished=False)
    assert known.expect("q") is None
    known.note("q", LONG_S, finished=False)
    assert known.expect("q") == pytest.approx(LONG_S)
    known.note("q", 0.1, finished=False)
    assert known.expect("q") == pytest.approx(LONG_S)
