"""Which corpus answers a query like this: learnt from what was praised, and only if it helps.

Corpora that describe the same things (occupations, and the people who have them) cannot be told
apart by how well their documents fit. What was rated can: a multinomial logistic over the
corpora of a note's cold list, from the query's vector and its form, beside the best score that
each corpus has for it. Its weights are drawn to none, so that few notes say little.

It is tried on notes before it is believed: the notes of some needs are left out, and what the
others make of them must put what those praised higher, for certain. Otherwise nothing is added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.matrixd.core.cold import ColdList, Floats, Ref
from services.matrixd.core.playbook.form import describe_form
from services.matrixd.core.playbook.notes import Note, to_logit
from services.matrixd.core.playbook.trust import Trust

# Notes that are learnt from, a corpus and in all, and how few of a corpus, or of all, are none.
EACH, ALL, FEWEST = 120, 480, 12
# What was learnt is learnt anew when there are so many times as many notes: it takes up to
# seconds, and a note more changes little.
GROWTH = 1.15
# How much the form of a query varies beside its vector of length 1, and the constant.
FORM, ONE = 0.3, 0.5
# Log odds between corpora for each one between their best scores.
FIT = 0.6
# Strength of the prior that draws the weights to none.
PRIOR = 0.1
STEPS, STILL = 60, 5e-3
# Parts of what was learnt that may be used.
SCALES = (0.5, 0.75, 1.0)
# In how many parts the notes are tried, how often where the answers are is guessed anew (in the
# trial, for good), and how sure it must be, in standard errors, that it makes their ratings
# likelier and puts higher what they praised.
FOLDS = 4
ROUNDS, LAST_ROUNDS = 1, 3
SURE, HELPED = 2.5, 1.0
DEPTH = 10
# Recorded queries that tell how near those like it are, and the part of the recorded ones that
# is given up so that what is asked of no corpus at all is left as it is.
NEAREST, UNUSUAL = 5, 0.15
# The last digits of what is learnt, which may differ by the order of sums, are cut off.
DIGITS = 6


@dataclass(frozen=True, slots=True)
class Router:
    """What each corpus gains or loses for a query.

    Attributes:
        corpora: those that notes tell of.
        weights: a row a corpus.
        scale: part of what they say that is used; 0 where it does not help.
        asked: vectors of the queries that it was learnt from, a row each.
        usual: by corpus, mean of the signs of `_measure_signs` over the queries that it answers.
        spread: by corpus, their standard deviations.
        least: how familiar, in standard deviations, a query must be.
    """

    corpora: tuple[str, ...]
    weights: Floats
    scale: float
    asked: Floats
    usual: Floats
    spread: Floats
    least: float

    def shift(self, query: str, vector: Floats, cold: ColdList) -> dict[str, float]:
        """Log odds, 0 or less, for each corpus of a cold list.

        Empty where there is no news, and for a query that is unlike those that were recorded.
        """
        present = list(dict.fromkeys(corpus for corpus, _ in cold.refs))
        if not self.scale or len(present) < 2 or len(vector) != self.asked.shape[1]:
            return {}
        told = self.weights @ _describe(query, vector)
        known = dict(zip(self.corpora, told.tolist(), strict=True))
        first = min(present, key=lambda corpus: (-known.get(corpus, 0.0), corpus))
        if first not in known:
            return {}
        home = self.corpora.index(first)
        signs = _measure_signs(first, cold, self.asked @ vector)
        if float(((signs - self.usual[home]) / self.spread[home]).mean()) < self.least:
            return {}
        shifts = {
            corpus: round(self.scale / FIT * (known.get(corpus, 0.0) - known[first]), DIGITS)
            for corpus in present
        }
        return shifts if any(shifts.values()) else {}


_NONE = np.zeros((0, 0))
NOTHING = Router((), _NONE, 0.0, _NONE, _NONE, _NONE, 0.0)


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one note teaches of where its answer is.

    Attributes:
        note: the note.
        hints: for each corpus of its list, how much likelier its ratings are if the answer is
            there than if it is nowhere in the list, as log odds.
        believed: what it praised, of what can be believed.
    """

    note: Note
    hints: Mapping[str, float]
    believed: frozenset[Ref]

    @property
    def corpus(self) -> str:
        """The corpus that it most speaks for."""
        return min(self.hints, key=lambda each: (-self.hints[each], each))


