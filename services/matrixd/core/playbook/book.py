"""The playbook: notes derived from episodes, and what they make of a cold list."""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Self

import numpy as np

from services.matrixd.core.cold import ColdList, Floats, Ref
from services.matrixd.core.playbook.episodes import Episode, Vector
from services.matrixd.core.playbook.fusion import mix_scores, order_scores
from services.matrixd.core.playbook.identity import Near, consider, make_question
from services.matrixd.core.playbook.nearest import LEAST_COSINE, Index
from services.matrixd.core.playbook.needs import ALIKE, COMMON, join_groups
from services.matrixd.core.playbook.notes import (
    Note,
    make_note,
    make_profile,
    name_question,
    read_wording,
)
from services.matrixd.core.playbook.routing import (
    Router,
    choose_lessons,
    choose_milestone,
    learn_routing,
    make_lesson,
    shift_corpora,
)
from services.matrixd.core.playbook.strictness import (
    SAMPLE,
    choose_strictness,
    measure_losses,
)
from services.matrixd.core.playbook.telling import explain_changes, tell_uses
from services.matrixd.core.playbook.trust import Statements, Trust, estimate_trust
from services.matrixd.core.playbook.views import (
    NoteView,
    Reranked,
    SourceView,
)

# Part of the recorded queries that lie farther from every document than `usual`.
UNUSUAL = 0.05
# Notes of the same query as another, when its need is left out.
TWIN = 0.9
# A recorded query is never off the domain of the others.
EVERYTHING_IS_USUAL = -1.0
# Rounding of two ways to the same cosine.
REACH_MARGIN = 1e-6


