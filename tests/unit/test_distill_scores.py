"""ADR-005: no failure of a scorer becomes an accept or a number, and coverage is always told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from services.observerd.core.distill.replies import read_reply, score_failure, score_safely
from services.observerd.core.distill.scores import (
    Response,
    Score,
    count_coverage,
    load_score,
    require_coverage,
)
from shared.errors import Invalid, PreconditionFailed, Timeout, Unavailable

GOOD: dict[str, Any] = {
    "run_id": "r1",
    "verdict": "accepted",
    "score": 0.9,
    "reasons": ["it answers the question"],
    "evidence": ["d1"],
}


def read(fields: dict[str, Any] | str | bytes | None, **more: Any) -> Score:
    text = json.dumps(fields) if isinstance(fields, dict) else fields
    return read_reply(text, run_id="r1", scorer="judge/1", offered=["d1", "d2"], **more)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


def raise_error(error: Exception) -> Score:
    def judge() -> Response:
        raise error

    return score_safely(judge, run_id="r1", scorer="judge/1")


FAULTS: dict[str, tuple[Any, str]] = {
    "the scorer crashed": (lambda: raise_error(ZeroDivisionError("x")), "error"),
    "its daemon is away": (lambda: raise_error(Unavailable("chatd is away")), "error"),
    "the deadline passed": (lambda: raise_error(TimeoutError()), "timeout"),
    "a peer's deadline passed": (lambda: raise_error(Timeout("too late")), "timeout"),
    "no reply": (lambda: read(None), "unparseable"),
    "an empty reply": (lambda: read(" \n"), "unparseable"),
    "prose": (lambda: read("I would accept this answer."), "unparseable"),
    "bytes that are no text": (lambda: read(b"\xff\xfe{}"), "unparseable"),
    "JSON cut in the middle": (lambda: read(json.dumps(GOOD)[:40]), "unparseable"),
    "another root than an object": (lambda: read("[1]"), "unparseable"),
    "nested without end": (lambda: read("[" * 60_000), "unparseable"),
    "a field twice": (
        lambda: read('{"verdict":"rejected",' + json.dumps(GOOD)[1:]),
        "unparseable",
    ),
    "stopped at its length": (lambda: read(GOOD, finish_reason="length"), "partial"),
    "a stream without an end": (lambda: read(GOOD, finish_reason=None), "partial"),
    "no verdict": (lambda: read(without("verdict")), "partial"),
    "no score": (lambda: read(without("score")), "partial"),
    "no evidence field": (lambda: read(without("evidence")), "partial"),
    "an accept on no evidence": (lambda: read({**GOOD, "evidence": []}), "partial"),
    "no reasons": (lambda: read({**GOOD, "reasons": []}), "partial"),
    "a verdict of its own": (lambda: read({**GOOD, "verdict": "great"}), "out_of_range"),
    "a score of 1.7": (lambda: read({**GOOD, "score": 1.7}), "out_of_range"),
    "a score of NaN": (lambda: read({**GOOD, "score": float("nan")}), "out_of_range"),
    "a score in words": (lambda: read({**GOOD, "score": "0.9"}), "unparseable"),
    "a score of true": (lambda: read({**GOOD, "score": True}), "unparseable"),
    "no score but null": (lambda: read({**GOOD, "score": None}), "unparseable"),
    "a verdict its score denies": (lambda: read({**GOOD, "score": 0.1}), "out_of_range"),
    "evidence never shown": (lambda: read({**GOOD, "evidence": ["d9"]}), "out_of_range"),
    "evidence as a string": (lambda: read({**GOOD, "evidence": "d1"}), "unparseable"),
    "about another run": (lambda: read({**GOOD, "run_id": "r2"}), "unparseable"),
    "far too long": (lambda: read(json.dumps(GOOD) + " " * 70_000), "unparseable"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_a_review_without_a_number(fault: str) -> None:
    make, status = FAULTS[fault]
    score = make()
    assert score.scorer_status == status
    assert (score.verdict, score.score, score.evidence) == ("needs_human_review", None, ())
    assert score.reasons[0]
    assert load_score(json.loads(json.dumps(score.dump()))) == score
    found = count_coverage(["r1"], [score])
    assert (found.scored, found.coverage, found.accepted_rate) == (0, 0.0, None)


def test_a_whole_reply_is_taken_as_it_is() -> None:
    score = read(GOOD)
    assert (score.scorer_status, score.verdict, score.score) == ("ok", "accepted", 0.9)
    assert score.evidence == ("d1",)
    assert read("```json\n" + json.dumps(GOOD) + "\n```") == score
    assert read(without("run_id")) == score
    assert load_score(json.loads(json.dumps(score.dump()))) == score


def test_a_review_by_the_scorer_itself_has_no_number_either() -> None:
    score = read({**GOOD, "verdict": "needs_human_review", "score": 0.5, "evidence": []})
    assert (score.scorer_status, score.verdict, score.score) == ("ok", "needs_human_review", None)


RESPONSE = Response("r1", "accepted", 0.9, ("good",), ("d1",), frozenset({"d1"}))


@pytest.mark.parametrize(
    "change",
    [
        {"evidence": ()},
        {"evidence": ("d2",)},
        {"reasons": ()},
        {"reasons": (" ",)},
        {"score": 1.2},
        {"score": float("nan")},
        {"score": None},
        {"verdict": "fine"},
        {"run_id": ""},
        {"verdict": "partially_accepted", "evidence": ()},
    ],
)
def test_an_incomplete_response_cannot_be_constructed(change: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        replace(RESPONSE, **change)


@pytest.mark.parametrize("status", ["error", "timeout", "unparseable", "out_of_range", "partial"])
def test_no_failed_status_can_carry_a_response(status: Any) -> None:
    with pytest.raises(Invalid, match="exactly when"):
        Score("r1", "judge/1", status, RESPONSE)
    with pytest.raises(Invalid, match="what failed"):
        Score("r1", "judge/1", status)


def test_ok_without_a_response_and_a_foreign_response_are_refused() -> None:
    with pytest.raises(Invalid, match="exactly when"):
        Score("r1", "judge/1", "ok")
    with pytest.raises(Invalid, match="another run"):
        Score("r2", "judge/1", "ok", RESPONSE)


@pytest.mark.parametrize(
    "forged",
    [
        {"verdict": "accepted"},
        {"score": 1.0},
        {"scorer_status": "ok"},
        {"reasons": None},
        {"scorer_status": "fine"},
    ],
)
def test_a_forged_record_is_not_loaded(forged: dict[str, Any]) -> None:
    failed = score_failure(TimeoutError(), run_id="r1", scorer="judge/1").dump()
    with pytest.raises(Invalid):
        load_score({**failed, **forged})


def test_coverage_counts_failures_and_runs_nobody_saw() -> None:
    scores = [
        Score(f"r{at}", "judge/1", "ok", replace(RESPONSE, run_id=f"r{at}")) for at in range(6)
    ]
    scores.append(score_failure(TimeoutError(), run_id="r6", scorer="judge/1"))
    # The last score of a run counts.
    scores.append(score_failure(ValueError(), run_id="r0", scorer="judge/1"))
    found = count_coverage([f"r{at}" for at in range(10)], scores)
    assert (found.runs, found.scored, found.unobserved) == (10, 5, 3)
    assert found.by_status["timeout"] == found.by_status["error"] == 1
    assert found.by_verdict["accepted"] == 5
    assert found.accepted_rate == 1.0
    with pytest.raises(PreconditionFailed, match="5 of 10") as refused:
        require_coverage(found)
    assert refused.value.details["unobserved"] == 3
    require_coverage(found, 0.5)
    with pytest.raises(PreconditionFailed):
        require_coverage(count_coverage([], []))
