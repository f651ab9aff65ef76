"""How surely one text is an edited copy of another: an alignment of their words, in order.

The score is a log-likelihood ratio in spirit. Each word that both have in the same order speaks
for a copy, the more the rarer it is; each word of the original that is gone, and each that came
in between, speaks against one, whatever it is, because an edit takes any word. Turns of phrase
count least. The four weights and the lines were found on a quarter of the topics of a FAQ
collection and of an intent collection, and measured on others (docs/distillation.md).
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.observerd.core.distill.words import TURNS

Words = tuple[str, ...]

# A word in common, beside its rarity; one that is missing; one that is new, and its rarity.
MATCH, MISSING, NEW, NEW_RARITY = 2.0, 2.5, 1.5, 0.15
# A whole text from here on is an edited copy; a text inside a longer one from here on.
WHOLE_FROM, INSIDE_FROM = 8.4, 20.0
TURN_RARITY = 0.3
# Texts looked at closely for each text checked, and entries of the index read to find them.
_CANDIDATES, _POSTINGS = 6, 2500
# How much the rest of a text counts when candidates are ranked.
_REST = 0.3
# Pairs of equal words past which two texts are too long to align; their 8-grams find those.
_PAIRS = 100_000


@dataclass(frozen=True, slots=True)
class Likeness:
    """The most similar original: its place in the index, and the scores.

    Attributes:
        whole: of the two texts from end to end.
        inside: of the original somewhere in the text.
    """

    at: int
    whole: float
    inside: float

    @property
    def suspect(self) -> bool:
        """Whether either score reaches its line."""
        return self.whole >= WHOLE_FROM or self.inside >= INSIDE_FROM


class Originals:
    """An index of texts whose edited copies are sought.

    Args:
        texts: the originals; `Likeness.at` counts them.
        background: other texts, which also show what words are common.
    """

    def __init__(self, texts: Sequence[Words], background: Iterable[Words] = ()) -> None:
        self._texts = texts
        self._holders: dict[str, list[int]] = defaultdict(list)
        held: Counter[str] = Counter()
        count = 0
        for words in dict.fromkeys([*texts, *background]):
            held.update(set(words))
            count += 1
        self._rarity = {
            word: TURN_RARITY if word in TURNS else math.log((count + 1) / (number + 0.5))
            for word, number in held.items()
        }
        self._unseen = math.log((count + 1) / 0.5)
        for at, words in enumerate(texts):
            for word in set(words):
                if word not in TURNS:
                    self._holders[word].append(at)
        self._mass = [sum(self._rarity[word] for word in words) for words in texts]

    def rarity(self, word: str) -> float:
        """How much a word tells: the log of how few texts have it."""
        return self._rarity.get(word, TURN_RARITY if word in TURNS else self._unseen)

    def find_likest(self, words: Words) -> Likeness | None:
        """The original that a text is likest to; None where none shares a telling word."""
        best: Likeness | None = None
        for at in self._candidates(words):
            found = self._compare(words, at)
            if found is not None and (best is None or _rank(found) > _rank(best)):
                best = found
        return best

    def _candidates(self, words: Words) -> list[int]:
        shared: defaultdict[int, float] = defaultdict(float)
        read = 0
        telling = sorted(
            (word for word in set(words) if word in self._holders),
            key=lambda word: (len(self._holders[word]), word),
        )
        for number, word in enumerate(telling):
            holders = self._holders[word]
            read += len(holders)
            # The rarest words lead to the original; common ones would read all of the index.
            if number > 1 and read > _POSTINGS:
                break
            for at in holders:
                shared[at] += self._rarity[word]
        mass = _REST * sum(self.rarity(word) for word in words)
        return heapq.nsmallest(
            _CANDIDATES, shared, key=lambda at: (-shared[at] / (self._mass[at] + mass), at)
        )

    def _compare(self, words: Words, at: int) -> Likeness | None:
        original = self._texts[at]
        there, here = Counter(original), Counter(words)
        common = [word for word in here if word in there]
        if sum(here[word] * there[word] for word in common) > _PAIRS:
            return None
        # The best that any order could give: most texts need no alignment.
        matched = sum(min(here[word], there[word]) for word in common)
        gained = sum(min(here[word], there[word]) * self._gain(word) for word in common)
        most = gained - MISSING * (len(original) - matched)
        if most < min(WHOLE_FROM, INSIDE_FROM):
            return None
        costs = [self._cost(word) for word in words]
        gains = {word: self._gain(word) for word in common}
        inside = _align(words, original, gains, costs, 0.0) if most >= INSIDE_FROM else -math.inf
        return Likeness(at, _align(words, original, gains, costs, 1.0), inside)

    def _gain(self, word: str) -> float:
        return MATCH + self.rarity(word)

    def _cost(self, word: str) -> float:
        return NEW + NEW_RARITY * self.rarity(word)


def _rank(found: Likeness) -> tuple[float, int]:
    return max(found.whole - WHOLE_FROM, found.inside - INSIDE_FROM), -found.at


def _align(
    words: Words, original: Words, gains: dict[str, float], costs: list[float], outside: float
) -> float:
    """The best alignment's score; what surrounds it in `words` costs `outside` of its weight.

    Over pairs of equal words only, with a tree of prefix maxima: n log m of them.
    """
    places: defaultdict[str, list[int]] = defaultdict(list)
    for at, word in enumerate(original):
        if word in gains:
            places[word].append(at)
    spent = [0.0]
    for cost in costs:
        spent.append(spent[-1] + cost)
    size = len(original)
    tree = [-math.inf] * (size + 1)
    best = -math.inf
    for here, word in enumerate(words):
        if word not in places:
            continue
        gain = gains[word]
        scored: list[tuple[int, float]] = []
        for there in places[word]:
            # Behind the best pair before both, or the first of all.
            before, node = -outside * spent[here], there
            while node > 0:
                before = max(before, tree[node] - spent[here])
                node -= node & -node
            score = before + gain - MISSING * there
            scored.append((there, score))
            rest = MISSING * (size - 1 - there) + outside * (spent[-1] - spent[here + 1])
            best = max(best, score - rest)
        for there, score in scored:
            value, node = score + spent[here + 1] + MISSING * (there + 1), there + 1
            while node <= size:
                tree[node] = max(tree[node], value)
                node += node & -node
    return best
