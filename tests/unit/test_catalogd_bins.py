"""Which files are merged: neighbours, no larger than asked, and no row too often."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from services.catalogd.core.bins import FULL, MOST_FILES, plan_groups

ALL = 1 << 60


def test_neighbours_fill_a_file_and_large_ones_are_left() -> None:
    sizes = [10, 20, 90, 30, 50, 10]
    assert plan_groups(sizes, 100, least=2, tiered=False, budget=ALL) == [[0, 1, 3], [4, 5]]
    assert plan_groups(sizes, 100, least=3, tiered=False, budget=ALL) == [[0, 1, 3]]
    assert plan_groups([80, 90], 100, least=2, tiered=False, budget=ALL) == []
    assert plan_groups([5], 100, least=2, tiered=False, budget=ALL) == []
    assert plan_groups([], 100, least=2, tiered=False, budget=ALL) == []


def test_by_itself_a_file_that_outweighs_the_rest_is_left() -> None:
    sizes = [60, 1, 1, 1]
    assert plan_groups(sizes, 100, least=3, tiered=True, budget=ALL) == [[1, 2, 3]]
    assert plan_groups(sizes, 100, least=4, tiered=True, budget=ALL) == []
    assert plan_groups([20, 10, 10], 100, least=3, tiered=True, budget=ALL) == [[0, 1, 2]]


def test_a_round_is_bounded_but_does_something() -> None:
    sizes = [50, 50, 50, 50, 50, 50]
    assert plan_groups(sizes, 100, least=2, tiered=False, budget=200) == [[0, 1], [2, 3]]
    assert plan_groups(sizes, 100, least=2, tiered=False, budget=1) == [[0, 1]]
    many = plan_groups([1] * (MOST_FILES + 10), ALL, least=2, tiered=False, budget=ALL)
    assert [len(group) for group in many] == [MOST_FILES, 10]


@given(
    st.lists(st.integers(0, 200), max_size=60),
    st.integers(1, 150),
    st.integers(2, 8),
    st.booleans(),
)
def test_groups_are_in_order_apart_and_small(
    sizes: list[int], target: int, least: int, tiered: bool
) -> None:
    groups = plan_groups(sizes, target, least=least, tiered=tiered, budget=ALL)
    flat = [position for group in groups for position in group]
    assert flat == sorted(set(flat))
    for group in groups:
        held = [sizes[position] for position in group]
        assert len(group) >= least
        assert sum(held) <= target
        assert max(held) < target * FULL
        assert not tiered or 2 * max(held) <= sum(held)


def test_a_row_is_written_a_logarithmic_number_of_times() -> None:
    """A thousand ingests of one size, merged whenever sixteen files are there."""
    files: list[tuple[int, int]] = []  # size, and how often its oldest row was written
    least, target = 16, 1 << 20
    for _ in range(1000):
        files.append((1, 1))
        while groups := plan_groups(
            [size for size, _ in files], target, least=least, tiered=True, budget=ALL
        ):
            taken = {n for group in groups for n in group}
            merged = [
                (sum(files[n][0] for n in group), 1 + max(files[n][1] for n in group))
                for group in groups
            ]
            files = [file for n, file in enumerate(files) if n not in taken] + merged
    assert sum(size for size, _ in files) == 1000
    assert len(files) < 3 * least
    assert max(times for _, times in files) <= 2 + math.log2(1000)
