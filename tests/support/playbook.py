"""A small world of needs for tests of the playbook: documents, queries near them, judges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.matrixd.core.cold import Calibration, Candidates, ColdList, rank_cold
from services.matrixd.core.playbook import Episode, Rating

DIM = 48
# Where the right document of each need stands in the cold list of its centre.
PLACES = (1, 0, 2, 0, 1, 0, 3, 0)
Vector = NDArray[np.float32]


class World:
    """Needs, each with a place in space where its paraphrases lie and one right document.

    Often other documents lie nearer to the queries than the right one, so that cold search
    does not find it first.
    """

    def __init__(self, needs: int = 40, documents: int = 400, seed: int = 1) -> None:
        self.dice = np.random.default_rng(seed)
        self.centres = [self.unit(self.dice.normal(size=DIM)) for _ in range(needs)]
        vectors = [self.near(self.centres[n % needs], 0.8) for n in range(documents)]
        self.documents = {f"d{n:04d}": vector for n, vector in enumerate(vectors)}
        self._matrix = np.stack(list(self.documents.values())).astype(np.float64)
        # Mostly the nearest document of each need answers it, often one of the next.
        self.answers = [
            self.search(centre).refs[PLACES[n % len(PLACES)]][1]
            for n, centre in enumerate(self.centres)
        ]

    def unit(self, vector: NDArray[np.float64]) -> Vector:
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    def near(self, centre: Vector, spread: float) -> Vector:
        """A vector beside another: the smaller the spread, the nearer."""
        moved = centre + spread * self.unit(self.dice.normal(size=DIM))
        return self.unit(moved.astype(np.float64))

    def ask(self, need: int, spread: float = 0.45) -> Vector:
        """A paraphrase of a need."""
        return self.near(self.centres[need], spread)

    def search(self, vector: Vector) -> ColdList:
        ids = tuple(self.documents)
        cosine = self._matrix @ vector
        found = Candidates("c", ids, cosine, np.zeros(len(ids)))
        return rank_cold([(found, Calibration.default())]).head(100)

    def episode(
        self,
        need: int,
        number: int,
        vector: Vector | None = None,
        flipped: Sequence[bool] = (),
        source: str = "judge",
        answer: str | None = None,
    ) -> Episode:
        """A judged search; ratings are turned round where `flipped` says so."""
        asked = self.ask(need) if vector is None else vector
        cold = self.search(asked)
        right = self.answers[need] if answer is None else answer
        turned = [*flipped, *[False] * 10]
        ratings = tuple(
            Rating(corpus, identifier, 1 if (identifier == right) != turned[at] else -1)
            for at, (corpus, identifier) in enumerate(cold.refs[:10])
        )
        episode = Episode(
            f"e{number:05d}", number, f"need {need}", asked, cold.head(50), ratings, source
        )
        return episode.with_vectors({("c", name): each for name, each in self.documents.items()})

    def rank(self, refs: Sequence[tuple[str, str]], need: int) -> int:
        """Where the right document stands, from 1."""
        return [identifier for _, identifier in refs].index(self.answers[need]) + 1
