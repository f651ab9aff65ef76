"""What the judge of plain queries is asked, what is read of it, and how far it is trusted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from scripts.lift.asking import (
    DEPTH,
    cohen,
    judge_queries,
    kappa_of,
    make_question,
    read_queries,
    read_ratings,
)
from scripts.lift.edge import Edge, Found
from scripts.lift.judged import Document, JudgedSet, JudgedSetError, Query

WORDS = "oak pine elm fig ash yew".split()
BASE = JudgedSet(
    "trees",
    tuple(Document(f"d{w}", f"care for the {w} tree", "c") for w in WORDS),
    tuple(Query(f"k{w}", f"my {w} is ill", w) for w in WORDS),
    {f"k{w}": {f"d{w}": 1.0} for w in WORDS},
)


class Searches:
    """An edge that returns every document for every query."""

    def search_all(self, queries: Iterable[str], *, playbook: bool) -> list[Found]:
        refs = tuple(("c", f"d{w}") for w in WORDS)
        return [Found(refs, b"", playbook) for _ in queries]


def ratings(*said: tuple[int, object]) -> str:
    return json.dumps({"ratings": [{"document": n, "relevant": r} for n, r in said]})


def by_words(query: str, texts: Sequence[str]) -> str:
    """A judge that is right."""
    said = [(n, any(w in query and w in text for w in WORDS)) for n, text in enumerate(texts, 1)]
    return f"Sure!\n```json\n{ratings(*said)}\n```"


def judged(ask: Any, *queries: str) -> Any:
    return judge_queries(cast("Edge", Searches()), BASE, queries, "own", "m", ask)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (ratings((1, True), (2, False)), {0: True, 1: False}),
        ("Here you are:\n```json\n" + ratings((2, True)) + "\n```", {1: True}),
        (ratings((0, True), (4, True), (2, "yes"), (3, 1), (True, True)), {}),
        (ratings((1, True), (1, False), (2, True), (2, True)), {1: True}),
        ("I cannot tell.", {}),
        ("{", {}),
        ('{"ratings": {"1": true}}', {}),
        ("[1]", {}),
    ],
)
def test_ratings_are_read_with_care(answer: str, found: dict[int, bool]) -> None:
    assert read_ratings(answer, 3) == found


def test_the_judge_sees_texts_and_no_ranks() -> None:
    asked: list[str] = []

    def ask(query: str, texts: Sequence[str]) -> str:
        asked.append(make_question(query, texts))
        return by_words(query, texts)

    own, trust = judged(ask, "old oak", "young fig", "a yew", "no tree at all")
    assert own.relevant == {"q1": {"doak": 1.0}, "q2": {"dfig": 1.0}, "q3": {"dyew": 1.0}}
    assert asked[-1].index("care for the ash") < asked[-1].index("care for the yew")
    assert (trust.kappa, trust.coverage, trust.pairs) == (1.0, 1.0, 36)
    assert trust.shown == (len(WORDS) + 4) * len(WORDS)
    assert "coverage 100%" in own.remarks[0]
    assert "kappa 1.00" in own.remarks[0]
    assert "1 of 4 queries" in own.remarks[1]
    assert len(WORDS) <= DEPTH


def test_a_judge_that_says_yes_to_all_has_no_kappa_to_show_for_it() -> None:
    def ask(query: str, texts: Sequence[str]) -> str:
        return ratings(*((n, True) for n in range(1, len(texts) + 1)))

    _, trust = judged(ask, "a", "b", "c", "d")
    assert trust.kappa == pytest.approx(0.0)


def test_a_judge_that_rates_half_is_told() -> None:
    def ask(query: str, texts: Sequence[str]) -> str:
        return ratings(*((n, n == 1) for n in range(1, len(texts) // 2 + 1)))

    _, trust = judged(ask, "a", "b", "c", "d")
    assert trust.coverage == 0.5
    assert trust.pairs == len(WORDS) * len(WORDS) // 2


def test_a_judge_that_says_nothing_or_no_is_refused() -> None:
    with pytest.raises(JudgedSetError, match="no rating that can be read"):
        judged(lambda q, t: "hm", "a", "b", "c", "d")
    with pytest.raises(JudgedSetError, match="no document relevant"):
        judged(lambda q, t: ratings((1, False)), "a", "b", "c", "d")


def test_kappa_is_agreement_beyond_chance() -> None:
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    assert cohen(pairs) == pytest.approx(0.4)  # the textbook's example
    assert cohen([(True, True)] * 5) is None
    assert cohen([]) is None
    point, low, high = kappa_of([pairs[n::10] for n in range(10)])
    assert point == pytest.approx(0.4)
    assert low is not None
    assert high is not None
    assert low < 0.4 < high


def test_a_file_of_queries(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("# mine\none\n\n two \nthree\nfour\none\n")
    assert read_queries(path) == ["one", "two", "three", "four"]
    path.write_text("one\none\n")
    with pytest.raises(JudgedSetError, match="at least 4"):
        read_queries(path)
    with pytest.raises(JudgedSetError, match="cannot be read"):
        read_queries(tmp_path / "absent")
