"""What makes the scores of one corpus comparable with another's.

Cosine and BM25 mean different things in different corpora: long documents lie nearer to
everything, a large corpus has something near to anything, and BM25 grows with the length of
documents and the rareness of words. Two kinds of probes measure that at the build:

- known items: a few words of a document are searched for, and that document's scores tell
  what a right answer looks like in this corpus;
- strangers: everyday questions that few corpora answer, whose best score tells what the best
  wrong answer looks like.

The middle between the two is where a candidate is as likely right as wrong.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from services.matrixd.core.cold.candidates import Candidates
from services.matrixd.core.cold.strangers import STRANGERS

VERSION = 1
# Words of a document that make a known-item query, and how long they must be.
PROBE_WORDS = 5
MIN_LETTERS = 4
# So many probes count as much as the default figures.
PRIOR_PROBES = 8
# Fewer tell nothing.
MIN_PROBES = 8
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Probe:
    """A query that measures a corpus: words of the document `id`, or a stranger's (None)."""

    id: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Calibration:
    """What scores mean in one corpus.

    Attributes:
        middle: cosine at which a candidate is as likely right as wrong.
        lexical: BM25 of a right answer to five of its words.
        probes: how many known items it was measured on; 0 for the default.
        documents: how many documents the corpus had.
    """

    middle: float
    lexical: float
    probes: int = 0
    documents: int = 0

    @classmethod
    def default(cls) -> Self:
        """For a corpus that was not measured yet: figures of ordinary corpora."""
        return cls(0.37, 20.0)

    def to_json(self) -> dict[str, Any]:
        """As a record that can be stored."""
        return {
            "version": VERSION,
            "middle": self.middle,
            "lexical": self.lexical,
            "probes": self.probes,
            "documents": self.documents,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """From what `to_json` gave.

        Raises:
            ValueError: another version's, or damaged; measure the corpus again.
        """
        try:
            if record["version"] != VERSION:
                raise ValueError(f"calibration of version {record['version']!r}")
            found = cls(
                float(record["middle"]),
                float(record["lexical"]),
                int(record["probes"]),
                int(record["documents"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a calibration: {error!r}") from error
        if not (-1.0 <= found.middle <= 1.0 and 0.0 < found.lexical < math.inf):
            raise ValueError("a calibration's figures are out of range")
        return found


def choose_probes(documents: Iterable[tuple[str, str]], limit: int = 96) -> list[Probe]:
    """Up to `limit` known-item probes of (id, text), and the strangers.

    Which documents are taken depends on the documents alone, not on their order.
    """
    usable = (
        (_digest(identifier, text), identifier, text)
        for identifier, text in documents
        if _content_words(text)
    )
    chosen = heapq.nsmallest(limit, usable)
    known = [Probe(identifier, _cut_words(text, digest)) for digest, identifier, text in chosen]
    return known + [Probe(None, text) for text in STRANGERS]


def fit_calibration(results: Sequence[tuple[Probe, Candidates]], documents: int) -> Calibration:
    """The calibration from what the probes found in the corpus of so many documents."""
    cosines: list[float] = []
    lexical: list[float] = []
    strange: list[float] = []
    for probe, found in results:
        if not found.ids:
            continue
        if probe.id is None:
            strange.append(float(found.cosine.max()))
        elif probe.id in found.ids:
            at = found.ids.index(probe.id)
            cosines.append(float(found.cosine[at]))
            lexical.append(float(found.bm25[at]))
    default = Calibration.default()
    if len(cosines) < MIN_PROBES or not strange:
        return Calibration(default.middle, default.lexical, 0, documents)
    middle = (_mean(cosines) + _mean(strange)) / 2
    share = len(cosines) / (len(cosines) + PRIOR_PROBES)
    return Calibration(
        share * middle + (1 - share) * default.middle,
        max(share * _mean(lexical) + (1 - share) * default.lexical, 1e-3),
        len(cosines),
        documents,
    )


def _content_words(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    return [word for word in dict.fromkeys(words) if len(word) >= MIN_LETTERS]


def _cut_words(text: str, digest: str) -> str:
    words = _content_words(text)
    kept = set(sorted(words, key=lambda word: _digest(digest, word))[:PROBE_WORDS])
    return " ".join(word for word in words if word in kept)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
