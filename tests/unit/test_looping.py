"""The loop's own parts: who answers, what is held out, when it counts as better; and samples."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from scripts.auditing.sampling import DECIDED, draw_sample, find_audited, read_cases
from scripts.lift.edge import EdgeError
from scripts.lift.judged import Document, JudgedSet, JudgedSetError, Query
from scripts.lift.measures import Pair
from scripts.looping.answering import (
    STAND_IN,
    ask_model,
    choose_answerer,
    leave_out,
    read_sources,
    stand_in,
)
from scripts.looping.command import plan_rounds
from scripts.looping.edge import LoopEdge
from scripts.looping.rounds import hold_out
from scripts.looping.tally import Round, pool_rounds
from scripts.looping.verdict import check_loop

MESSAGES = [
    {
        "role": "system",
        "content": "Cite each one.\n\n[1] jobs/d1: weld the frame first\n[2] jobs/d2: see: the "
        "manual\n[10] jobs/d3: call the fitter",
    },
    {"role": "user", "content": "[1] is no source here"},
]


def test_the_stand_in_reads_nothing_but_the_first_source_that_is_left() -> None:
    assert read_sources(MESSAGES) == {
        1: "weld the frame first",
        2: "see: the manual",
        10: "call the fitter",
    }
    first = stand_in(MESSAGES)
    assert (first.text, first.cited, first.model) == ("weld the frame first", (1,), STAND_IN)
    rest = leave_out(MESSAGES, [1])
    assert set(read_sources(rest)) == {2, 10}
    assert rest[1] == MESSAGES[1]
    assert stand_in(leave_out(MESSAGES, [1, 2])).text == "call the fitter"
    assert stand_in(leave_out(MESSAGES, [1, 2, 10])).cited == ()
    assert leave_out(MESSAGES, []) == MESSAGES


class Chat(LoopEdge):
    """A gateway whose chat says one thing, or refuses."""

    def __init__(self, content: str, *, refuses: bool = False) -> None:
        super().__init__("http://127.0.0.1:1", "", "t")
        self.content = content
        self.refuses = refuses
        self.asked: list[dict[str, Any]] = []

    def call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        self.asked.append(arguments["json"])
        if self.refuses:
            raise EdgeError("no provider")
        return httpx.Response(200, json={"content": self.content, "model": "ollama/small"})


def test_a_model_was_made_from_what_it_cites_of_the_sources() -> None:
    edge = Chat("Call the fitter [10], not [7] or [10].")
    said = ask_model(edge, "tier/local_fast", 50)(MESSAGES)
    assert (said.text, said.cited, said.model) == (
        "Call the fitter , not  or .",
        (10,),
        "ollama/small",
    )
    assert edge.asked[0]["messages"] == MESSAGES
    assert edge.asked[0]["max_tokens"] == 50


def test_the_stand_in_takes_the_place_of_a_tier_only_where_nobody_was_named() -> None:
    assert choose_answerer(Chat("yes"), "auto", 5)[1] == "ollama/small (tier/local_fast)"
    away = Chat("", refuses=True)
    answer, why = choose_answerer(away, "auto", 5)
    assert (answer, "does not answer" in why) == (stand_in, True)
    with pytest.raises(EdgeError):
        choose_answerer(away, "tier/local_judge", 5)
    away.asked.clear()
    assert choose_answerer(away, STAND_IN, 5)[0] is stand_in
    assert away.asked == []


def make_set(queries: int) -> JudgedSet:
    asked = tuple(
        Query(f"q{t}-{n}", f"need {t} in way {n}", f"t{t}")
        for t in range(12)
        for n in range(queries)
    )
    documents = tuple(Document(f"d{t}", f"answer {t}", "c") for t in range(12))
    return JudgedSet("made", documents, asked, {q.id: {f"d{q.topic[1:]}": 1.0} for q in asked})


def test_what_is_held_out_is_never_a_task_in_however_many_rounds() -> None:
    judged = make_set(5)
    plan = plan_rounds(judged, 3, 9, 6)
    tasks = {query.id for queries in plan.recorded.values() for query in queries}
    # All that a topic has but the one that is held out.
    assert {len(queries) for queries in plan.recorded.values()} == {4}
    held = {query.id for query in plan.held.values()}
    assert len(held) == len(plan.recorded)
    assert tasks.isdisjoint(held)
    names = {one["id"] for one in hold_out(plan)}
    assert {f"query:{name}" for name in held} <= names
    unseen = {query.topic for query in plan.unseen}
    assert unseen.isdisjoint(plan.recorded)
    assert {f"topic:{topic}" for topic in unseen} <= names
    assert {len(queries) for queries in plan_rounds(judged, 3, 2, 6).recorded.values()} == {2}
    with pytest.raises(JudgedSetError, match="one query a topic"):
        plan_rounds(make_set(1), 3, 2, 6)


TOPICS = 60


def pairs(change: float, *, topics: int = TOPICS, spread: float = 0.0) -> list[Pair]:
    """A pair a topic, changed by so much on average."""
    return [Pair(f"t{n}", 0.7, 0.7 + change + spread * (1 if n % 2 else -1)) for n in range(topics)]


def make_rounds(**changes: Any) -> list[Round]:
    arms = {"held": pairs(0), "unseen": pairs(0), "control": pairs(0), "right": pairs(0)}
    done = {
        "feed": {"held_out_recorded": 0, "held_out_offered": 9},
        "distil": {"changed_again": 0},
        "drift": {"verdicts": {"none": 1}},
    }
    changed = {arm: changes.pop(arm) for arm in list(changes) if arm in arms}
    last = Round(1, {**arms, "held": pairs(0.03), **changed}, 0, {}, **{**done, **changes})
    return [Round(0, arms, 0, {}), last]


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, None),
        ({"held": pairs(0)}, "held-out metric, last round"),
        ({"held": pairs(0.01, spread=0.2)}, "held-out metric, last round"),
        ({"held": pairs(0, topics=20)}, None),
        ({"held": pairs(-0.01, topics=20, spread=0.2)}, "held-out metric never falls"),
        ({"held": pairs(-0.004, topics=20)}, "held-out metric never falls"),
        ({"control": pairs(0.006)}, "control, playbook off, is flat"),
        ({"unseen": pairs(-0.011)}, "held-out topics unharmed"),
        ({"unseen": pairs(-0.002, spread=0.1)}, "held-out topics unharmed"),
        ({"unseen": pairs(-0.002, topics=20, spread=0.1)}, None),
        ({"unseen": pairs(-0.011, topics=20)}, "held-out topics unharmed"),
        ({"feed": {"held_out_recorded": 1, "held_out_offered": 9}}, "held-out runs recorded"),
        ({"distil": {"changed_again": 1}}, "exports that differ when made again"),
        ({"drift": {"verdicts": {"judge": 1, "none": 2}}}, "the scorer did not drift"),
        ({"drift": {"verdicts": {"system": 1}}}, None),
    ],
)
def test_a_loop_passes_only_when_nothing_fell_and_the_control_is_flat(
    changes: dict[str, Any], missed: str | None
) -> None:
    checks = check_loop(make_rounds(**changes))
    assert [check.name for check in checks if not check.passed] == ([missed] if missed else [])


def test_seeds_are_pooled_pair_by_pair_and_count_by_count() -> None:
    first, second = make_rounds(), make_rounds(held=pairs(0.01), drift={"verdicts": {"judge": 1}})
    pooled = pool_rounds([first, second])
    assert [one.number for one in pooled] == [0, 1]
    last = pooled[1]
    assert len(last.pairs["held"]) == 2 * TOPICS
    assert last.compare("held").topics == TOPICS
    assert last.compare("held").delta == pytest.approx(0.02)
    assert last.feed == {"held_out_recorded": 0, "held_out_offered": 18}
    assert last.drift == {"verdicts": {"none": 1, "judge": 1}}
    assert pool_rounds([first]) == first


def event(run: str, verdict: str = "accepted", **more: Any) -> dict[str, Any]:
    return {
        "run_id": "task", "mode": "distillation.feed", "verdict": verdict, "scorer_status": "ok",
        "attributes": {"run": run, "scorer": "s/1"}, "inputs": {"question": f"q {run}"},
        "outputs": {"answer": "a", "evidence": [{"id": "e", "text": "t"}]}, **more,
    }  # fmt: skip


def test_a_sample_follows_from_its_seed_and_grows_without_changing() -> None:
    cases = read_cases([event(f"r{n}") for n in range(50)], {"accepted"})
    assert len(cases) == 50
    small, large = draw_sample(cases, 5, 7), draw_sample(cases[::-1], 20, 7)
    assert large[:5] == small
    assert draw_sample(cases, 5, 8) != small
    assert len(draw_sample(cases, 90, 7)) == 50


def test_only_what_was_decided_and_is_not_held_out_may_be_audited() -> None:
    held = event("r1", attributes={"run": "r1", "held_out": True}, inputs=None, outputs=None)
    events = [
        event("r1"),
        event("r2", "rejected"),
        event("r3", scorer_status="error"),
        event("r4", outputs={"answer": "a", "evidence": []}),
        event("r5", mode="matrix.search"),
        held,
    ]
    assert read_cases(events, {"accepted"}) == []
    assert [one.run for one in read_cases(events, DECIDED)] == ["r2"]
    assert [one.run for one in read_cases(events[:1], {"accepted"})] == ["r1"]


def test_runs_count_as_audited_by_a_tier_whatever_model_stood_for_it() -> None:
    chain = [
        {"judge": "tier/frontier_review: a", "metrics": {"sample": {"runs": ["r1"]}}},
        {"judge": "tier/frontier_review: b", "metrics": {"sample": {"runs": ["r2"]}}},
        {"judge": "tier/other: a", "metrics": {"sample": {"runs": ["r3"]}}},
        {"judge": "a person", "metrics": {}},
    ]
    assert find_audited(chain, "tier/frontier_review") == {"r1", "r2"}
