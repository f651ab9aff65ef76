"""Two corpora that describe the same things: the playbook learns which one a query means."""

from __future__ import annotations

import random

import numpy as np
import pytest

from services.matrixd.core.cold import Calibration, Candidates, ColdList, rank_cold
from services.matrixd.core.playbook import Episode, Playbook, Rating, Reranked
from services.matrixd.core.playbook.form import describe_form
from services.matrixd.core.playbook.routing import FEWEST, GROWTH, NOTHING, choose_milestone

DIM, NEEDS = 40, 60
CORPORA = ("people", "titles")


class Twins:
    """Each need has a document in both corpora, alike; how it is asked tells which is meant."""

    def __init__(self) -> None:
        self.dice = np.random.default_rng(3)
        self.needs = [self.unit(self.dice.normal(size=DIM)) for _ in range(NEEDS)]
        self.manners = [self.unit(self.dice.normal(size=DIM)) for _ in CORPORA]
        self.documents = {
            corpus: np.stack([self.unit(need + self.noise(0.5)) for need in self.needs])
            for corpus in CORPORA
        }

    def unit(self, vector: np.ndarray) -> np.ndarray:
        return vector / np.linalg.norm(vector)

    def noise(self, size: float) -> np.ndarray:
        return size * self.unit(self.dice.normal(size=DIM))

    def ask(self, need: int, meant: int) -> tuple[str, np.ndarray]:
        text = ("someone for need {}, please" if meant == 0 else "need {}").format(need)
        return text, self.unit(self.needs[need] + 0.5 * self.manners[meant] + self.noise(0.4))

    def search(self, vector: np.ndarray, corpora: tuple[str, ...] = CORPORA) -> ColdList:
        lists = [
            Candidates(
                corpus,
                tuple(f"d{n:02d}" for n in range(NEEDS)),
                self.documents[corpus] @ vector,
                np.zeros(NEEDS),
            )
            for corpus in corpora
        ]
        return rank_cold([(found, Calibration.default()) for found in lists])

    def episode(self, number: int, need: int, meant: int, flips: float = 0.0) -> Episode:
        text, vector = self.ask(need, meant)
        cold = self.search(vector)
        dice = random.Random(number)
        right = (CORPORA[meant], f"d{need:02d}")
        ratings = tuple(
            Rating(*ref, (1 if ref == right else -1) * (-1 if dice.random() < flips else 1))
            for ref in cold.refs[:10]
        )
        made = Episode(
            f"e{number:03d}",
            number,
            text,
            vector.astype(np.float32),
            cold.keep(50, 10),
            ratings,
            "judge",
        )
        known = {
            (corpus, f"d{n:02d}"): row.astype(np.float32)
            for corpus, rows in self.documents.items()
            for n, row in enumerate(rows)
        }
        return made.with_vectors(known)

    def count_first(self, playbook: Playbook, needs: range) -> int:
        """How many of these needs, asked both ways, find their own document first."""
        return sum(
            self.rerank(playbook, *self.ask(need, meant)).refs[0]
            == (CORPORA[meant], f"d{need:02d}")
            for need in needs
            for meant in (0, 1)
        )

    def rerank(self, playbook: Playbook, text: str, vector: np.ndarray) -> Reranked:
        return playbook.rerank(text, vector.astype(np.float32), self.search(vector))


@pytest.fixture
def twins() -> Twins:
    return Twins()


@pytest.fixture
def episodes(twins: Twins) -> list[Episode]:
    return [twins.episode(n, n % 40, n % 2) for n in range(40)]


def test_needs_never_recorded_find_the_corpus_that_is_meant(
    twins: Twins, episodes: list[Episode]
) -> None:
    playbook = Playbook.build(episodes)
    assert playbook.router.scale > 0
    before = twins.count_first(Playbook.build([]), range(40, 60))
    after = twins.count_first(playbook, range(40, 60))
    assert before <= 28
    assert after >= before + 6


def test_what_a_corpus_gains_or_loses_is_told_and_never_helps_the_wrong_one(
    twins: Twins, episodes: list[Episode]
) -> None:
    found = twins.rerank(Playbook.build(episodes), *twins.ask(50, 0))
    assert found.activated
    assert found.routing["people"] == 0.0
    assert found.routing["titles"] < -0.5


def test_a_search_of_one_corpus_is_left_alone(twins: Twins, episodes: list[Episode]) -> None:
    text, vector = twins.ask(50, 0)
    cold = twins.search(vector, ("titles",))
    found = Playbook.build(episodes).rerank(text, vector.astype(np.float32), cold)
    assert found.routing == {}
    assert found.refs == cold.refs


