"""Which documents a name means, which search a run was made from, what a rating teaches."""

from __future__ import annotations

from typing import Any

import pytest

from services.observerd.core.distill.export import Run
from services.observerd.core.distill.firewall import Pair
from services.observerd.core.distill.scores import Response, Score
from services.observerd.core.feeding.deciding import Offered, decide_feed
from services.observerd.core.feeding.searches import Search, find_search, match_refs

SHOWN = (("a", "1"), ("a", "2"), ("b", "2"), ("b", "3"))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["a/1"], [("a", "1")]),
        (["1", "b/2"], [("a", "1"), ("b", "2")]),
        (["2"], []),
        (["3", "a/9", "query:3"], [("b", "3")]),
        ([], []),
    ],
)
def test_a_name_means_a_shown_document_or_none(
    names: list[str], found: list[tuple[str, str]]
) -> None:
    assert list(match_refs(names, SHOWN)) == found


def event(mode: str, query: Any = "q", outputs: Any = None, status: str = "ok") -> dict[str, Any]:
    shown = [["a", "1"]] if outputs is None else outputs
    return {"mode": mode, "status": status, "inputs": {"query": query}, "outputs": shown}


def test_the_latest_whole_search_of_a_run_counts() -> None:
    assert find_search([]) is None
    first, last = event("matrix.search", "one"), event("matrix.search", "two")
    found = find_search([first, last, event("matrix.compose", "other")])
    assert found == Search("two", None, (("a", "1"),))
    assert find_search([event("matrix.compose", "other")]) == Search("other", None, (("a", "1"),))
    for broken in (
        event("matrix.search", 7),
        event("matrix.search", " "),
        event("matrix.search", outputs=[]),
        event("matrix.search", outputs=[["a"], ["a", 1], "x"]),
        event("matrix.search", outputs="x"),
        event("matrix.search", status="timeout"),
        event("chat"),
    ):
        assert find_search([broken]) is None
        assert find_search([first, broken]) == Search("one", None, (("a", "1"),))


def offer(name: str, verdict: Any, *made_from: str, task: str = "t", **more: Any) -> Offered:
    good = verdict in ("accepted", "partially_accepted")
    evidence = tuple(made_from) if good else ()
    response = Response(
        name, verdict, 0.9 if good else 0.1, ("why",), evidence, frozenset(made_from)
    )
    score = Score(name, "s/1", "ok", response)
    run = Run(name, f"question {name}", f"answer {name}", score, parents=made_from)
    return Offered(run, task, more.get("search", Search("question", ("a", "b"), SHOWN)))


def test_blame_is_for_what_a_rejected_attempt_at_the_same_task_was_made_from_alone() -> None:
    (made,), withheld = decide_feed(
        [
            offer("good", "accepted", "a/1"),
            offer("bad", "rejected", "b/3"),
            offer("mixed", "rejected", "a/2", "b/2"),
            offer("elsewhere", "rejected", "a/2", task="u"),
            offer("both", "rejected", "a/1"),
        ],
        [],
    )
    assert (made.runs, made.helped, made.harmed) == (("good",), (("a", "1"),), (("b", "3"),))
    assert [one.run for one in withheld] == ["bad", "mixed", "elsewhere", "both"]


def test_a_held_out_attempt_blames_nobody_and_keys_differ_by_task_and_label() -> None:
    held = [Pair("h", "nothing alike", "")]
    (made,), withheld = decide_feed(
        [offer("good", "accepted", "a/1"), offer("bad", "rejected", "b/3", "h")], held
    )
    assert made.harmed == ()
    assert withheld[0].tainted
    keys: set[str] = set()
    for task, label in (("t", ""), ("t", "x"), ("u", "")):
        (found,), _ = decide_feed([offer("good", "accepted", "a/1", task=task)], held, label=label)
        keys.add(found.key)
    assert len(keys) == 3
