"""The contamination firewall: no held-out text, or anything made from it, reaches training.

Tests in this order, each on the prompt, the answer and both joined: lineage (`lineage`), the
whole text as normalised words, the share of a held-out text's 8-grams, any single 8-gram, short
texts as whole strings, the share of its 3-grams (what is left when every third word was
changed), and similarity by embedding, which the caller measures. What is proof stops a row;
what is suspicion puts it in quarantine, where a person may look. Neither is exported.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from services.observerd.core.distill.lineage import Taint
from services.observerd.core.distill.words import TURNS, normalise_words

FIREWALL = "firewall/1"
Decision = Literal["clear", "quarantined", "stopped"]
Test = Literal["lineage", "exact", "coverage", "ngram", "short", "reworded", "similar"]
Where = Literal["row", "prompt", "answer", "joined"]
Words = tuple[str, ...]

LONG_GRAM, SHORT_GRAM = 8, 3
# Share of a held-out text's 8-grams that proves a copy.
COVERAGE_STOPS = 0.5
# Words of a gram that must carry content for it to tell: turns of phrase are everybody's.
LONG_TELLING, SHORT_TELLING = 3, 2
# Share of its 3-grams that makes a text suspect, how many are enough to say so, and how many
# of them must tell.
REWORDED_SHARE, REWORDED_COUNT, REWORDED_TELLING = 0.2, 5, 3
REWORDED_SHORT, REWORDED_LEAST = 0.4, 3
# Texts under this many words are sought as whole strings.
SHORT_WORDS = 13
# From here on a short text counts inside a longer one; below only as a whole field.
INSIDE_WORDS = 5
# Shorter fields ("yes", "thank you") say nothing alone, only joined with the other field.
ALONE_WORDS = 3
SIMILAR_COSINE = 0.93


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and its answer, held out or on its way to training."""

    id: str
    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One test that spoke: on which part of the row, against what, how strongly."""

    test: Test
    where: Where
    held_out: str
    value: float
    decision: Decision


@dataclass(frozen=True, slots=True)
class Clearance:
    """What the firewall says of one row; the decision is that of its gravest hit."""

    row: str
    decision: Decision
    hits: tuple[Hit, ...]

    @property
    def reason(self) -> str:
        """The first hit of the decision's gravity, for counts: `stopped: exact`."""
        for hit in self.hits:
            if hit.decision == self.decision:
                return f"{self.decision}: {hit.test}"
        return self.decision


@dataclass(frozen=True, slots=True)
class _Held:
    id: str
    words: Words
    long: int
    short: int


class Firewall:
    """An index of everything held out; `check_row` asks it about one row.

    Args:
        held_out: pairs that may not be seen in training. An empty field is no text.
    """

    def __init__(self, held_out: Iterable[Pair]) -> None:
        self._texts: list[_Held] = []
        self._exact: dict[Words, str] = {}
        self._inside: dict[int, dict[Words, str]] = defaultdict(dict)
        self._long: dict[Words, list[int]] = defaultdict(list)
        self._short: dict[Words, list[int]] = defaultdict(list)
        self.size = 0
        for pair in held_out:
            self.size += 1
            for where, words in _parts(pair):
                if len(words) >= ALONE_WORDS or where == "joined":
                    self._add(pair.id, words)

    def _add(self, name: str, words: Words) -> None:
        at = len(self._texts)
        long = set(_tell(_grams(words, LONG_GRAM), LONG_TELLING))
        short = set(_grams(words, SHORT_GRAM))
        self._texts.append(_Held(name, words, len(long), len(short)))
        self._exact.setdefault(words, name)
        if INSIDE_WORDS <= len(words) < SHORT_WORDS:
            self._inside[len(words)].setdefault(words, name)
        for gram in long:
            self._long[gram].append(at)
        for gram in short:
            self._short[gram].append(at)

    def check_row(
        self,
        row: Pair,
        *,
        taint: Taint | None = None,
        similar: Sequence[tuple[str, float]] = (),
    ) -> Clearance:
        """Every test on one row.

        Args:
            taint: from `lineage.find_taints`.
            similar: held-out ids with their cosine to this row by embedding; the nearest do.
        """
        hits: list[Hit] = []
        if taint is not None:
            # Nothing is known against an artefact of unknown lineage, nor for it.
            grave: Decision = "quarantined" if taint.unknown else "stopped"
            hits.append(Hit("lineage", "row", taint.path[-1], 1.0, grave))
        for where, words in _parts(row):
            hits.extend(self._check_words(where, words))
        for name, cosine in similar:
            if cosine >= SIMILAR_COSINE:
                hits.append(Hit("similar", "row", name, cosine, "quarantined"))
        decisions = {hit.decision for hit in hits}
        decision: Decision = (
            "stopped" if "stopped" in decisions else "quarantined" if decisions else "clear"
        )
        return Clearance(row.id, decision, tuple(hits))

    def _check_words(self, where: Where, words: Words) -> Iterator[Hit]:
        name = self._exact.get(words)
        if name is not None:
            yield Hit("exact", where, name, 1.0, "stopped")
            return
        found = self._count(self._long, _grams(words, LONG_GRAM))
        if found:
            shares = {at: count / self._texts[at].long for at, count in found.items()}
            best = max(shares, key=lambda at: (shares[at], -at))
            if shares[best] >= COVERAGE_STOPS:
                yield Hit("coverage", where, self._texts[best].id, shares[best], "stopped")
            else:
                yield Hit("ngram", where, self._texts[best].id, shares[best], "quarantined")
        for size, texts in self._inside.items():
            for gram in _grams(words, size):
                if gram in texts:
                    yield Hit("short", where, texts[gram], 1.0, "stopped")
                    break
        found = self._count(self._short, _grams(words, SHORT_GRAM))
        telling = self._count(self._short, _tell(_grams(words, SHORT_GRAM), SHORT_TELLING))
        shares = {
            at: count / self._texts[at].short
            for at, count in found.items()
            if count >= _enough(self._texts[at].short) and telling[at] >= REWORDED_TELLING
        }
        if shares:
            best = max(shares, key=lambda at: (shares[at], -at))
            if shares[best] >= REWORDED_SHARE:
                yield Hit("reworded", where, self._texts[best].id, shares[best], "quarantined")

    @staticmethod
    def _count(index: dict[Words, list[int]], grams: Iterable[Words]) -> Counter[int]:
        return Counter(at for gram in set(grams) for at in index.get(gram, ()))


def _enough(grams: int) -> int:
    """How many 3-grams of a text that has so many make it suspect."""
    return min(REWORDED_COUNT, max(REWORDED_LEAST, math.ceil(REWORDED_SHORT * grams)))


def _tell(grams: Iterable[Words], least: int) -> Iterator[Words]:
    return (gram for gram in grams if sum(word not in TURNS for word in gram) >= least)


def _parts(pair: Pair) -> list[tuple[Where, Words]]:
    prompt, answer = normalise_words(pair.prompt), normalise_words(pair.answer)
    parts: list[tuple[Where, Words]] = []
    if prompt:
        parts.append(("prompt", prompt))
    if answer:
        parts.append(("answer", answer))
    if prompt and answer:
        parts.append(("joined", prompt + answer))
    return parts


def _grams(words: Words, size: int) -> Iterator[Words]:
    return (words[at : at + size] for at in range(len(words) - size + 1))
