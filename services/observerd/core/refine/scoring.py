"""What a replay is worth: nDCG@10 of a ranking whose right answers are known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

DEPTH = 10
Ref = tuple[str, str]


def score_ranking(ranked: Sequence[Ref], grades: Mapping[Ref, float]) -> float:
    """nDCG at ten, from 0 to 1, with grades as gains (Järvelin and Kekäläinen, 2002).

    Args:
        ranked: documents, best first.
        grades: of the documents that are right; at least one.
    """
    best = math.fsum(
        grade / math.log2(2 + place)
        for place, grade in enumerate(sorted(grades.values(), reverse=True)[:DEPTH])
    )
    found = math.fsum(
        grades.get(ref, 0.0) / math.log2(2 + place) for place, ref in enumerate(ranked[:DEPTH])
    )
    return min(1.0, found / best)
