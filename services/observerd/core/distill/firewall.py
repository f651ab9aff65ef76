"""The contamination firewall: no held-out text, or anything made from it, reaches training.

Tests in this order, each on the prompt, the answer and both joined: lineage (`lineage`), the
whole text as normalised words, the share of a held-out text's 8-grams, any single 8-gram, short
texts as whole strings, an alignment of its words (`alignment`: what is left when every third
word was changed), and similarity by embedding, which the caller measures. What is proof stops a
row; what is suspicion puts it in quarantine, where a person may look. Neither is exported.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from services.observerd.core.distill.alignment import Likeness, Originals
from services.observerd.core.distill.lineage import Taint
from services.observerd.core.distill.words import TURNS, normalise_words

FIREWALL = "firewall/2"
Decision = Literal["clear", "quarantined", "stopped"]
Test = Literal["lineage", "exact", "coverage", "ngram", "short", "edited", "similar"]
Where = Literal["row", "prompt", "answer", "joined"]
Words = tuple[str, ...]

GRAM = 8
# Share of a held-out text's 8-grams that proves a copy.
COVERAGE_STOPS = 0.5
# Words of a gram that must carry content for it to tell: turns of phrase are everybody's.
GRAM_TELLING = 3
# Texts under this many words are sought as whole strings.
SHORT_WORDS = 13
# From here on a short text counts inside a longer one; below only as a whole field.
INSIDE_WORDS = 5
# Shorter fields ("yes", "thank you") say nothing alone, only joined with the other field.
ALONE_WORDS = 3
# Under this many words prompt and answer are aligned joined, too.
JOINED_WORDS = 2 * SHORT_WORDS
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
    grams: int


class Firewall:
    """An index of everything held out; `check_row` asks it about one row.

    Args:
        held_out: pairs that may not be seen in training. An empty field is no text.
        background: rows on their way to training, say: they too show what words are common.
    """

    def __init__(self, held_out: Iterable[Pair], background: Iterable[Pair] = ()) -> None:
        self._texts: list[_Held] = []
        self._exact: dict[Words, str] = {}
        self._prompts: dict[Words, str] = {}
        self._inside: dict[int, dict[Words, str]] = defaultdict(dict)
        self._grams: dict[Words, list[int]] = defaultdict(list)
        self.size = 0
        aligned: dict[Words, str] = {}
        for pair in held_out:
            self.size += 1
            for where, words in _parts(pair):
                if where == "prompt":
                    # The same question, however short, is the held-out one; a short answer is
                    # everybody's.
                    self._prompts.setdefault(words, pair.id)
                if len(words) >= ALONE_WORDS or where == "joined":
                    self._add(pair.id, words)
                    if _to_align(where, words):
                        aligned.setdefault(words, pair.id)
        self._aligned = list(aligned.values())
        self._originals = Originals(
            list(aligned),
            (words for pair in background for where, words in _parts(pair) if where != "joined"),
        )

    def _add(self, name: str, words: Words) -> None:
        at = len(self._texts)
        grams = set(_tell(_cut(words, GRAM), GRAM_TELLING))
        self._texts.append(_Held(name, len(grams)))
        self._exact.setdefault(words, name)
        if INSIDE_WORDS <= len(words) < SHORT_WORDS:
            self._inside[len(words)].setdefault(words, name)
        for gram in grams:
            self._grams[gram].append(at)

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
        if name is None and where == "prompt":
            name = self._prompts.get(words)
        if name is not None:
            yield Hit("exact", where, name, 1.0, "stopped")
            return
        found = Counter(at for gram in set(_cut(words, GRAM)) for at in self._grams.get(gram, ()))
        if found:
            shares = {at: count / self._texts[at].grams for at, count in found.items()}
            best = max(shares, key=lambda at: (shares[at], -at))
            if shares[best] >= COVERAGE_STOPS:
                yield Hit("coverage", where, self._texts[best].id, shares[best], "stopped")
            else:
                yield Hit("ngram", where, self._texts[best].id, shares[best], "quarantined")
        for size, texts in self._inside.items():
            for gram in _cut(words, size):
                if gram in texts:
                    yield Hit("short", where, texts[gram], 1.0, "stopped")
                    break
        likest = self._originals.find_likest(words) if _to_align(where, words) else None
        if likest is not None and likest.suspect:
            name = self._aligned[likest.at]
            yield Hit("edited", where, name, _strength(likest), "quarantined")


def _to_align(where: Where, words: Words) -> bool:
    """Joined texts only where their fields are too short to be told alone."""
    return where != "joined" or len(words) < JOINED_WORDS


def _strength(found: Likeness) -> float:
    return round(max(found.whole, found.inside), 3)


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


def _cut(words: Words, size: int) -> Iterator[Words]:
    return (words[at : at + size] for at in range(len(words) - size + 1))
