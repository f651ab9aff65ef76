"""The relevance filter's decisions, on vectors made by hand."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from services.matrixd.core.relevance import Floats, judge, split_words, stem_word


def unit(*rows: tuple[float, ...]) -> Floats:
    matrix = np.array(rows, np.float64)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


QUERY = unit((1.0, 0.0, 0.0))[0]
TEXTS = [
    "forklift driver, night shifts",
    "drives forklifts at night",
    "night nurse on a ward",
    "parking invoice",
    "kettle rota",
]
VECTORS = unit(
    (0.9, 0.3, 0), (0.85, 0.35, 0), (0.15, 0.1, 0.97), (0.1, -0.6, 0.8), (0.05, -0.9, 0.4)
)


def test_what_stands_out_stays_and_the_rest_goes_with_a_reason() -> None:
    verdicts = judge("forklift driver at night", QUERY, TEXTS, VECTORS)
    assert [one.kept for one in verdicts] == [True, True, False, False, False]
    assert all(one.relevance >= 0.5 for one in verdicts[:2])
    assert all(one.relevance < 0.5 for one in verdicts[2:])
    assert "lacks" in verdicts[3].reason
    assert "forklift" in verdicts[3].reason
    assert verdicts == judge("forklift driver at night", QUERY, TEXTS, VECTORS)


def test_the_order_of_candidates_does_not_matter() -> None:
    there = judge("forklift driver at night", QUERY, TEXTS, VECTORS)
    back = judge("forklift driver at night", QUERY, TEXTS[::-1], VECTORS[::-1])
    assert [one.kept for one in there] == [one.kept for one in reversed(back)]
    for one, other in zip(there, reversed(back), strict=True):
        assert one.relevance == pytest.approx(other.relevance, abs=1e-5)


def test_strictness_moves_the_line_one_way() -> None:
    counts = [
        sum(one.kept for one in judge("night work", QUERY, TEXTS, VECTORS, strictness))
        for strictness in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] >= 1  # the best always stays, unless it is a stranger


def test_strangers_go_also_when_there_is_nothing_better() -> None:
    alone = judge("forklift driver", QUERY, ["kettle rota"], unit((-0.2, 0.9, 0)))
    assert not alone[0].kept
    assert alone[0].reason.startswith("off topic")
    shared = judge("forklift driver", QUERY, ["forklift"], unit((-0.2, 0.9, 0)))
    assert shared[0].kept


def test_no_candidates_are_no_verdicts() -> None:
    assert judge("x", QUERY, [], np.empty((0, 3))) == []


def test_candidates_that_are_all_the_same_all_stay() -> None:
    verdicts = judge("x", QUERY, ["a", "a", "a"], unit((1, 0, 0), (1, 0, 0), (1, 0, 0)))
    assert [one.kept for one in verdicts] == [True] * 3


def test_words_are_compared_without_their_endings() -> None:
    assert {stem_word(w) for w in ("driver", "drivers", "driving", "drives")} == {"driv"}
    assert stem_word("bus") == "bus"
    assert split_words("Who is the DRIVER, in Oslo?") == ["driver", "oslo"]


def test_long_texts_are_judged_in_little_memory() -> None:
    dice = np.random.default_rng(1)
    texts = ["".join(map(chr, dice.integers(0x4E00, 0x9FFF, 20_000))) for _ in range(20)]
    vectors = np.tile(QUERY, (20, 1))
    tracemalloc.start()
    try:
        assert len(judge("night nurse", QUERY, texts, vectors)) == 20
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # One text's letter runs take some 3 MB; those of all would take twenty times as much.
    assert peak < 15e6
