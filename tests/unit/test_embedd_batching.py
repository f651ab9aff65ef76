"""Batches: like lengths together, everyone in turn, nothing lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.embedd.core.batching import SLACK, WorkQueue


def drain(queue: WorkQueue[str], items: int = 100, padded: int | None = 384) -> list[list[str]]:
    batches: list[list[str]] = []
    while batch := queue.take(items, padded):
        batches.append(batch)
    return batches


def test_like_lengths_share_a_batch_up_to_the_budget() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add([("a", 100), ("b", 10), ("c", 100), ("d", 10), ("e", 100), ("f", 100), ("g", 100)])
    assert drain(queue) == [["a", "c", "e"], ["b", "d"], ["f", "g"]]


def test_a_little_padding_is_taken_shorter_first() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add([("16", 16), ("18", 18), ("14", 14), ("19", 19), ("13", 13), ("15", 15)])
    assert drain(queue, padded=1000)[0] == ["16", "15", "14", "18"]


def test_a_longer_one_counts_for_all_in_the_batch() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add([("a", 16), ("b", 16), ("c", 18)])
    assert drain(queue, padded=50) == [["a", "b"], ["c"]]


def test_one_over_the_budget_goes_alone() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add([("a", 500), ("b", 500)])
    assert drain(queue) == [["a"], ["b"]]


def test_a_late_query_does_not_wait_behind_a_corpus() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add([(f"bulk{i}", 100) for i in range(1000)])
    assert queue.take(3, 384) == ["bulk0", "bulk1", "bulk2"]
    queue.add([("query", 8)])
    assert queue.take(3, 384) == ["query"]


def test_two_corpora_share_evenly() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add([("a", 10)] * 100)
    queue.add([("b", 99)] * 100)
    first = [queue.take(1, None)[0] for _ in range(40)]
    assert first.count("a") == first.count("b") == 20


def test_a_request_in_parts_gets_no_advantage() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add([("bulk", 10)] * 50)
    queue.add([("more", 10)] * 50, first=50)
    queue.add([("other", 99)] * 10)
    order = [queue.take(1, None)[0] for _ in range(70)]
    assert order.index("more") > max(i for i, who in enumerate(order) if who == "other")


def test_dropped_ones_are_never_taken_and_nothing_is_kept_of_them() -> None:
    queue: WorkQueue[str] = WorkQueue()
    entries = queue.add([("a", 10), ("b", 10), ("c", 90)])
    queue.drop(entries[0])
    queue.drop(entries[0])
    assert len(queue) == 2
    assert drain(queue) == [["b"], ["c"]]
    queue.drop(entries[1])
    assert len(queue) == 0
    assert queue._heap == []
    assert queue._by_length == {}


@given(
    st.lists(st.lists(st.integers(2, 256), min_size=1, max_size=30), max_size=8),
    st.integers(1, 40),
    st.integers(16, 600),
)
def test_every_item_is_taken_once_within_the_limits(
    requests: list[list[int]], items: int, padded: int
) -> None:
    queue: WorkQueue[tuple[int, int, int]] = WorkQueue()
    expected: list[tuple[int, int, int]] = []
    for number, lengths in enumerate(requests):
        given = [((number, i, length), length) for i, length in enumerate(lengths)]
        expected += [item for item, _ in given]
        queue.add(given)
    seen: list[tuple[int, int, int]] = []
    while batch := queue.take(items, padded):
        lengths = [item[2] for item in batch]
        assert len(batch) == 1 or len(batch) * max(lengths) <= padded
        assert len(batch) <= items
        assert max(lengths) - min(lengths) <= 2 * SLACK * lengths[0]
        seen += batch
    assert sorted(seen) == sorted(expected)
