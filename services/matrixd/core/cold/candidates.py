"""What goes into cold scoring, and what comes out of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# A document anywhere: its corpus and its id there.
Ref = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Candidates:
    """The candidates of one query in one corpus, in any order.

    Attributes:
        corpus: its name.
        ids: the documents; each once.
        cosine: of the query and each document, exact for all of them.
        bm25: of the query and each document; 0 where they share no word.
    """

    corpus: str
    ids: tuple[str, ...]
    cosine: Floats
    bm25: Floats


@dataclass(frozen=True, slots=True)
class ColdList:
    """Ranked candidates of one query, best first; equal ones by (corpus, id).

    Attributes:
        refs: the documents.
        p0: probability that each is relevant; comparable between corpora.
        cosine: as in `Candidates`.
        bm25: as in `Candidates`.
    """

    refs: tuple[Ref, ...]
    p0: Floats
    cosine: Floats
    bm25: Floats

    def head(self, count: int) -> ColdList:
        """The first `count`."""
        return ColdList(self.refs[:count], self.p0[:count], self.cosine[:count], self.bm25[:count])

    def keep(self, count: int, each: int, also: Collection[Ref] = ()) -> ColdList:
        """The first `count`, of every corpus its first `each`, and those of `also` further down."""
        kept = find_first(self.refs, count, each, also)
        return ColdList(
            tuple(self.refs[at] for at in kept), self.p0[kept], self.cosine[kept], self.bm25[kept]
        )


def find_first(refs: Sequence[Ref], count: int, each: int, also: Collection[Ref] = ()) -> list[int]:
    """Places of the first `count`, of every corpus' first `each`, and of those of `also`."""
    times: dict[str, int] = {}
    found: list[int] = []
    for at, ref in enumerate(refs):
        times[ref[0]] = times.get(ref[0], 0) + 1
        if at < count or times[ref[0]] <= each or ref in also:
            found.append(at)
    return found
