"""How alike a query's candidates are to its rated documents, worked out when it is recorded.

A search then needs no vectors of documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from services.matrixd.core.cold import Ref

Kin = NDArray[np.int16]
# Cosines are kept as whole numbers of this part of 1.
SCALE = 32767


def measure_kin(
    refs: Sequence[Ref], rated: Sequence[Ref], vectors: Mapping[Ref, NDArray[np.float32]]
) -> Kin:
    """Cosines of rated documents (rows) with candidates (columns), as whole numbers.

    Documents without a vector are like nothing: 0.
    """
    if not refs or not rated or not vectors:
        return np.zeros((0, 0), np.int16)
    width = len(next(iter(vectors.values())))
    nothing = np.zeros(width, np.float32)
    rows = np.stack([vectors.get(ref, nothing) for ref in rated]).astype(np.float64)
    columns = np.stack([vectors.get(ref, nothing) for ref in refs]).astype(np.float64)
    # One row at a time: the same sums whatever else is in the list.
    cosines = np.stack([(columns * row).sum(axis=1) for row in rows])
    return np.round(np.clip(cosines, -1, 1) * SCALE).astype(np.int16)
