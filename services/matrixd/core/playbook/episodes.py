"""Judged episodes: the raw evidence, as it was given and never rewritten."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from services.matrixd.core.cold import ColdList, Ref
from services.matrixd.core.playbook.kindred import Kin, measure_kin

Vector = NDArray[np.float32]
# Documents of the cold list that are compared with the rated ones.
COMPARED = 50


@dataclass(frozen=True, slots=True)
class Rating:
    """What a source said of one document: above 0 it helped, below 0 it did not, 0 nothing."""

    corpus: str
    id: str
    rating: float


@dataclass(frozen=True, slots=True)
class Episode:
    """One query, what a cold search gave for it then, and how its documents were rated.

    Attributes:
        id: names it for good.
        seq: its place in the journal; of evidence that conflicts, the newer counts for more.
        query: the text.
        vector: the query's unit vector.
        cold: the cold list at that time, some 50 deep and with the first documents of each
            corpus that was searched, and those of `shown`.
        ratings: of documents of that list.
        source: who rated; its accuracy is estimated, never believed.
        run_id: the run it belongs to, if any.
        shown: rated documents that stood far down the cold list, and that search with the
            playbook showed all the same.
        documents: unit vectors of the documents that were rated above 0.
        kin: cosines of the rated documents (rows, as `rated`) with the cold list's (columns),
            in parts of 32767, 0 for those far down; empty where vectors were not at hand.
    """

    id: str
    seq: int
    query: str
    vector: Vector
    cold: ColdList
    ratings: tuple[Rating, ...]
    source: str
    run_id: str = ""
    shown: tuple[Ref, ...] = ()
    documents: Mapping[Ref, Vector] = field(default_factory=dict[Ref, Vector])
    kin: Kin = field(default_factory=lambda: np.zeros((0, 0), np.int16))

    @property
    def rated(self) -> tuple[Ref, ...]:
        """The rated documents, each once, in the order of the ratings."""
        return tuple(dict.fromkeys((each.corpus, each.id) for each in self.ratings))

    def with_vectors(self, vectors: Mapping[Ref, Vector]) -> Self:
        """With what the vectors of the candidates tell; the vectors themselves are not kept,
        but for those of documents rated above 0."""
        helped = sorted({(r.corpus, r.id) for r in self.ratings if r.rating > 0})
        compared = {*self.cold.refs[:COMPARED], *self.rated}
        return replace(
            self,
            documents={ref: vectors[ref] for ref in helped if ref in vectors},
            kin=measure_kin(
                self.cold.refs,
                self.rated,
                {ref: each for ref, each in vectors.items() if ref in compared},
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """As a record that can be stored; `from_json` gives back the same, bit by bit."""
        return {
            "id": self.id,
            "seq": self.seq,
            "query": self.query,
            "vector": _pack(self.vector),
            "cold": {
                "refs": [list(ref) for ref in self.cold.refs],
                "p0": self.cold.p0.tolist(),
                "cosine": self.cold.cosine.tolist(),
                "bm25": self.cold.bm25.tolist(),
            },
            "ratings": [[each.corpus, each.id, each.rating] for each in self.ratings],
            "source": self.source,
            "run_id": self.run_id,
            "shown": [list(ref) for ref in self.shown],
            "documents": [[*ref, _pack(vector)] for ref, vector in self.documents.items()],
            "kin": base64.b64encode(self.kin.astype("<i2").tobytes()).decode("ascii"),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """From what `to_json` gave.

        Raises:
            ValueError: something of it is missing or of another kind.
        """
        try:
            cold = record["cold"]
            found = cls(
                id=str(record["id"]),
                seq=int(record["seq"]),
                query=str(record["query"]),
                vector=_unpack(record["vector"]),
                cold=ColdList(
                    tuple((str(corpus), str(identifier)) for corpus, identifier in cold["refs"]),
                    np.array(cold["p0"], np.float64),
                    np.array(cold["cosine"], np.float64),
                    np.array(cold["bm25"], np.float64),
                ),
                ratings=tuple(
                    Rating(str(corpus), str(identifier), float(rating))
                    for corpus, identifier, rating in record["ratings"]
                ),
                source=str(record["source"]),
                run_id=str(record.get("run_id", "")),
                shown=tuple(
                    (str(corpus), str(identifier)) for corpus, identifier in record.get("shown", ())
                ),
                documents={
                    (str(corpus), str(identifier)): _unpack(packed)
                    for corpus, identifier, packed in record["documents"]
                },
            )
            kin = np.frombuffer(base64.b64decode(record.get("kin", "")), "<i2").astype(np.int16)
            if kin.size:
                shape = (len(found.rated), len(found.cold.refs))
                found = replace(found, kin=kin.reshape(shape))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not an episode: {error!r}") from error
        lengths = {len(found.cold.refs), *map(len, (found.cold.p0, found.cold.cosine))}
        if len(lengths) > 1 or not all(math.isfinite(each.rating) for each in found.ratings):
            raise ValueError("not an episode: its cold list or ratings are damaged")
        return found


def _pack(vector: Vector) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def _unpack(packed: str) -> Vector:
    return np.frombuffer(base64.b64decode(packed, validate=True), "<f4").astype(np.float32)
