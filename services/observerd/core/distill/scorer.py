"""The deterministic scorer: an answer against what was retrieved and, if known, good answers.

A logistic model on similarities and on words: is the answer about the question, nearer to the
known good answers than to other evidence, and does it say something that stands in them? Both
sets of weights were fitted on half of a public FAQ collection's threads (Karan and Šnajder
2018) and measured on the other half; docs/distillation.md has the figures and how to repeat
them. Without known good answers it accepts little: a neighbouring thread's answer looks right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.observerd.core.distill.scores import Response, Verdict
from services.observerd.core.distill.words import find_terms, normalise_words
from shared.errors import Invalid

SCORER = "deterministic/1"
ACCEPT_FROM, PARTIAL_FROM, REJECT_BELOW = 0.775, 0.5, 0.25
# Evidence this near to the answer is what its verdict rests on.
SUPPORT_COSINE = 0.4
# Words beyond the question's that must stand in what was shown, or nothing was said.
LEAST_HELD = 3
# How much more the evidence nearest to the question counts.
_FOCUS = 10.0

WITH_REFERENCES: Mapping[str, float] = {
    "question": -0.492,
    "gap": 0.733,
    "new": -0.156,
    "grounded": -0.268,
    "references": 11.434,
    "best": 0.119,
    "margin": 1.514,
    "lead": 6.426,
    "told": 0.804,
    "asked": -4.795,
    "echo": -9.008,
    "bias": -1.646,
}
WITHOUT_REFERENCES: Mapping[str, float] = {
    "question": -5.483,
    "gap": 3.816,
    "evidence": 7.524,
    "nearest": 0.709,
    "new": 0.162,
    "grounded": 0.67,
    "bias": -2.313,
}


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of evidence or a known good answer."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Similarities:
    """Cosines by one embedding model, lists in the order of the case's own."""

    question_answer: float
    question_evidence: tuple[float, ...]
    answer_evidence: tuple[float, ...]
    answer_references: tuple[float, ...] = ()
    question_references: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One run to be judged: what was asked, answered, retrieved, and known to be good."""

    run_id: str
    question: str
    answer: str
    evidence: tuple[Text, ...]
    references: tuple[Text, ...] = ()


def measure_similarities(
    question: Sequence[float],
    answer: Sequence[float],
    evidence: Sequence[Sequence[float]],
    references: Sequence[Sequence[float]] = (),
) -> Similarities:
    """Cosines out of vectors of any length other than zero.

    Raises:
        Invalid: the vectors do not all have the same dimension.
    """
    vectors = [question, answer, *evidence, *references]
    if len({len(vector) for vector in vectors}) > 1:
        raise Invalid("All vectors must come from one model.")
    return Similarities(
        _cosine(question, answer),
        tuple(_cosine(question, one) for one in evidence),
        tuple(_cosine(answer, one) for one in evidence),
        tuple(_cosine(answer, one) for one in references),
        tuple(_cosine(question, one) for one in references),
    )


def judge_answer(case: Case, near: Similarities) -> Response:
    """The verdict on one answer, with its reasons and the evidence it rests on.

    Raises:
        Invalid: the similarities are not finite or do not match the case; the run is then
            unscored (`replies.score_safely`).
    """
    _check(case, near)
    offered = frozenset(one.id for one in (*case.evidence, *case.references))

    def answer(verdict: Verdict, score: float, *reasons: str) -> Response:
        support = _find_support(case, near) if verdict != "rejected" else ()
        return Response(case.run_id, verdict, score, reasons, support, offered)

    if not normalise_words(case.answer):
        return answer("rejected", 0.0, "the answer is empty")
    if normalise_words(case.answer) == normalise_words(case.question):
        return answer("rejected", 0.0, "the answer repeats the question")
    if not offered:
        return answer("needs_human_review", 0.5, "nothing to judge the answer against")
    features = describe_case(case, near)
    score = _combine(features, WITH_REFERENCES if case.references else WITHOUT_REFERENCES)
    reasons = _explain(features, case)
    if score < REJECT_BELOW:
        return answer("rejected", score, *reasons)
    support = _find_support(case, near)
    why = (
        "no evidence is near the answer"
        if not support
        else "hardly a word of it stands in what was shown"
        if features["held"] < LEAST_HELD
        else "too near the line to tell"
        if score < PARTIAL_FROM
        else ""
    )
    if why:
        return answer("needs_human_review", score, why, *reasons)
    return answer("accepted" if score >= ACCEPT_FROM else "partially_accepted", score, *reasons)


def describe_case(case: Case, near: Similarities) -> dict[str, float]:
    """The features of a case by name; what the weights multiply."""
    asked, said = find_terms(case.question), find_terms(case.answer)
    new = said - asked
    context = frozenset[str]().union(*(find_terms(one.text) for one in case.evidence))
    told = frozenset[str]().union(*(find_terms(one.text) for one in case.references))
    best = max(near.question_evidence, default=0.0)
    focus = [math.exp(_FOCUS * (cosine - best)) for cosine in near.question_evidence]
    weighted = sum(f * c for f, c in zip(focus, near.answer_evidence, strict=True))
    found = {
        "question": near.question_answer,
        "gap": near.question_answer - best,
        "evidence": weighted / sum(focus) if focus else 0.0,
        "nearest": max(near.answer_evidence, default=0.0),
        "new": math.log1p(len(new)),
        "grounded": math.log1p(len(new & context)),
        "held": float(len(new & (context | told))),
    }
    if case.references:
        known = {normalise_words(one.text) for one in case.references}
        others = sorted(
            cosine
            for one, cosine in zip(case.evidence, near.answer_evidence, strict=True)
            if normalise_words(one.text) not in known
        )[-3:] or [0.0]
        mean = sum(near.answer_references) / len(near.answer_references)
        found["references"] = mean
        found["best"] = max(near.answer_references)
        found["margin"] = found["best"] - others[-1]
        found["lead"] = mean - sum(others) / len(others)
        found["told"] = math.log1p(len(new & told))
        found["asked"] = sum(near.question_references) / len(near.question_references)
        found["echo"] = len(said & asked) / max(1, len(said))
    return found


def _check(case: Case, near: Similarities) -> None:
    if (
        len(near.question_evidence) != len(case.evidence)
        or len(near.answer_evidence) != len(case.evidence)
        or len(near.answer_references) != len(case.references)
        or len(near.question_references) != len(case.references)
    ):
        raise Invalid("Give one similarity for each piece of evidence and each reference.")
    everything = (
        near.question_answer,
        *near.question_evidence,
        *near.answer_evidence,
        *near.answer_references,
        *near.question_references,
    )
    if not all(math.isfinite(one) and -1.001 <= one <= 1.001 for one in everything):
        raise Invalid("A similarity is a cosine, from -1 to 1.")


def _combine(features: Mapping[str, float], weights: Mapping[str, float]) -> float:
    total = sum(weight * features.get(name, 1.0) for name, weight in weights.items())
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, total))))


def _find_support(case: Case, near: Similarities) -> tuple[str, ...]:
    pairs = [
        *zip(case.references, near.answer_references, strict=True),
        *zip(case.evidence, near.answer_evidence, strict=True),
    ]
    ranked = sorted(pairs, key=lambda pair: (-pair[1], pair[0].id))
    named = [one.id for one, cosine in ranked if cosine >= SUPPORT_COSINE]
    return tuple(dict.fromkeys(named))


def _explain(features: Mapping[str, float], case: Case) -> list[str]:
    reasons = [
        f"cosine to the question {features['question']:.2f}, "
        f"to the nearest evidence {features['nearest']:.2f}"
    ]
    if case.references:
        reasons.append(
            f"cosine to known good answers {features['references']:.2f} on average, "
            f"{features['margin']:+.2f} beside other evidence"
        )
    if features["new"] < math.log1p(5):
        reasons.append("says hardly anything that is not in the question")
    return reasons


def _cosine(first: Sequence[float], second: Sequence[float]) -> float:
    product = sum(a * b for a, b in zip(first, second, strict=True))
    lengths = math.sqrt(sum(a * a for a in first) * sum(b * b for b in second))
    if not lengths:
        raise Invalid("A vector of zeros has no direction; embed the text again.")
    return product / lengths
