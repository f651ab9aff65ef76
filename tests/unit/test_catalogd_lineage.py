"""Which writes count after rollbacks, held against simply keeping every state."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.catalogd.core.lineage import Rollback, Span, is_superseded, list_spans


def test_without_rollbacks_everything_counts() -> None:
    assert list_spans([]) == [Span(0, None)]
    assert is_superseded(3, "append", [], [Span(0, None)]) is False


def test_a_rollback_skips_what_it_undoes_and_is_undone_by_another() -> None:
    # 1 2 3, back to 1 (4), 5, back to 3 (6)
    first = [Rollback(4, 1)]
    assert list_spans(first) == [Span(4, None), Span(0, 1)]
    assert list_spans([*first, Rollback(6, 3)]) == [Span(6, None), Span(0, 3)]
    # Back to what the first one brought back, and the write after it.
    assert list_spans([*first, Rollback(6, 5)]) == [Span(6, None), Span(4, 5), Span(0, 1)]


def test_what_overtakes_what() -> None:
    spans = [Span(0, None)]
    for mode, later, gone in (
        ("append", "append", False),
        ("append", "rewrite", False),
        ("append", "replace", True),
        ("replace", "rewrite", False),
        ("replace", "replace", True),
        ("rewrite", "rewrite", True),
        ("rewrite", "replace", True),
        ("rewrite", "compact", False),
    ):
        assert is_superseded(1, mode, [(2, later)], spans) is gone, (mode, later)
        # Not by what came before it, nor by what a rollback took away.
        assert is_superseded(3, mode, [(2, later)], spans) is False
        undone = list_spans([Rollback(4, 1)])
        assert is_superseded(1, mode, [(2, later)], undone) is False


@given(st.lists(st.tuples(st.sampled_from("arb"), st.integers(0, 100)), max_size=40))
def test_it_is_what_keeping_every_state_gives(steps: list[tuple[str, int]]) -> None:
    """`a` appends, `r` replaces, `b` goes back to the state after an earlier step."""
    states: list[frozenset[int]] = [frozenset()]
    rollbacks: list[Rollback] = []
    writes: dict[int, str] = {}
    for number, (step, choice) in enumerate(steps, start=1):
        if step == "b":
            target = choice % len(states)
            rollbacks.append(Rollback(number, target))
            states.append(states[target])
        elif step == "r":
            writes[number] = "replace"
            states.append(frozenset({number}))
        else:
            writes[number] = "append"
            states.append(states[-1] | {number})
    spans = list_spans(rollbacks)
    later = list(writes.items())
    kept = {n for n, mode in writes.items() if not is_superseded(n, mode, later, spans)}
    assert kept == states[-1]
