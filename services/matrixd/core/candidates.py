"""Candidates of one corpus, a row per document however many chunks it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from services.matrixd.core.chunking import split_item_id


class Found(NamedTuple):
    """One document: its scores, and the item that shows it best (a position in the answer)."""

    id: str
    cosine: float
    bm25: float
    item: int
    chunk: int | None


def collapse(
    items: Sequence[str], dense: Sequence[float], lexical: Sequence[float], chunked: bool
) -> list[Found]:
    """Documents in the order of their first item; of chunks the best of each score counts."""
    if not chunked:
        return [
            Found(name, cosine, bm25, at, None)
            for at, (name, cosine, bm25) in enumerate(zip(items, dense, lexical, strict=True))
        ]
    best: dict[str, Found] = {}
    for at, (item, cosine, bm25) in enumerate(zip(items, dense, lexical, strict=True)):
        name, chunk = split_item_id(item, chunked)
        held = best.get(name)
        if held is None:
            best[name] = Found(name, cosine, bm25, at, chunk)
            continue
        # What is shown is the chunk nearest in meaning.
        nearest = held if held.cosine >= cosine else Found(name, cosine, bm25, at, chunk)
        best[name] = nearest._replace(bm25=max(held.bm25, bm25))
    return list(best.values())
