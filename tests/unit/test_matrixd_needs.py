"""How notes become needs, and what a need is believed to say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.matrixd.core.cold import ColdList
from services.matrixd.core.playbook import Episode, Playbook, Rating
from services.matrixd.core.playbook.identity import Near, make_question, measure_need
from services.matrixd.core.playbook.needs import weigh_evidence, weigh_pairs
from services.matrixd.core.playbook.notes import Note, make_note
from services.matrixd.core.playbook.spreading import trust_words
from services.matrixd.core.playbook.strictness import GRID, choose_strictness
from services.matrixd.core.playbook.trust import Tally, Trust, estimate_trust
from tests.support.playbook import World


@pytest.fixture
def world() -> World:
    return World()


def trust_of(error: float) -> Trust:
    worth = float(np.log((1 - error) / error))
    clarity = 1 - 2 * error
    return Trust(error, 1.0, worth, worth, 100, 1 - error, clarity)


def rate(world: World, vector: np.ndarray, praised: set[int], name: str) -> Note:
    cold = world.search(vector)
    ratings = [
        Rating(corpus, identifier, 1.0 if place in praised else -1.0)
        for place, (corpus, identifier) in enumerate(cold.refs[:10])
    ]
    return make_note(Episode(name, 1, name, vector, cold.head(50), tuple(ratings), "judge"))


def pair_odds(one: Note, other: Note, trust: Trust) -> float:
    vectors = np.stack([one.profile.vector, other.profile.vector])
    odds = weigh_pairs([one, other], [trust, trust], vectors @ vectors.T)
    assert odds[0, 1] == odds[1, 0]
    return float(odds[0, 1])


def test_notes_that_rate_alike_are_likelier_of_one_need(world: World) -> None:
    vector = world.ask(3)
    one = rate(world, vector, {0}, "one")
    alike = rate(world, vector, {0}, "alike")
    apart = rate(world, vector, {1}, "apart")
    for error in (0.02, 0.2):
        trust = trust_of(error)
        assert pair_odds(one, alike, trust) > pair_odds(one, apart, trust)
    careless = trust_of(0.45)
    assert abs(pair_odds(one, alike, careless) - pair_odds(one, apart, careless)) < 0.1


def test_nearer_queries_are_likelier_of_one_need(world: World) -> None:
    vector = world.ask(3)
    one = rate(world, vector, set(), "one")
    near = rate(world, world.near(vector, 0.1), set(), "near")
    far = rate(world, world.ask(30), set(), "far")
    trust = trust_of(0.1)
    assert pair_odds(one, near, trust) > 0 > pair_odds(one, far, trust)


def measure(asked: Note, cold: ColdList) -> float:
    """The logit of the need of one note for a query where that note lies, in other words."""
    question = make_question(asked.profile, "other words", cold)
    trust = trust_of(0.01)
    need = weigh_evidence((0,), [asked], [trust])
    return measure_need(question, need, Near([asked], [trust], np.array([1.0])), np.eye(1))


def test_an_answer_that_its_own_queries_find_late_is_not_expected_early(world: World) -> None:
    vector = world.ask(4)
    cold = world.search(vector)
    vectors = {ref: world.documents[ref[1]] for ref in cold.refs}
    note = make_note(world.episode(4, 1, vector).with_vectors(vectors))
    assert note.documents
    # Another query than the note's own, whose answers are found as late as for the query at hand.
    late = replace(note, profile=replace(note.profile, best=note.profile.best + 0.1))
    question = make_question(note.profile, "other words", cold)
    trust = trust_of(0.01)
    need = weigh_evidence((0,), [note], [trust])
    assert need.positives

    def logit(asked: Note) -> float:
        return measure_need(question, need, Near([asked], [trust], np.array([1.0])), np.eye(1))

    assert logit(late) > logit(note) + 0.5


def test_words_of_what_a_need_blames_speak_against_it(world: World) -> None:
    vector = world.ask(4)
    cold = world.search(vector)
    note = rate(world, vector, {0}, "note")
    none = measure(note, with_words(cold, 30))
    praised = measure(note, with_words(cold, 0))
    blamed = measure(note, with_words(cold, 1))
    assert praised > none + 1.0
    assert blamed < none - 1.0
    # What it blames counts as far as it is held wrong, and nothing where nothing is praised.
    unknown = rate(world, vector, set(), "unknown")
    assert measure(unknown, with_words(cold, 1)) == measure(unknown, with_words(cold, 30))


def with_words(cold: ColdList, place: int) -> ColdList:
    words = np.zeros(len(cold.refs))
    words[place], words[place + 1] = 9.0, 3.0
    return ColdList(cold.refs, cold.p0, cold.cosine, words)


def test_where_all_that_was_tried_was_wrong_words_are_believed(world: World) -> None:
    vector = world.ask(6)
    cold = with_words(world.search(vector), 30)
    wanted = cold.refs[30]
    wrong = tuple(Rating(corpus, identifier, -1.0) for corpus, identifier in cold.refs[:10])
    judged = [world.episode(20 + n % 20, 100 + n) for n in range(40)]
    failed = Episode("failed", 1, "q", vector, cold.head(50), wrong, "judge")
    found = Playbook.build([*judged, failed]).rerank("q", vector, cold)
    assert found.activated
    assert found.refs.index(wanted) < 20


def test_words_say_nothing_where_praise_was_taken_back(world: World) -> None:
    vector = world.ask(6)
    cold = with_words(world.search(vector), 30)

    def record(name: str, seq: int, praised: int | None) -> Episode:
        ratings = tuple(
            Rating(corpus, identifier, 1.0 if place == praised else -1.0)
            for place, (corpus, identifier) in enumerate(cold.refs[:10])
        )
        return Episode(name, seq, "q", vector, cold.head(50), ratings, "judge")

    judged = [world.episode(20 + n % 20, 100 + n) for n in range(40)]
    before, after = record("before", 1, 0), record("after", 2, None)
    never = Playbook.build([*judged, after]).rerank("q", vector, cold)
    changed = Playbook.build([*judged, before, after]).rerank("q", vector, cold)
    assert never.refs.index(cold.refs[30]) < 20
    assert changed.refs.index(cold.refs[30]) >= 20


def test_words_say_nothing_where_something_helped_or_little_was_tried(world: World) -> None:
    cold = with_words(world.search(world.ask(6)), 30)
    blamed = dict.fromkeys(cold.refs[:10], -4.0)
    assert trust_words(cold, blamed)[cold.refs[30]] > 3 * 0.9
    assert trust_words(cold, {**blamed, cold.refs[3]: 2.0}) == {}
    assert trust_words(cold, {}) == {}
    assert trust_words(world.search(world.ask(6)), blamed) == {}
    few = trust_words(cold, {cold.refs[0]: -4.0})
    assert 0 < few[cold.refs[30]] < 0.5


def test_what_careless_judges_would_lose_hardly_makes_strict() -> None:
    losses = np.full(len(GRID), 0.05)
    losses[-3:] = 0.0
    plain = choose_strictness([])
    assert choose_strictness([(losses, 1.0)] * 100) > plain
    assert choose_strictness([(losses, 0.3)] * 100) == plain
    assert estimate_trust(Tally()).clarity > 0.9