def make_lesson(note: Note, trust: Trust) -> Lesson | None:
    """What a note teaches; None when nothing of its list was rated."""
    if not note.votes:
        return None
    worth = (trust.positive, trust.negative)
    hints = note.hints.get(worth)
    if hints is None:
        hints = note.hints[worth] = _weigh_corpora(note, trust)
    return Lesson(note, hints, note.believe(trust))


def _weigh_corpora(note: Note, trust: Trust) -> dict[str, float]:
    best: dict[str, float] = {}
    for (corpus, _), p0 in zip(note.episode.cold.refs, note.episode.cold.p0.tolist(), strict=True):
        if corpus not in best:
            best[corpus] = to_logit(p0)
    hints = dict.fromkeys(best, 0.0)
    for ref, (vote, logit) in note.votes.items():
        worth = trust.positive if vote > 0 else -trust.negative
        # Where the answer is in its corpus, the best document there is it as likely as not.
        right = 1 / (1 + math.exp(best[ref[0]] - logit))
        hints[ref[0]] += math.log(right * math.exp(worth) + 1 - right)
    return hints


def choose_milestone(notes: int) -> int:
    """How many of so many notes, from the first on, are learnt from."""
    if notes < FEWEST:
        return 0
    at = float(FEWEST)
    while at * GROWTH <= notes:
        at *= GROWTH
    return int(at)


