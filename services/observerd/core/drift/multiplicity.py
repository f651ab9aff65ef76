"""Several tests at once: p-values adjusted so that the whole family keeps its level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Correction = Literal["holm", "bh", "none"]


def adjust(values: Sequence[float], correction: Correction) -> list[float]:
    """Adjusted p-values in the order given.

    `holm` (Holm 1979) bounds the chance of any false alarm, whatever the dependence; `bh`
    (Benjamini and Hochberg 1995) the expected share of false ones among the alarms.
    """
    count = len(values)
    order = sorted(range(count), key=lambda at: values[at])
    found = [0.0] * count
    if correction == "none":
        return list(values)
    if correction == "holm":
        reached = 0.0
        for rank, at in enumerate(order):
            reached = max(reached, (count - rank) * values[at])
            found[at] = min(1.0, reached)
        return found
    reached = 1.0
    for rank in range(count, 0, -1):
        at = order[rank - 1]
        reached = min(reached, values[at] * count / rank)
        found[at] = reached
    return found
