"""The deterministic scorer's decisions on plain cases; scripts/measure_distill.py has figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.observerd.core.distill.agreeing import describe_agreement, drop_question
from services.observerd.core.distill.replies import score_safely
from services.observerd.core.distill.scorer import (
    SCORER,
    Case,
    Similarities,
    Text,
    describe_case,
    judge_answer,
    measure_similarities,
)
from shared.errors import Invalid

KNOWN = "Open the profile menu, choose Account, press Delete permanently and confirm by password."
CASE = Case(
    run_id="r1",
    question="How can I close my account for good?",
    answer="Choose Account in the profile menu and press Delete permanently, then confirm it "
    "with your password.",
    evidence=(
        Text("e1", KNOWN),
        Text("e2", "Invoices are sent by post on the first of each month."),
    ),
    references=(Text("g1", KNOWN),),
)
NEAR = Similarities(0.62, (0.6, 0.1), (0.85, 0.05), (0.85,), (0.6,))
FAR = Similarities(0.05, (0.6, 0.1), (0.06, 0.3), (0.06,), (0.6,))


def test_a_right_answer_is_accepted_on_named_evidence() -> None:
    found = judge_answer(CASE, NEAR)
    assert found.verdict == "accepted"
    assert found.evidence == ("e1", "g1")
    assert any("known good answers" in reason for reason in found.reasons)


def test_a_wrong_answer_is_rejected() -> None:
    wrong = replace(CASE, answer="Invoices leave by post on the first of each month.")
    found = judge_answer(wrong, FAR)
    assert (found.verdict, found.evidence) == ("rejected", ())


@pytest.mark.parametrize(
    "answer",
    [
        "It depends.",
        "You can do that in the settings.",
        "How can I close my account for good?",
        "…",
    ],
)
def test_a_vague_answer_is_not_accepted(answer: str) -> None:
    near = Similarities(0.45, (0.6, 0.1), (0.4, 0.1), (0.4,), (0.6,))
    assert judge_answer(replace(CASE, answer=answer), near).verdict in (
        "rejected",
        "needs_human_review",
    )


def test_nothing_to_judge_against_is_a_review() -> None:
    bare = replace(CASE, evidence=(), references=())
    found = judge_answer(bare, Similarities(0.9, (), ()))
    assert found.verdict == "needs_human_review"


def test_no_evidence_near_the_answer_is_never_an_accept() -> None:
    far = Similarities(0.1, (0.9, 0.9), (0.39, 0.39), (0.39,), (0.9,))
    for question in (-0.5, 0.0, 0.3):
        found = judge_answer(CASE, replace(far, question_answer=question))
        assert found.verdict in ("rejected", "needs_human_review")


def test_more_likeness_to_known_answers_never_lowers_the_score() -> None:
    scores = [
        judge_answer(CASE, replace(NEAR, answer_references=(step / 20,))).score
        for step in range(21)
    ]
    assert scores == sorted(scores)
    assert scores[0] < 0.3 < 0.9 < scores[-1]


@pytest.mark.parametrize(
    "near",
    [
        Similarities(0.6, (0.6,), (0.8, 0.1), (0.8,), (0.6,)),
        Similarities(0.6, (0.6, 0.1), (0.8, 0.1)),
        Similarities(float("nan"), (0.6, 0.1), (0.8, 0.1), (0.8,), (0.6,)),
        Similarities(0.6, (0.6, 0.1), (0.8, float("inf")), (0.8,), (0.6,)),
    ],
)
def test_similarities_that_do_not_fit_leave_the_run_unscored(near: Similarities) -> None:
    with pytest.raises(Invalid):
        judge_answer(CASE, near)
    score = score_safely(lambda: judge_answer(CASE, near), run_id="r1", scorer=SCORER)
    assert (score.scorer_status, score.verdict, score.score) == (
        "error",
        "needs_human_review",
        None,
    )


def test_cosines_out_of_vectors() -> None:
    found = measure_similarities([1, 0], [3, 4], [[0, 2], [5, 0]], [[-3, -4]])
    expected = Similarities(0.6, (0.0, 1.0), (0.8, 0.6), (-1.0,), (-0.6,))
    assert found == expected
    bad: list[Any] = [[1.0], [0.0, 0.0]]
    for vector in bad:
        with pytest.raises(Invalid):
            measure_similarities([1, 0], vector, [])


DOCUMENTS = (
    Text("d1", "Delete your account for good in the profile menu under Account."),
    Text("d2", "The profile menu has a button that deletes an account permanently."),
    Text("d3", "Passwords are changed on the security page of the profile."),
    Text("d4", "Invoices are sent by post on the first of each month."),
    Text("d5", "The mobile app is in both stores and costs nothing."),
)
TO_QUESTION = (0.8, 0.7, 0.4, 0.1, 0.05)
OPEN = replace(CASE, evidence=DOCUMENTS[:3], references=(), neighbours=DOCUMENTS[:2])


def lead(to_answer: tuple[float, ...], to_rest: tuple[float, ...], *places: int) -> Similarities:
    """Cosines of a case whose evidence is the first three documents."""
    return Similarities(
        0.6,
        TO_QUESTION[:3],
        to_answer[:3],
        question_neighbours=tuple(TO_QUESTION[at] for at in places),
        answer_neighbours=tuple(to_answer[at] for at in places),
        rest_evidence=to_rest[:3],
        rest_neighbours=tuple(to_rest[at] for at in places),
    )


def test_an_answer_that_leads_where_its_question_leads_is_accepted() -> None:
    case = replace(OPEN, neighbours=(*DOCUMENTS[:2], *DOCUMENTS[3:]))
    found = judge_answer(
        case, lead((0.85, 0.8, 0.4, 0.1, 0.1), (0.7, 0.65, 0.3, 0.05, 0.1), 0, 1, 3, 4)
    )
    assert found.verdict == "accepted"
    assert found.evidence == ("d1", "d2", "d3")
    assert any("less relevant to the question" in reason for reason in found.reasons)


def test_an_answer_that_leads_elsewhere_is_rejected() -> None:
    wrong = replace(
        OPEN,
        answer="Invoices leave by post on the first of each month.",
        neighbours=(DOCUMENTS[3], DOCUMENTS[4], DOCUMENTS[0]),
    )
    near = lead((0.1, 0.15, 0.2, 0.9, 0.3), (0.1, 0.12, 0.2, 0.9, 0.3), 3, 4, 0)
    assert judge_answer(wrong, near).verdict == "rejected"


def test_too_few_documents_are_judged_as_without_neighbours() -> None:
    features = describe_case(OPEN, lead((0.85, 0.8, 0.4), (0.7, 0.65, 0.3), 0, 1))
    assert "back" not in features


def test_neighbours_without_their_similarities_are_refused() -> None:
    near = replace(lead((0.85, 0.8, 0.4), (0.7, 0.65, 0.3), 0, 1), rest_evidence=())
    with pytest.raises(Invalid, match="neighbour"):
        judge_answer(OPEN, near)


def test_what_is_left_of_an_answer_without_its_question() -> None:
    asked = "How can I export contacts from Outlook?"
    assert drop_question(asked, "Export your contacts, then press Save.") == "your then press Save."
    assert drop_question(asked, "Outlook contacts export") == "-"
    vague = describe_agreement(asked, "Outlook contacts export", ["a b"] * 5, [0.5] * 5, [0.5] * 5,
                               [0.1] * 5, 5)  # fmt: skip
    assert (vague["echo"], vague["new"], vague["rest_agrees"]) == (1.0, 0.0, 0.0)