def choose_lessons(lessons: Sequence[Lesson]) -> list[Lesson]:
    """Those that are learnt from: as many of each corpus, whichever came first."""
    groups: dict[str, list[tuple[str, Lesson]]] = {}
    for lesson in lessons:
        groups.setdefault(lesson.corpus, []).append((lesson.note.digest, lesson))
    if len(lessons) < FEWEST:
        return []
    most = min(EACH, ALL // max(1, len(groups)))
    chosen: list[tuple[str, Lesson]] = []
    for corpus in sorted(groups):
        chosen.extend(sorted(groups[corpus], key=lambda pair: pair[0])[:most])
    return [lesson for _, lesson in sorted(chosen, key=lambda pair: pair[0])]


def learn_routing(lessons: Sequence[Lesson]) -> Router:
    """The router that these lessons teach; one that does nothing where it would not help."""
    if len(lessons) < FEWEST:
        return NOTHING
    table = _Table(lessons)
    if len(table.corpora) < 2:
        return NOTHING
    said = np.zeros_like(table.fits)
    for fold in range(FOLDS):
        left = table.folds == fold
        if left.any() and not left.all():
            said[left] = table.said[left] @ table.teach(~left, ROUNDS)[0].T
    likelier = _bound(table.explain(said), SURE)
    gains = [_bound(table.try_out(said, scale), HELPED) for scale in SCALES]
    best = int(np.argmax(gains))
    if likelier <= 0 or gains[best] <= 0:
        return NOTHING
    weights, beliefs = table.teach(np.ones(len(lessons), np.bool_), LAST_ROUNDS)
    return Router(
        table.corpora,
        np.round(weights, DIGITS),
        SCALES[best],
        table.vectors,
        *table.find_familiar(beliefs.argmax(axis=1)),
    )


def shift_corpora(cold: ColdList, shifts: Mapping[str, float]) -> ColdList:
    """The list with each corpus' log odds changed, in the new order; ties as cold has them."""
    clipped = np.clip(cold.p0, 1e-9, 1 - 1e-9)
    change = np.array([shifts.get(corpus, 0.0) for corpus, _ in cold.refs])
    p0 = 1 / (1 + (1 - clipped) / clipped * np.exp(-change))
    order: list[int] = np.argsort(-p0, kind="stable").tolist()
    return ColdList(
        tuple(cold.refs[at] for at in order), p0[order], cold.cosine[order], cold.bm25[order]
    )


class _Table:
    """Lessons as arrays: a row each."""

    def __init__(self, lessons: Sequence[Lesson]) -> None:
        names = {c for lesson in lessons for c, _ in lesson.note.episode.cold.refs}
        depth = max(len(lesson.note.episode.cold.refs) for lesson in lessons)
        self.corpora = tuple(sorted(names))
        number = {corpus: at for at, corpus in enumerate(self.corpora)}
        count, width = len(lessons), len(self.corpora)
        self._lists = [lesson.note.episode.cold for lesson in lessons]
        self.folds = _fold_needs(lessons)
        self.vectors = np.stack([lesson.note.profile.vector for lesson in lessons])
        self.said = np.stack(
            [_describe(each.note.episode.query, each.note.profile.vector) for each in lessons]
        )
        # No rating speaks for or against a corpus of which no document was rated.
        self.hints = np.zeros((count, width))
        self.fits = np.zeros((count, width))
        self.logits = np.full((count, depth), -np.inf)
        self.places = np.zeros((count, depth), np.intp)
        self.gains = np.zeros((count, depth))
        self.ideals = np.zeros(count)
        for row, lesson in enumerate(lessons):
            cold = lesson.note.episode.cold
            for corpus, hint in lesson.hints.items():
                if corpus in number:
                    self.hints[row, number[corpus]] = hint
            # Of a corpus that a list does not hold, all that is known is that it fits worse.
            self.fits[row] = FIT * to_logit(float(cold.p0[-1]))
            for at, (ref, p0) in enumerate(zip(cold.refs, cold.p0.tolist(), strict=True)):
                logit = to_logit(p0)
                corpus = number[ref[0]]
                self.fits[row, corpus] = max(self.fits[row, corpus], FIT * logit)
                self.logits[row, at] = logit
                self.places[row, at] = corpus
                self.gains[row, at] = float(ref in lesson.believed)
            found = min(len(lesson.believed), DEPTH)
            ideal = sum(1 / math.log2(rank + 1) for rank in range(1, found + 1))
            self.ideals[row] = ideal or 1.0

    def guess(self, said: Floats) -> Floats:
        """How likely each row's answer is in each corpus, by its fit, its ratings and that."""
        return _share(self.fits + self.hints + said)

    def teach(self, rows: NDArray[np.bool_], rounds: int) -> tuple[Floats, Floats]:
        """Weights from these rows alone, and where those make each row's answer likely to be.

        That is guessed anew a few times over, each time from what other needs' rows taught:
        a row that is asked by its own echo would be believed more and more.
        """
        said = np.zeros_like(self.fits)
        beliefs = self.guess(said)
        for _ in range(rounds):
            for fold in range(FOLDS):
                left = rows & (self.folds == fold)
                if left.any():
                    said[left] = self.said[left] @ self.fit(beliefs, rows & ~left).T
            beliefs = self.guess(said)
        return self.fit(beliefs, rows), beliefs

    def fit(self, beliefs: Floats, rows: NDArray[np.bool_]) -> Floats:
        """Weights by bounded steps (Böhning 1992), sped up as Nesterov (1983) has it."""
        said, fits, wanted = self.said[rows], self.fits[rows], beliefs[rows]
        inverse = np.linalg.inv(0.5 * said.T @ said + PRIOR * np.eye(said.shape[1]))
        weights = ahead = np.zeros((len(self.corpora), said.shape[1]))
        for number in range(STEPS):
            wrong = _share(said @ ahead.T + fits) - wanted
            moved = ahead - (wrong.T @ said + PRIOR * ahead) @ inverse
            step = moved - weights
            weights, ahead = moved, moved + number / (number + 3) * step
            if float(np.abs(step).max()) < STILL:
                break
        return weights

    def explain(self, said: Floats) -> Floats:
        """How much likelier what was said makes each row's ratings, as log odds."""
        return _expect(said + self.fits, self.hints) - _expect(self.fits, self.hints)

    def try_out(self, said: Floats, scale: float) -> Floats:
        """Change of nDCG@10 of what each row praised."""
        moved = np.take_along_axis(scale / FIT * said, self.places, axis=1)
        order = np.argsort(-(self.logits + moved), axis=1, kind="stable")[:, :DEPTH]
        discounts = 1 / np.log2(np.arange(2, DEPTH + 2))
        after = (np.take_along_axis(self.gains, order, axis=1) * discounts).sum(axis=1)
        before = (self.gains[:, :DEPTH] * discounts).sum(axis=1)
        return (after - before) / self.ideals

    def find_familiar(self, homes: NDArray[np.intp]) -> tuple[Floats, Floats, float]:
        """What is usual of the queries that each corpus answers, and how unusual one may be.

        Args:
            homes: the corpus of each row.

        Returns:
            Means and standard deviations of the signs, a row a corpus (of all rows where it
            has few), and the least familiarity.
        """
        cosines = self.vectors @ self.vectors.T
        # A query is always near its own need; how near those of others are is what counts.
        cosines[self.folds[:, None] == self.folds] = -1.0
        at: list[int] = homes.tolist()
        rows = zip(at, self._lists, cosines, strict=True)
        signs = np.stack(
            [_measure_signs(self.corpora[home], cold, near) for home, cold, near in rows]
        )
        usual, spread = np.zeros((2, len(self.corpora), signs.shape[1]))
        for corpus in range(len(self.corpora)):
            own = signs[homes == corpus]
            told = own if len(own) >= FEWEST else signs
            usual[corpus], spread[corpus] = told.mean(axis=0), told.std(axis=0) + 1e-6
        usual, spread = np.round(usual, DIGITS), np.round(spread, DIGITS)
        familiar = ((signs - usual[homes]) / spread[homes]).mean(axis=1)
        return usual, spread, round(float(np.quantile(familiar, UNUSUAL)), DIGITS)


def _measure_signs(corpus: str, cold: ColdList, near: Floats) -> Floats:
    """Signs that a query is of the kind that a corpus answers.

    How near the recorded queries nearest to it are, and the best cosine and the best log odds
    that the corpus has for it.
    """
    own = [at for at, (name, _) in enumerate(cold.refs) if name == corpus] or [-1]
    count = min(NEAREST, len(near))
    nearest = np.partition(near, len(near) - count)[-count:]
    return np.array(
        [float(nearest.mean()), float(cold.cosine[own].max()), to_logit(float(cold.p0[own[0]]))]
    )


def _fold_needs(lessons: Sequence[Lesson]) -> NDArray[np.intp]:
    """The part that each lesson is tried in: those with an answer in common fall into one."""
    label = list(range(len(lessons)))

    def find(at: int) -> int:
        while label[at] != at:
            label[at] = label[label[at]]
            at = label[at]
        return at

    holders: dict[Ref, int] = {}
    for at, lesson in enumerate(lessons):
        for ref in lesson.believed:
            one, other = find(holders.setdefault(ref, at)), find(at)
            label[max(one, other)] = min(one, other)
    names = [lessons[find(at)].note.digest for at in range(len(lessons))]
    return np.array([int(name[:8], 16) % FOLDS for name in names])


def _bound(values: Floats, errors: float) -> float:
    return float(values.mean()) - errors * float(values.std()) / math.sqrt(len(values))


def _share(odds: Floats) -> Floats:
    raised = np.exp(odds - odds.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def _expect(odds: Floats, hints: Floats) -> Floats:
    return np.log((_share(odds) * np.exp(hints)).sum(axis=1))


def _describe(query: str, vector: Floats) -> Floats:
    return np.concatenate([vector, FORM * describe_form(query), [ONE]])
