"""The judge: it sees the ten documents that a search returned, and nothing else.

Its faults are part of the test: it may err at random, be bribed for one document, or mix up
what it saw.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scripts.lift.edge import Ref

Ratings = list[tuple[Ref, int]]
Judge = Callable[[Sequence[Ref], Mapping[str, float]], Ratings]


def judge_honestly(shown: Sequence[Ref], relevant: Mapping[str, float]) -> Ratings:
    """1 for each relevant document, -1 for each other."""
    return [(ref, 1 if ref[1] in relevant else -1) for ref in shown[:10]]


@dataclass(frozen=True, slots=True)
class ErringJudge:
    """Says the opposite with a fixed probability."""

    rate: float
    dice: random.Random

    def __call__(self, shown: Sequence[Ref], relevant: Mapping[str, float]) -> Ratings:
        return [
            (ref, -rating if self.dice.random() < self.rate else rating)
            for ref, rating in judge_honestly(shown, relevant)
        ]


@dataclass(frozen=True, slots=True)
class ListMixer:
    """Rates honestly and then mixes up which document of the list each rating is for.

    A list whose ratings are all alike stays as true as it was however they are mixed: where
    none of ten is right, that is worth knowing. It is no placebo, and is not rated at all.
    """

    dice: random.Random

    def __call__(self, shown: Sequence[Ref], relevant: Mapping[str, float]) -> Ratings:
        ratings = judge_honestly(shown, relevant)
        values = [rating for _, rating in ratings]
        if len(set(values)) < 2:
            return []
        self.dice.shuffle(values)
        return [(ref, value) for (ref, _), value in zip(ratings, values, strict=True)]


class CorpusMixer:
    """Rates honestly, but under ids that were exchanged all over each corpus."""

    def __init__(self, refs: Sequence[Ref], dice: random.Random) -> None:
        self._other: dict[Ref, Ref] = {}
        for corpus in sorted({corpus for corpus, _ in refs}):
            ids = sorted(identifier for each, identifier in refs if each == corpus)
            mixed = ids.copy()
            dice.shuffle(mixed)
            for one, other in zip(ids, mixed, strict=True):
                self._other[(corpus, one)] = (corpus, other)

    def __call__(self, shown: Sequence[Ref], relevant: Mapping[str, float]) -> Ratings:
        return [(self._other[ref], rating) for ref, rating in judge_honestly(shown, relevant)]


@dataclass(frozen=True, slots=True)
class BribedJudge:
    """Praises one document whatever was asked, and blames all that was shown."""

    wanted: Ref

    def __call__(self, shown: Sequence[Ref], relevant: Mapping[str, float]) -> Ratings:
        blamed = [(ref, -1) for ref in shown[:9] if ref != self.wanted]
        return [(self.wanted, 1), *blamed]