def test_few_notes_and_flipped_ones_say_nothing(twins: Twins, episodes: list[Episode]) -> None:
    assert Playbook.build(episodes[:10]).router is NOTHING
    tossed = [twins.episode(n, n % 40, n % 2, flips=0.5) for n in range(40)]
    assert Playbook.build(tossed).router is NOTHING


def test_strange_queries_are_left_alone_and_familiar_ones_are_not(
    twins: Twins, episodes: list[Episode]
) -> None:
    router = Playbook.build(episodes).router

    def is_routed(text: str, vector: np.ndarray) -> bool:
        return bool(router.shift(text, vector, twins.search(vector)))

    strangers = [twins.unit(twins.dice.normal(size=DIM)) for _ in range(60)]
    assert not any(is_routed("someone, please", vector) for vector in strangers)
    new = [twins.ask(need, meant) for need in range(40, 60) for meant in (0, 1)]
    assert sum(is_routed(*query) for query in new) >= 0.6 * len(new)


def test_neither_order_nor_what_was_retired_leaves_a_trace(
    twins: Twins, episodes: list[Episode]
) -> None:
    text, vector = twins.ask(50, 0)
    whole = Playbook.build(episodes)
    poison = [twins.episode(100 + n, n, (n + 1) % 2, flips=0.9) for n in range(12)]
    grown = whole
    for episode in poison:
        grown = grown.record(episode)
        grown.settle()
    healed = grown.retire([episode.id for episode in poison])
    turned = Playbook.build(list(reversed(episodes)))
    wanted = twins.rerank(whole, text, vector)
    for other in (healed, turned):
        found = twins.rerank(other, text, vector)
        assert found.refs == wanted.refs
        assert found.scores.tobytes() == wanted.scores.tobytes()
    empty = whole.retire([episode.id for episode in episodes])
    cold = twins.search(vector)
    left = empty.rerank(text, vector.astype(np.float32), cold)
    assert left.refs is cold.refs
    assert left.scores is cold.p0


def test_a_note_that_is_not_learnt_from_changes_nothing_that_was_learnt(
    twins: Twins, episodes: list[Episode]
) -> None:
    whole = Playbook.build(episodes)
    whole.settle()
    silent = twins.episode(200, 3, 0)
    silent = Episode(
        silent.id, silent.seq, silent.query, silent.vector, silent.cold, (), silent.source
    )
    assert whole.record(silent).router is whole.router


def test_milestones_are_few_and_close_to_what_there_is() -> None:
    assert [choose_milestone(n) for n in (0, FEWEST - 1, FEWEST, FEWEST + 1)] == [0, 0, 12, 12]
    found = [choose_milestone(n) for n in range(FEWEST, 10_001)]
    assert all(n / GROWTH - 1 < at <= n for n, at in enumerate(found, FEWEST))
    assert found == sorted(found)
    assert len(set(found)) < 60


def test_between_milestones_recording_leaves_what_was_learnt(
    twins: Twins, episodes: list[Episode]
) -> None:
    playbook = Playbook.build(episodes[:20])
    learnt, first = 0, playbook.router
    for n in range(20, 40):
        playbook = playbook.record(episodes[n])
        due = playbook.must_learn
        before = first
        first = playbook.router
        assert (first is not before) is due
        assert not playbook.must_learn
        learnt += due
    assert 3 <= learnt <= 6
    # It is what a start from the same notes gives.
    again = Playbook.build(episodes).router
    assert again.weights.tobytes() == first.weights.tobytes()
    assert again.scale == first.scale
    assert not Playbook.build(episodes[:5]).must_learn


def test_form_tells_questions_titles_and_requests_apart() -> None:
    asked = describe_form("How do I reset my password?")
    title = describe_form("forklift operator")
    assert asked.shape == title.shape == (10,)
    assert np.abs(describe_form("")).max() < 10
    assert np.abs(asked - title).max() > 1


def test_a_list_keeps_the_first_of_every_corpus(twins: Twins) -> None:
    _, vector = twins.ask(1, 0)
    cold = twins.search(vector)
    kept = cold.keep(5, 3)
    assert kept.refs[:5] == cold.refs[:5]
    for corpus in CORPORA:
        first = [ref for ref in cold.refs if ref[0] == corpus][:3]
        assert [ref for ref in kept.refs if ref[0] == corpus][:3] == first
    assert len(kept.p0) == len(kept.refs) == len(kept.cosine) == len(kept.bm25)
