"""How needs change the scores: a mixture of what is known with and without each of them.

    score(d) = p0(d) + sum over needs of q * (sigma(logit p0(d) + E(d)) - p0(d))
with E the need's evidence and q its probability, so that evidence counts as far as the need is
the query's own. Evidence against a document needs more certainty (q to a power): pushing down
what may be right costs more than leaving what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from services.matrixd.core.cold import Floats, Ref

# Power of a need's probability for evidence against a document, from a coin to a sure source.
CAUTION = 2.0


def mix_scores(
    p0: Floats,
    places: Mapping[Ref, int],
    evidence: Mapping[int, Mapping[Ref, float]],
    probabilities: Floats,
    clarity: float,
) -> list[tuple[int, Floats]]:
    """What each active need adds to the scores: (number of the need, change per document).

    `evidence` and `probabilities` are by the number of the need; `places` of the documents.
    """
    clipped = np.clip(p0, 1e-9, 1 - 1e-9)
    logit = np.log(clipped / (1 - clipped))
    power = 1 + CAUTION * clarity**2
    changes: list[tuple[int, Floats]] = []
    for number, known in evidence.items():
        probability = float(probabilities[number])
        if probability <= 0.0:
            continue
        rated = [(places[ref], odds) for ref, odds in known.items() if ref in places]
        if not rated:
            continue
        at = np.array([place for place, _ in rated])
        odds = np.array([each for _, each in rated])
        weight = np.where(odds > 0, probability, probability**power)
        change = np.zeros(len(p0))
        change[at] = weight * (1 / (1 + np.exp(-(logit[at] + odds))) - p0[at])
        changes.append((number, change))
    return changes


def order_scores(p0: Floats, changes: Sequence[tuple[int, Floats]]) -> tuple[list[int], Floats]:
    """The new order of cold's documents, ties as cold has them, and their scores."""
    scores = p0.copy()
    for _, change in changes:
        scores = scores + change
    order: list[int] = np.argsort(-scores, kind="stable").tolist()
    return order, scores[order]
