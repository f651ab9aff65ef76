"""The deterministic scorer: an answer against what was retrieved and, if known, good answers.

A logistic model on similarities and on words: is the answer about the question, nearer to the
known good answers than to other evidence, and does it say something that stands in them? Where
no good answer is known, what a search with the answer brings up (its neighbours) tells whether
question and answer lead to the same documents. All three sets of weights were fitted on half of
a public FAQ collection's threads (Karan and Šnajder 2018) and measured on the other half;
docs/distillation.md has the figures and how to repeat them. With neither good answers nor
neighbours it accepts little: another thread's answer looks right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.observerd.core.distill.agreeing import LEAST_DOCUMENTS, describe_agreement
from services.observerd.core.distill.scores import Response, Verdict
from services.observerd.core.distill.words import find_terms, normalise_words
from shared.errors import Invalid

SCORER = "deterministic/2"
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
WITH_NEIGHBOURS: Mapping[str, float] = {
    "rest_agrees": 1.214,
    "rest_agrees_asked": 1.257,
    "shared_words": 12.849,
    "back": 2.796,
    "back_best": 4.095,
    "commonplace": -2.501,
    "echo": -5.566,
    "new": 0.344,
    "bias": 0.68,
}


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of evidence or a known good answer."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Similarities:
    """Cosines by one embedding model, lists in the order of the case's own.

    Those of the rest (`agreeing.drop_question`) are needed where there are neighbours.
    """

    question_answer: float
    question_evidence: tuple[float, ...]
    answer_evidence: tuple[float, ...]
    answer_references: tuple[float, ...] = ()
    question_references: tuple[float, ...] = ()
    question_neighbours: tuple[float, ...] = ()
    answer_neighbours: tuple[float, ...] = ()
    rest_evidence: tuple[float, ...] = ()
    rest_neighbours: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One run to be judged: what was asked, answered, retrieved, and known to be good.

    `neighbours` is what a search with the answer's text brings up, without the answer itself.
    """

    run_id: str
    question: str
    answer: str
    evidence: tuple[Text, ...]
    references: tuple[Text, ...] = ()
    neighbours: tuple[Text, ...] = ()


def measure_similarities(
    question: Sequence[float],
    answer: Sequence[float],
    evidence: Sequence[Sequence[float]],
    references: Sequence[Sequence[float]] = (),
    neighbours: Sequence[Sequence[float]] = (),
    rest: Sequence[float] | None = None,
) -> Similarities:
    """Cosines out of vectors of any length other than zero.

    Args:
        rest: of the answer without the question's words.

    Raises:
        Invalid: the vectors do not all have the same dimension.
    """
    vectors = [question, answer, *evidence, *references, *neighbours]
    if rest is not None:
        vectors.append(rest)
    if len({len(vector) for vector in vectors}) > 1:
        raise Invalid("All vectors must come from one model.")
    return Similarities(
        _cosine(question, answer),
        tuple(_cosine(question, one) for one in evidence),
        tuple(_cosine(answer, one) for one in evidence),
        tuple(_cosine(answer, one) for one in references),
        tuple(_cosine(question, one) for one in references),
        tuple(_cosine(question, one) for one in neighbours),
        tuple(_cosine(answer, one) for one in neighbours),
        tuple(_cosine(rest, one) for one in evidence) if rest is not None else (),
        tuple(_cosine(rest, one) for one in neighbours) if rest is not None else (),
    )


def judge_answer(case: Case, near: Similarities) -> Response:
    """The verdict on one answer, with its reasons and the evidence it rests on.

    Raises:
        Invalid: the similarities are not finite or do not match the case; the run is then
            unscored (`replies.score_safely`).
    """
    _check(case, near)
    offered = frozenset(one.id for one in (*case.evidence, *case.references, *case.neighbours))

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
    score = _combine(features, _choose_weights(case, features))
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
    shown = (*case.evidence, *case.neighbours)
    context = frozenset[str]().union(*(find_terms(one.text) for one in shown))
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
    if case.neighbours and not case.references:
        found |= _describe_neighbours(case, near)
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


def _choose_weights(case: Case, features: Mapping[str, float]) -> Mapping[str, float]:
    if case.references:
        return WITH_REFERENCES
    return WITH_NEIGHBOURS if "back" in features else WITHOUT_REFERENCES


def _describe_neighbours(case: Case, near: Similarities) -> dict[str, float]:
    """Features over both searches' documents; none where they brought up too few."""
    seen = {one.id for one in case.evidence}
    more = [at for at, one in enumerate(case.neighbours) if one.id not in seen]
    documents = [*case.evidence, *(case.neighbours[at] for at in more)]
    if len(documents) < LEAST_DOCUMENTS:
        return {}
    return describe_agreement(
        case.question,
        case.answer,
        [one.text for one in documents],
        [*near.question_evidence, *(near.question_neighbours[at] for at in more)],
        [*near.answer_evidence, *(near.answer_neighbours[at] for at in more)],
        [*near.rest_evidence, *(near.rest_neighbours[at] for at in more)],
        len(case.evidence),
    )


def _check(case: Case, near: Similarities) -> None:
    rest = len(case.evidence) if case.neighbours else len(near.rest_evidence)
    if (
        len(near.question_evidence) != len(case.evidence)
        or len(near.answer_evidence) != len(case.evidence)
        or len(near.answer_references) != len(case.references)
        or len(near.question_references) != len(case.references)
        or len(near.question_neighbours) != len(case.neighbours)
        or len(near.answer_neighbours) != len(case.neighbours)
        or len(near.rest_neighbours) != len(case.neighbours)
        or len(near.rest_evidence) != rest
    ):
        raise Invalid("Give one similarity for each piece of evidence, reference and neighbour.")
    everything = (
        near.question_answer,
        *near.question_evidence,
        *near.answer_evidence,
        *near.answer_references,
        *near.question_references,
        *near.question_neighbours,
        *near.answer_neighbours,
        *near.rest_evidence,
        *near.rest_neighbours,
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
        *zip(case.neighbours, near.answer_neighbours, strict=True),
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
    if "back" in features:
        reasons.append(
            f"what is nearest to the answer is {-features['back']:.2f} less relevant to the "
            "question than the best found"
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
