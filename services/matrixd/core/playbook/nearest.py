"""The notes nearest to a query, exactly, and the same ones whatever else is in the index."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from services.matrixd.core.cold import Floats
from services.matrixd.core.playbook.episodes import Vector

# Notes that are looked at for one query, and how near they must be.
MOST = 32
LEAST_COSINE = 0.35
# Single precision decides only who is compared in double precision; nearer than this to the
# last one that is taken, it could be wrong.
MARGIN = 1e-4
_ROOM = 256


class Index:
    """Vectors in the order of the notes. Grows by `append`, which leaves the old one as it was.

    Several indexes share one block of memory: each sees only its own first rows, and a row is
    written once.
    """

    __slots__ = ("_block", "_count", "_shared", "most")

    def __init__(self, block: NDArray[np.float32], count: int, shared: list[int]) -> None:
        self._block = block
        self._count = count
        self._shared = shared
        self.most = MOST

    @classmethod
    def build(cls, vectors: Sequence[Vector]) -> Self:
        """The index of these vectors."""
        width = len(vectors[0]) if vectors else 0
        block = np.zeros((len(vectors) + _ROOM, width), np.float32)
        for at, vector in enumerate(vectors):
            block[at] = vector
        return cls(block, len(vectors), [len(vectors)])

    def append(self, vector: Vector) -> Index:
        """With one more vector at the end."""
        count = self._count
        if count == 0:
            return Index.build([vector])
        if self._shared[0] != count or count == len(self._block):
            block = np.zeros((count + count // 4 + _ROOM, self._block.shape[1]), np.float32)
            block[:count] = self._block[:count]
            grown = Index(block, count + 1, [count + 1])
        else:
            self._shared[0] = count + 1
            grown = Index(self._block, count + 1, self._shared)
        grown._block[count] = vector
        return grown

    def fits(self, vector: Vector) -> bool:
        """Whether there is anything to compare a vector with."""
        return self._count > 0 and len(vector) == self._block.shape[1]

    def nearest(
        self,
        vector: Vector,
        most: int = MOST,
        without: Collection[int] = (),
        below: float = 2.0,
    ) -> tuple[list[int], Floats]:
        """Places and cosines of the nearest, nearest first; equal ones by the later place.

        Args:
            vector: a unit vector.
            most: how many at most.
            without: places that are left out.
            below: only cosines under this.
        """
        if not self.fits(vector):
            return [], np.zeros(0)
        rough = self._block[: self._count] @ vector
        if without:
            rough[list(without)] = -2.0
        rough[rough >= below + MARGIN] = -2.0
        floor = LEAST_COSINE - MARGIN
        if self._count > most:
            floor = max(floor, float(np.partition(rough, -most)[-most]) - MARGIN)
        some = np.flatnonzero(rough >= floor)
        exact = (self._block[some].astype(np.float64) * vector.astype(np.float64)).sum(axis=1)
        order = np.lexsort((-some, -exact))
        chosen = [
            int(at) for at in order.tolist() if exact[at] >= LEAST_COSINE and exact[at] < below
        ][:most]
        return [int(some[at]) for at in chosen], exact[chosen]
