"""Whether an answer and its question lead to the same documents.

A search with the question and one with the answer: where an answer belongs to its question, what
comes up for the one is relevant to the other. An answer that merely repeats the question would
lead there, too, so the answer is also compared without the question's words: what is left of a
vague one leads nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from services.observerd.core.distill.words import find_terms

# How much more the documents nearest to the question count.
_FOCUS = 10.0
_TOP = 3
# Under so many documents nothing can be said of their order.
LEAST_DOCUMENTS = 5


def drop_question(question: str, answer: str) -> str:
    """The answer without the words of the question that carry content; "-" when none is left."""
    asked = find_terms(question)
    kept = (word for word in answer.split() if not ((said := find_terms(word)) and said <= asked))
    return " ".join(kept) or "-"


def describe_agreement(
    question: str,
    answer: str,
    documents: Sequence[str],
    to_question: Sequence[float],
    to_answer: Sequence[float],
    to_rest: Sequence[float],
    found_by_question: int,
) -> dict[str, float]:
    """Features of one answer over what both searches brought up.

    Args:
        documents: texts, those found by the question first, without the answer itself.
        to_question, to_answer, to_rest: their cosines to the question, to the answer and to
            what `drop_question` left of it.
        found_by_question: how many of them the question found.
    """
    asked, said = find_terms(question), find_terms(answer)
    new = said - asked
    most = max(to_question)
    focus = [math.exp(_FOCUS * (cosine - most)) for cosine in to_question]
    shared = [_overlap(new, find_terms(text)) for text in documents]
    # What is nearest to the answer, and how relevant that is to the question.
    nearest = sorted(range(len(documents)), key=lambda at: (-to_answer[at], at))[:_TOP]
    return {
        "rest_agrees": _correlate(to_question, to_rest),
        "rest_agrees_asked": _correlate(
            to_question[:found_by_question], to_rest[:found_by_question]
        ),
        "shared_words": sum(f * s for f, s in zip(focus, shared, strict=True)) / sum(focus),
        "back": to_question[nearest[0]] - most,
        "back_best": max(to_question[at] for at in nearest) - most,
        "commonplace": sum(to_answer) / len(to_answer),
        "echo": len(said & asked) / max(1, len(said)),
        "new": math.log1p(len(new)),
    }


def _overlap(first: frozenset[str], second: frozenset[str]) -> float:
    return len(first & second) / math.sqrt(max(1, len(first)) * max(1, len(second)))


def _correlate(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's correlation; 0 where one of them does not vary."""
    if len(first) < 2:
        return 0.0
    middle, other = sum(first) / len(first), sum(second) / len(second)
    product = sum((a - middle) * (b - other) for a, b in zip(first, second, strict=True))
    spread = math.sqrt(
        sum((a - middle) ** 2 for a in first) * sum((b - other) ** 2 for b in second)
    )
    return product / spread if spread > 1e-12 else 0.0
