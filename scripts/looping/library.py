"""The set's documents by name, and what the scorer is shown of them beside an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scripts.lift.judged import JudgedSet, Query
from scripts.looping.answering import LONGEST
from scripts.looping.edge import LoopEdge

# How corpora are searched before anything was refined: matrixd's own defaults, said aloud, so
# that the control arm does not follow what is promoted.
START: dict[str, Any] = {"lexical": 1.2, "candidates": 100}
# Known good answers that the scorer is shown at most, and texts that a search brings.
REFERENCES, NEIGHBOURS = 5, 10
# Characters of an answer that is searched with.
LONGEST_QUERY = 2000


class Library:
    """Looks documents up.

    Args:
        edge: with the set's corpora built.
        references: whether the scorer is shown known good answers; else what a search with the
            answer brings up.
    """

    def __init__(self, edge: LoopEdge, judged: JudgedSet, *, references: bool) -> None:
        self._edge = edge
        self._judged = judged
        self._references = references
        self.texts = {document.id: document.text for document in judged.documents}
        # The edge names its corpora by number, in the order of the set's.
        names = dict(zip(judged.corpora, edge.corpora, strict=True))
        self._corpus_of = {one.id: names[one.corpus] for one in judged.documents}

    def find_references(self, query: Query, cited: Sequence[str]) -> list[dict[str, str]]:
        """Other known good answers; never one that the answer was made from."""
        if not self._references:
            return []
        names = [self.name(one) for one in sorted(self._judged.relevant[query.id])]
        free = [name for name in names if name not in cited][:REFERENCES]
        texts = [self.texts[name.split("/", 1)[1]] for name in free]
        return [
            {"id": f"known:{name}", "text": text} for name, text in zip(free, texts, strict=True)
        ]

    def find_neighbours(self, answer: str, copied: Sequence[str]) -> list[dict[str, str]]:
        """What a search with the answer brings up, where no good answer is known."""
        if self._references or not answer.strip():
            return []
        found = self._edge.search(
            answer[:LONGEST_QUERY], playbook=False, k=NEIGHBOURS + 4, tuning=START
        )
        names = [self.name(one) for one in found.ids]
        return [
            {"id": name, "text": self.texts[name.split("/", 1)[1]]}
            for name in names
            if name not in copied
        ][:NEIGHBOURS]

    def copy(self, document: str) -> str:
        """What the stand-in would say of a document."""
        return " ".join(self.texts[document].split()[:LONGEST])

    def name(self, document: str) -> str:
        """A document's name in lineage and evidence."""
        return f"{self._corpus_of[document]}/{document}"