class Playbook:
    """What a set of episodes teaches. Never changes; a change gives another playbook.

    What it does depends on the set of episodes alone: not on the order in which they came,
    nor on any that were retired. `seq` only tells which of two that conflict is newer.
    """

    def __init__(
        self, state: _State, memo: Mapping[str, _Masked], routed: _Routed | None = None
    ) -> None:
        self._state = state
        self._routed = routed
        self._notes = state.notes
        self._index = state.index
        self._trusts = state.trusts
        self._memo = dict(memo)
        self._strictness: float | None = None
        self._settling = Lock()
        best = state.best
        self._usual = best[int(UNUSUAL * len(best))] if best else -1.0

    @classmethod
    def build(cls, episodes: Iterable[Episode]) -> Self:
        """The playbook of these episodes; of several with one id the first by (seq, id)."""
        return cls(_State.of_notes([make_note(episode) for episode in episodes]), {})

    @property
    def size(self) -> int:
        """How many notes there are."""
        return len(self._notes)

    @property
    def strictness(self) -> float:
        """How much must speak for a need before it is used; worked out at the first call."""
        if self._strictness is None:
            self._strictness = choose_strictness(self._measure_sample())
        return self._strictness

    @property
    def router(self) -> Router:
        """Which corpus answers what; worked out at the first call."""
        return self._route().router

    def settle(self) -> None:
        """Works out what searches need of all notes together; once, whoever asks meanwhile."""
        with self._settling:
            _ = self.strictness, self.router

    @property
    def must_learn(self) -> bool:
        """Whether `router` has to be learnt anew, which takes up to seconds."""
        count = choose_milestone(len(self._notes))
        if not count:
            return False
        routed = self._routed
        if routed is None or len(routed.ids) != count:
            return True
        return routed.ids[-1] != self._notes[count - 1].episode.id

    def record(self, episode: Episode) -> Playbook:
        """With one more episode; itself when it is there already."""
        if episode.id in self._state.ids:
            return self
        note = make_note(episode)
        last = self._notes[-1].episode if self._notes else None
        if last is not None and (episode.seq, episode.id) < (last.seq, last.id):
            return Playbook(_State.of_notes([*self._notes, note]), {}, self._routed)
        grown = self._state.add(note)
        if _weights(grown.trusts) != _weights(self._trusts):
            return Playbook(grown, {}, self._routed)
        vector = note.profile.vector
        # Searches may add to the memo meanwhile.
        kept = {key: each for key, each in list(self._memo.items()) if each.is_beyond(vector)}
        return Playbook(grown, kept, self._routed)

    def retire(self, ids: Collection[str]) -> Playbook:
        """Without these episodes, as if they had never been."""
        gone = frozenset(ids) & self._state.ids
        if not gone:
            return self
        kept = [note for note in self._notes if note.episode.id not in gone]
        return Playbook(_State.of_notes(kept), {}, self._routed)

    def is_near(self, vector: Vector) -> bool:
        """Whether `rerank` could say anything at all: there are notes of that model."""
        return self._index.fits(vector)

    def rerank(
        self,
        query: str,
        vector: Vector,
        cold: ColdList,
        vectors: Mapping[Ref, Vector] | None = None,
        *,
        explain: bool = False,
    ) -> Reranked:
        """The cold list as the notes would have it.

        Args:
            query: the text; the same text is the same query.
            vector: its unit vector.
            cold: all its candidates.
            vectors: of the first candidates, if at hand.
            explain: whether to tell each note's contribution to each document.
        """
        if not cold.refs or not self.is_near(vector):
            return Reranked(cold.refs, cold.p0, False)
        places_near, cosines = self._index.nearest(np.asarray(vector, np.float32))
        profile = make_profile(np.asarray(vector, np.float64), cold)
        routing = self.router.shift(query, profile.vector, cold)
        routed = shift_corpora(cold, routing) if routing else cold
        near = self._gather(places_near, cosines)
        question = make_question(profile, read_wording(query), cold)
        considered = consider(question, near, self._usual)
        probabilities = considered.weigh(self.strictness)
        places = {ref: at for at, ref in enumerate(routed.refs)}
        clarity = _mean_clarity(near)
        evidence = {
            number: considered.find_evidence(number, routed)
            for number in np.flatnonzero(probabilities).tolist()
        }
        changes = mix_scores(routed.p0, places, evidence, probabilities, clarity)
        if not changes:
            return Reranked(routed.refs, routed.p0, bool(routing), routing=routing)
        order, scores = order_scores(routed.p0, changes)
        return Reranked(
            tuple(routed.refs[at] for at in order),
            scores,
            True,
            tell_uses(near, considered, probabilities, [number for number, _ in changes]),
            explain_changes(near, considered, changes, routed.refs) if explain else {},
            routing,
        )

    def notes(self, names: Collection[str] | None = None) -> list[NoteView]:
        """The notes of these episodes, or all, by (seq, id)."""
        found: list[NoteView] = []
        for note in self._notes:
            episode = note.episode
            if names is not None and episode.id not in names:
                continue
            votes = [vote for vote, _ in note.votes.values()]
            found.append(
                NoteView(
                    episode.id,
                    episode.seq,
                    episode.query,
                    episode.source,
                    episode.run_id,
                    votes.count(1),
                    votes.count(-1),
                    len(episode.ratings) - len(votes),
                    self._trusts[episode.source].accuracy,
                )
            )
        return found

    def sources(self) -> dict[str, SourceView]:
        """What is believed of each source."""
        episodes: dict[str, int] = {}
        for note in self._notes:
            episodes[note.episode.source] = episodes.get(note.episode.source, 0) + 1
        return {
            source: SourceView(
                source,
                episodes[source],
                trust.ratings,
                trust.accuracy,
                trust.error,
                trust.share,
                trust.positive,
                trust.negative,
            )
            for source, trust in sorted(self._trusts.items())
        }

    def _gather(self, places: Sequence[int], cosines: Floats) -> Near:
        notes = [self._notes[at] for at in places]
        return Near(notes, [self._trusts[note.episode.source] for note in notes], cosines)

    def _route(self) -> _Routed:
        routed = self._routed
        if routed is None or routed.state is not self._state:
            taught = self._notes[: choose_milestone(len(self._notes))]
            ids = tuple(note.episode.id for note in taught)
            if routed is not None and routed.ids == ids:
                self._routed = replace(routed, state=self._state)
            else:
                self._routed = _Routed(self._state, ids, _learn(taught))
        assert self._routed is not None
        return self._routed

    def _measure_sample(self) -> list[tuple[Floats, float]]:
        telling = sorted(
            (note.digest, at)
            for at, note in enumerate(self._notes)
            if note.believe(self._trusts[note.episode.source])
        )[:SAMPLE]
        believers: dict[Ref, set[int]] = {}
        if telling:
            for at, note in enumerate(self._notes):
                for ref in note.believe(self._trusts[note.episode.source]):
                    believers.setdefault(ref, set()).add(at)
        losses: list[tuple[Floats, float]] = []
        for _, at in telling:
            note = self._notes[at]
            masked = self._memo.get(note.episode.id)
            if masked is None:
                masked = self._memo[note.episode.id] = self._mask(note, believers)
            losses.append((masked.losses, self._trusts[note.episode.source].clarity))
        return losses

    def _is_same(self, at: int, common: int, believed: int) -> bool:
        other = self._notes[at]
        known = len(other.believe(self._trusts[other.episode.source]))
        return common >= COMMON * min(believed, known)

    def _mask(self, note: Note, believers: Mapping[Ref, set[int]]) -> _Masked:
        believed = note.believe(self._trusts[note.episode.source])
        times: dict[int, int] = {}
        for ref in believed:
            for at in believers[ref]:
                times[at] = times.get(at, 0) + 1
        own = {at for at, common in times.items() if self._is_same(at, common, len(believed))}
        own |= self._find_kin(note, own)
        places, cosines = self._index.nearest(note.episode.vector, without=own, below=TWIN)
        near = self._gather(places, cosines)
        reach = float(cosines[-1]) if len(places) == self._index.most else LEAST_COSINE
        question = make_question(note.profile, note.wording, note.episode.cold)
        considered = consider(question, near, EVERYTHING_IS_USUAL)
        losses = measure_losses(note, believed, considered, _mean_clarity(near))
        return _Masked(note.profile.vector, reach, losses)

    def _find_kin(self, note: Note, own: set[int]) -> set[int]:
        # Notes of the same need whose lists did not hold its answer: no other need's either.
        places, cosines = self._index.nearest(note.episode.vector)
        alike = [at for at, cosine in zip(places, cosines, strict=True) if cosine >= ALIKE]
        if own.issuperset(alike):
            return set()
        near = self._gather(places, cosines)
        mine = {number for number, at in enumerate(places) if at in own}
        return {places[number] for number in join_groups(near.notes, near.trusts, mine)}


