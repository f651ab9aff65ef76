"""Between the wire's lists and the cores' arrays. Brings numpy, so it is loaded on first use."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.matrixd.core.candidates import Found, collapse
from services.matrixd.core.cold import (
    Calibration,
    Candidates,
    ColdList,
    Probe,
    Ref,
    choose_probes,
    fit_calibration,
    rank_cold,
)
from shared.wire.vectord import Candidates as Answer

__all__ = ["Part", "choose_probes", "fit", "merge", "rank", "to_unit", "vectors_of"]

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Part:
    """What one corpus gave for a query.

    `dim` is its vectors' dimension; `calibration` the record that its build left; `lexical`
    the weight of words where it is not the usual one.
    """

    corpus: str
    chunked: bool
    dim: int
    calibration: Mapping[str, Any] | None
    answer: Answer
    found: Sequence[Found]
    lexical: float | None = None


def fit(
    corpus: str, chunked: bool, probes: Sequence[Probe], answers: Sequence[Answer], size: int
) -> dict[str, Any]:
    """A corpus's calibration from what its probes found."""
    lists = [
        _to_candidates(corpus, collapse(one.ids, one.dense, one.lexical, chunked))
        for one in answers
    ]
    return fit_calibration(list(zip(probes, lists, strict=True)), size).to_json()


def read_calibration(record: Mapping[str, Any] | None) -> Calibration:
    """A stored calibration; the default where there is none that can be used."""
    if record is None:
        return Calibration.default()
    try:
        return Calibration.from_json(record)
    except ValueError:
        return Calibration.default()


def rank(parts: Sequence[Part]) -> ColdList:
    """The candidates of corpora with one model, merged by their calibrated scores."""
    return rank_cold(
        [(_to_candidates(p.corpus, p.found), read_calibration(p.calibration)) for p in parts],
        {p.corpus: p.lexical for p in parts if p.lexical is not None},
    )


def merge(
    lists: Sequence[tuple[Sequence[Ref], Sequence[float]]], k: int
) -> list[tuple[Ref, float, int]]:
    """The best `k` of ranked lists as (document, score, number of its list); ties by document."""
    if len(lists) == 1:
        refs, scores = lists[0]
        return [(ref, float(score), 0) for ref, score in zip(refs[:k], scores[:k], strict=True)]
    whole = [
        (ref, float(score), number)
        for number, (refs, scores) in enumerate(lists)
        for ref, score in zip(refs[:k], scores[:k], strict=True)
    ]
    return sorted(whole, key=lambda one: (-one[1], one[0]))[:k]


def vectors_of(parts: Sequence[Part]) -> dict[Ref, Vector]:
    """Unit vectors of all candidates whose answer carries them."""
    found: dict[Ref, Vector] = {}
    for part in parts:
        if part.answer.vectors:
            raw = np.frombuffer(base64.b64decode(part.answer.vectors), "<f4")
            matrix = to_unit(raw.reshape(-1, part.dim))
            found |= {(part.corpus, one.id): matrix[one.item] for one in part.found}
    return found


def to_unit(vectors: Any) -> Vector:
    """Vectors (or one) of length 1."""
    wide = np.asarray(vectors, np.float64)
    length = np.sqrt(np.square(wide).sum(axis=-1, keepdims=True))
    return (wide / np.maximum(length, 1e-12)).astype(np.float32)


def _to_candidates(corpus: str, found: Sequence[Found]) -> Candidates:
    return Candidates(
        corpus,
        tuple(one.id for one in found),
        np.array([one.cosine for one in found], np.float64),
        np.array([one.bm25 for one in found], np.float64),
    )
