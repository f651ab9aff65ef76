"""Is it the same need? How probable each near need is the query's own.

A multinomial logistic over the needs near a query and the chance that it is none of them.
What tells them apart is not how near a query is to a note, but how near for that part of the
corpus: in a crowded one, unlike needs lie close together; and whose answer the query's words
are. Its weights were fitted on pairs of queries of three public collections; fitted on others
they do as well (reports/reality-tests/RECORD.md). How strict to be is found in the notes
themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.matrixd.core.cold import ColdList, Floats, Ref
from services.matrixd.core.playbook.needs import Need, group_notes, weigh_evidence
from services.matrixd.core.playbook.notes import Note, Profile
from services.matrixd.core.playbook.spreading import spread_evidence, trust_words
from services.matrixd.core.playbook.trust import Trust

# Weights of: mean cosine to the need's queries; that less the mean among themselves; cosine to
# the nearest of them less its own crowd; whether it knows a positive; cosine to its nearest
# positive less that to the nearest document of all; the same for the need's own queries; one;
# how much more of the query's words its best positive has than the best of what it blames.
WEIGHTS = np.array([5.8, 2.8, 8.0, -0.3, 15.0, -7.1, -2.9, 2.0])
# In place of the mean among themselves, where there is only one query.
TYPICAL = 0.65
# In place of the nearest positive, where there is none.
NO_ANSWER = -0.2
# The same words again, as near as that, and how sure that makes.
REPEATED = 0.98
CERTAIN = 6.0
# Off the domain that was recorded, only queries so near activate a need.
OFF_DOMAIN = 0.75
# Less probable needs are not used.
LEAST = 0.2


@dataclass(frozen=True, slots=True)
class Question:
    """A query that is held against the notes.

    Attributes:
        profile: where it lies.
        wording: its words.
        words: the BM25 of its candidates as shares of the best one's.
    """

    profile: Profile
    wording: str
    words: Mapping[Ref, float]


@dataclass(frozen=True, slots=True)
class Near:
    """Notes near one query, nearest first, with their sources' trust and cosines to it."""

    notes: Sequence[Note]
    trusts: Sequence[Trust]
    cosines: Floats


@dataclass(frozen=True, slots=True)
class Considered:
    """The needs near a query with their logits, before strictness."""

    needs: tuple[Need, ...]
    notes: Sequence[Note]
    logits: Floats
    repeated: np.ndarray[tuple[int], np.dtype[np.bool_]]

    def find_evidence(self, number: int, cold: ColdList) -> Mapping[Ref, float]:
        """What a need says of documents, rated or not, for the query with this cold list."""
        need = self.needs[number]
        votes = [self.notes[at].votes.values() for at in need.members]
        return {
            **(trust_words(cold, need.evidence) if _is_all_blame(votes) else {}),
            **spread_evidence(need.members, self.notes, need.evidence),
            **need.evidence,
        }

    def weigh(self, strictness: float) -> Floats:
        """Probability of each need to be the query's own; 0 where it is not worth using."""
        if not self.needs:
            return np.zeros(0)
        raised = np.where(self.repeated, np.maximum(self.logits, CERTAIN), self.logits)
        logits = np.where(self.repeated, raised, self.logits - strictness)
        odds = np.exp(np.minimum(logits, 30.0))
        probability = odds / (1.0 + odds.sum())
        return np.where(probability >= LEAST, probability, 0.0)


def make_question(profile: Profile, wording: str, cold: ColdList) -> Question:
    """The question of a query with this cold list."""
    best = float(cold.bm25.max()) if cold.refs else 0.0
    if best <= 0:
        return Question(profile, wording, {})
    return Question(
        profile, wording, dict(zip(cold.refs, (cold.bm25 / best).tolist(), strict=True))
    )


def consider(question: Question, near: Near, usual: float) -> Considered:
    """The needs near a query.

    Args:
        question: the query.
        near: the notes near it.
        usual: how near a document at least is to nearly all recorded queries.
    """
    if not near.notes:
        return Considered((), (), np.zeros(0), np.zeros(0, np.bool_))
    stack = np.stack([note.profile.vector for note in near.notes])
    between = stack @ stack.T
    groups = group_notes(near.notes, near.trusts, between)
    needs = tuple(weigh_evidence(group, near.notes, near.trusts) for group in groups)
    logits: list[float] = []
    for need in needs:
        logit = measure_need(question, need, near, between)
        nearest = float(near.cosines[list(need.members)].max())
        if question.profile.best < usual and nearest < OFF_DOMAIN:
            logit = -math.inf
        logits.append(logit)
    again = [
        note.wording == question.wording and float(cosine) >= REPEATED
        for note, cosine in zip(near.notes, near.cosines, strict=True)
    ]
    repeated = np.array([any(again[at] for at in need.members) for need in needs])
    return Considered(needs, near.notes, np.array(logits), repeated)


def measure_need(question: Question, need: Need, near: Near, between: Floats) -> float:
    """The logit of a need: how much speaks for it being the query's own."""
    members = list(need.members)
    cosines = near.cosines[members]
    nearest = int(cosines.argmax())
    mean = float(cosines.mean())
    if len(members) > 1:
        rows, columns = np.triu_indices(len(members), 1)
        among = float(between[np.ix_(members, members)][rows, columns].mean())
    else:
        among = TYPICAL
    crowd = near.notes[members[nearest]].profile.crowd
    answer, own = _compare_answers(question.profile, need, near)
    told = np.array(
        [
            mean,
            mean - among,
            float(cosines[nearest]) - crowd,
            float(bool(need.positives)),
            answer,
            own,
            1.0,
            _compare_words(question.words, need),
        ]
    )
    return float((told * WEIGHTS).sum())


def _compare_words(words: Mapping[Ref, float], need: Need) -> float:
    """How much more of the query's words the best positive has than the best of what is blamed.

    Needs that differ in one word ("complete", "incomplete") lie close together; what one blames
    is what the other wants, and the word that differs stands there.
    """
    blamed = [words[ref] for ref, odds in need.evidence.items() if odds < 0 and ref in words]
    if not blamed or not need.positives:
        return 0.0
    return max(words.get(ref, 0.0) for ref in need.positives) - max(blamed)


def _is_all_blame(votes: Iterable[Iterable[tuple[int, float]]]) -> bool:
    # Praise that was taken back counts too: then the answer changed, and may be any document
    # that was blamed beside the old one.
    return all(vote < 0 for each in votes for vote, _ in each)


def _compare_answers(profile: Profile, need: Need, near: Near) -> tuple[float, float]:
    """How much nearer the nearest document is than the need's nearest positive.

    To the query, and on average to the need's own queries: an answer that even those find late
    is not expected early.
    """
    vectors: dict[Ref, Floats] = {}
    for at in need.members:
        known = near.notes[at].documents
        for ref in need.positives:
            if ref not in vectors and ref in known:
                vectors[ref] = known[ref]
    if not vectors:
        return NO_ANSWER, 0.0
    answers = np.stack([vectors[ref] for ref in sorted(vectors)])
    asked = [near.notes[at].profile for at in need.members]
    answer = float((answers @ profile.vector).max()) - profile.best
    best = (np.stack([each.vector for each in asked]) @ answers.T).max(axis=1)
    own = float((best - np.array([each.best for each in asked])).mean())
    return answer, own