class _Masked:
    """What a note's query loses to other needs, and how near another must be to matter."""

    __slots__ = ("_reach", "_vector", "losses")

    def __init__(self, vector: Floats, reach: float, losses: Floats) -> None:
        self._vector = vector
        self._reach = reach
        self.losses = losses

    def is_beyond(self, vector: Floats) -> bool:
        """Whether a new note with this vector is too far away to change anything."""
        return float(self._vector @ vector) < self._reach - REACH_MARGIN


@dataclass(frozen=True, slots=True)
class _Routed:
    """A router, the episodes that it was learnt from, and of which state they are the first."""

    state: _State
    ids: tuple[str, ...]
    router: Router


@dataclass(frozen=True, slots=True)
class _State:
    """The notes by (seq, id), and what is counted over all of them."""

    notes: tuple[Note, ...]
    ids: frozenset[str]
    index: Index
    statements: Statements
    trusts: Mapping[str, Trust]
    best: Sequence[float]

    @classmethod
    def of_notes(cls, notes: Iterable[Note]) -> Self:
        ordered: dict[str, Note] = {}
        for note in sorted(notes, key=lambda each: (each.episode.seq, each.episode.id)):
            ordered.setdefault(note.episode.id, note)
        found = tuple(ordered.values())
        statements = _hear(found)
        return cls(
            found,
            frozenset(ordered),
            Index.build([note.episode.vector for note in found]),
            statements,
            {source: estimate_trust(tally) for source, tally in statements.tallies.items()},
            sorted(note.profile.best for note in found),
        )

    def add(self, note: Note) -> _State:
        source = note.episode.source
        statements = self.statements.copy(source)
        _count(statements, note)
        best = list(self.best)
        insort(best, note.profile.best)
        return _State(
            (*self.notes, note),
            self.ids | {note.episode.id},
            self.index.append(note.episode.vector),
            statements,
            {**self.trusts, source: estimate_trust(statements.tallies[source])},
            best,
        )


def _hear(notes: Iterable[Note]) -> Statements:
    # By (seq, id), so that the last word is the newest.
    statements = Statements()
    for note in notes:
        _count(statements, note)
    return statements


def _count(statements: Statements, note: Note) -> None:
    votes = {ref: (logit, vote > 0) for ref, (vote, logit) in note.votes.items()}
    statements.add(name_question(note.episode), votes)


def _weights(trusts: Mapping[str, Trust]) -> dict[str, tuple[float, ...]]:
    # What of trust reaches needs and evidence; how many ratings it rests on does not.
    return {
        source: (trust.positive, trust.negative, trust.error, trust.clarity)
        for source, trust in trusts.items()
    }


def _learn(notes: Sequence[Note]) -> Router:
    """The router that these notes teach, their sources believed as they themselves suggest."""
    tallies = _hear(notes).tallies
    trusts = {source: estimate_trust(tally) for source, tally in tallies.items()}
    lessons = [make_lesson(note, trusts[note.episode.source]) for note in notes]
    return learn_routing(choose_lessons([lesson for lesson in lessons if lesson is not None]))


def _mean_clarity(near: Near) -> float:
    return sum(trust.clarity for trust in near.trusts) / max(1, len(near.trusts))
