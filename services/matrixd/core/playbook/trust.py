"""How far a source's ratings can be believed, from its own ratings alone.

A rating of a document that cold retrieval holds relevant with probability p is modelled as
    P(above 0) = m * (p' * (1 - f) + (1 - p') * f) + (1 - m) * b
with f the rate at which the source errs, m the share of its ratings that have to do with the
document at all, b its rate of positives, and p' = p with its logit shifted by s, because the
probabilities of a corpus may be off. A source that errs gives positives where p is near 0; one
that rates at random gives as many there as elsewhere. The posterior of the four figures is worked
out on a grid, so that the estimate is the same in whatever order the ratings came.

What a source says again of a document for the same query is no second witness: its last word
counts, once. Otherwise one that judges anew after the answers have changed would look the more
careless the more often it says what is true now.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from services.matrixd.core.cold import Floats, Ref

ERRORS = np.array([0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45])
SHARES = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
SHIFTS = np.array([-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5])
# Logits of p are counted in cells of this width, this many to each side of 0.
CELL = 0.5
CELLS = 14
# What is believed of a source before its ratings say otherwise, as logarithms of the prior's
# slope: an error rate of .2 is e^2 times less likely than none, and so on.
ERROR_PRIOR = 10.0
SHARE_PRIOR = 3.0
SHIFT_PRIOR = 0.5
# How probable it is, before ratings say otherwise, that a source errs no oftener than this in
# what it says of documents: a first recording is to help as far as it can.
HONEST, HONEST_ERROR = 0.9, 0.02
# Positives that one list of ratings is taken to hold before any was seen, and negatives.
BASE_POSITIVES = 1.0
BASE_NEGATIVES = 4.0
# Log odds are rounded to so many digits, so that one rating more seldom changes what all earlier
# ones are worth, and with it what was worked out from them.
DIGITS = 1


@dataclass(frozen=True, slots=True)
class Trust:
    """What is believed of one source.

    Attributes:
        error: rate at which it says the opposite of what is true.
        share: part of its ratings that have to do with the document.
        positive: log odds that a rating above 0 is worth.
        negative: log odds that a rating below 0 is worth, counted positive.
        ratings: how many ratings that rests on.
        accuracy: probability that its rating of a document is right.
        clarity: 1 for a source that never errs, 0 for one that tosses a coin.
    """

    error: float
    share: float
    positive: float
    negative: float
    ratings: int
    accuracy: float
    clarity: float


# A rating as the logit of p0 and whether it was above 0.
Vote = tuple[float, bool]


class Tally:
    """Ratings of one source, counted by how probable cold retrieval held them."""

    __slots__ = ("negatives", "positives")

    def __init__(self) -> None:
        self.positives = [0] * (2 * CELLS + 1)
        self.negatives = [0] * (2 * CELLS + 1)

    def copy(self) -> Tally:
        """One that counts on by itself."""
        other = Tally()
        other.positives, other.negatives = self.positives.copy(), self.negatives.copy()
        return other

    def count(self, vote: Vote, times: int = 1) -> None:
        """Counts a rating; -1 times takes back that it was counted."""
        logit, is_positive = vote
        at = min(max(round(logit / CELL), -CELLS), CELLS) + CELLS
        (self.positives if is_positive else self.negatives)[at] += times


class Statements:
    """The last word of each source on each document for each query, and its tally.

    Changed by `add` alone; whoever adds to one that others hold adds to a copy.
    """

    __slots__ = ("_said", "tallies")

    def __init__(self) -> None:
        self.tallies: dict[str, Tally] = {}
        self._said: dict[tuple[str, str], Mapping[Ref, Vote]] = {}

    def copy(self, source: str) -> Statements:
        """One to which notes of `source` can be added."""
        other = Statements()
        other.tallies = dict(self.tallies)
        if source in other.tallies:
            other.tallies[source] = other.tallies[source].copy()
        other._said = dict(self._said)
        return other

    def add(self, question: tuple[str, str], votes: Mapping[Ref, Vote]) -> None:
        """Counts what a source says of documents, in place of what it said of them before.

        Args:
            question: the source and what it asked.
            votes: by document.
        """
        tally = self.tallies.setdefault(question[0], Tally())
        before = self._said.get(question, {})
        for document, vote in votes.items():
            if document in before:
                tally.count(before[document], -1)
            tally.count(vote)
        self._said[question] = {**before, **votes}


def _weigh(likelihood: Floats, prior: Floats) -> Floats:
    """How probable each error, share and shift is; in all 1."""
    # Errors do not lie at equal distances, so each stands for as much as lies around it.
    before = np.exp(prior) * np.gradient(ERRORS)[:, None, None]
    honest = np.zeros(before.shape)
    honest[ERRORS <= HONEST_ERROR, -1] = before[ERRORS <= HONEST_ERROR, -1]
    before = HONEST * honest / honest.sum() + (1 - HONEST) * before / before.sum()
    after = before * np.exp(likelihood - likelihood.max())
    return after / after.sum()


def estimate_trust(tally: Tally) -> Trust:
    """What the ratings of a source tell of it.

    Its error and share are the most probable ones. What its ratings are worth is the mean over
    all that may be: where few ratings leave open whether it errs or rates at random, the most
    probable answer jumps from one to the other, and that mean lies between.
    """
    positives = np.array(tally.positives, np.float64)
    negatives = np.array(tally.negatives, np.float64)
    ratings = positives.sum() + negatives.sum()
    base = (positives.sum() + BASE_POSITIVES) / (ratings + BASE_POSITIVES + BASE_NEGATIVES)
    logits = CELL * np.arange(-CELLS, CELLS + 1)
    relevant = 1 / (1 + np.exp(-(logits[:, None] + SHIFTS)))[:, None, None, :]
    error = ERRORS[:, None, None]
    share = SHARES[None, :, None]
    above: Floats = share * (relevant * (1 - error) + (1 - relevant) * error) + (1 - share) * base
    above = np.clip(above, 1e-6, 1 - 1e-6)
    if negatives.sum() == 0 or positives.sum() == 0:
        # Only praise or only blame: where it stands in the list tells nothing of its accuracy.
        likelihood = np.zeros((len(ERRORS), len(SHARES), len(SHIFTS)))
    else:
        likelihood = np.tensordot(positives, np.log(above), 1) + np.tensordot(
            negatives, np.log(1 - above), 1
        )
    prior = -ERROR_PRIOR * error + SHARE_PRIOR * share - SHIFT_PRIOR * np.square(SHIFTS)
    posterior = likelihood + prior
    at_error, at_share, _ = np.unravel_index(int(np.argmax(posterior)), posterior.shape)
    weights = _weigh(likelihood, prior)

    def mean(values: Floats) -> float:
        return float((weights * values).sum())

    praised_right = mean(share * (1 - error) + (1 - share) * base)
    praised_wrong = mean(share * error + (1 - share) * base)
    accuracy = round(mean(share * (1 - error) + (1 - share) * 0.5), DIGITS + 1)
    return Trust(
        float(ERRORS[at_error]),
        float(SHARES[at_share]),
        round(math.log(praised_right / praised_wrong), DIGITS),
        round(math.log((1 - praised_wrong) / (1 - praised_right)), DIGITS),
        int(ratings),
        accuracy,
        max(0.0, 2 * accuracy - 1),
    )
