"""The playbook's promises: it helps, it harms nobody, and what is taken back leaves no trace."""

from __future__ import annotations

import random
import statistics
from dataclasses import replace

import numpy as np
import pytest

from services.matrixd.core.playbook import Episode, Playbook, Rating, Reranked, book, find_shown
from tests.support.playbook import World


@pytest.fixture
def world() -> World:
    # One for each test: what a test draws must not depend on which ran before it.
    return World()


@pytest.fixture
def episodes(world: World) -> list[Episode]:
    return [world.episode(n % 20, n) for n in range(60)]


def ask(
    world: World, playbook: Playbook, vector: np.ndarray, query: str = "q", **how: bool
) -> Reranked:
    return playbook.rerank(query, vector, world.search(vector), **how)


def same(one: Reranked, other: Reranked) -> bool:
    return (
        one.refs == other.refs
        and one.scores.tobytes() == other.scores.tobytes()
        and one.notes == other.notes
        and dict(one.contributions) == dict(other.contributions)
    )


def test_an_empty_playbook_changes_nothing(world: World) -> None:
    vector = world.ask(0)
    cold = world.search(vector)
    found = Playbook.build([]).rerank("q", vector, cold)
    assert not found.activated
    assert found.refs is cold.refs
    assert found.scores is cold.p0


def test_a_repeated_query_finds_what_helped_first(world: World) -> None:
    for need in range(8):
        episode = world.episode(need, 1)
        found = ask(world, Playbook.build([episode]), episode.vector)
        assert found.activated
        assert world.rank(found.refs, need) == 1


def test_paraphrases_gain_and_unseen_needs_keep_their_order(
    world: World, episodes: list[Episode]
) -> None:
    playbook = Playbook.build(episodes)
    gained = lost = 0
    for _ in range(5):
        for need in range(20):
            vector = world.ask(need)
            before = world.rank(world.search(vector).refs, need)
            after = world.rank(ask(world, playbook, vector).refs, need)
            gained += after < before
            lost += after > before
    assert gained > 30
    assert lost <= gained / 10
    moved = 0
    for need in range(20, 40):
        vector = world.ask(need)
        moved += ask(world, playbook, vector).refs[:10] != world.search(vector).refs[:10]
    assert moved <= 1


def test_what_is_far_from_every_note_is_left_alone(world: World, episodes: list[Episode]) -> None:
    playbook = Playbook.build(episodes)
    for number in range(50):
        vector = World(seed=100 + number, needs=1, documents=3).centres[0]
        assert not ask(world, playbook, vector).activated


def test_order_of_arrival_and_way_of_building_change_no_bit(
    world: World, episodes: list[Episode]
) -> None:
    shuffled = episodes.copy()
    random.Random(4).shuffle(shuffled)
    built = Playbook.build(episodes)
    other = Playbook.build(shuffled)
    grown = Playbook.build(episodes[:10])
    assert grown.strictness >= 0  # worked out early, and to be brought up to date
    for episode in episodes[10:]:
        grown = grown.record(episode)
    assert built.strictness == other.strictness == grown.strictness
    for need in range(25):
        vector = world.ask(need)
        found = ask(world, built, vector, explain=True)
        assert same(found, ask(world, other, vector, explain=True))
        assert same(found, ask(world, grown, vector, explain=True))


def test_what_is_retired_leaves_no_trace(world: World, episodes: list[Episode]) -> None:
    never = Playbook.build(episodes[:40])
    dice = random.Random(2)
    poison = [
        world.episode(n % 20, 1000 + n, flipped=[dice.random() < 0.7 for _ in range(10)])
        for n in range(30)
    ]
    poisoned = never
    for episode in poison:
        poisoned = poisoned.record(episode)
    cleaned = poisoned.retire([episode.id for episode in poison])
    assert poisoned.sources() != never.sources()
    assert cleaned.sources() == never.sources()
    assert cleaned.notes() == never.notes()
    for need in range(25):
        vector = world.ask(need)
        assert same(ask(world, cleaned, vector), ask(world, never, vector))


def test_retiring_everything_is_cold(world: World, episodes: list[Episode]) -> None:
    empty = Playbook.build(episodes).retire([episode.id for episode in episodes])
    vector = world.ask(1)
    assert empty.size == 0
    assert not ask(world, empty, vector).activated


def test_recording_twice_and_retiring_strangers_change_nothing(
    world: World, episodes: list[Episode]
) -> None:
    playbook = Playbook.build(episodes[:5])
    assert playbook.record(episodes[2]) is playbook
    assert playbook.retire(["nobody"]) is playbook


def test_a_search_beside_a_recording_may_work_out_more(
    episodes: list[Episode], monkeypatch: pytest.MonkeyPatch
) -> None:
    playbook = Playbook.build(episodes[:20])
    is_beyond = book._Masked.is_beyond

    def find_another(masked: book._Masked, vector: np.ndarray) -> bool:
        # As another thread does between two steps of this one.
        playbook._memo[f"another {len(playbook._memo)}"] = masked
        return is_beyond(masked, vector)

    assert playbook.strictness >= 0
    with monkeypatch.context() as patched:
        patched.setattr(book._Masked, "is_beyond", find_another)
        grown = playbook.record(episodes[20])
    assert grown.strictness == Playbook.build(episodes[:21]).strictness


def test_older_and_newer_views_go_on_beside_each_other(
    world: World, episodes: list[Episode]
) -> None:
    base = Playbook.build(episodes[:20])
    vector = world.ask(3)
    before = ask(world, base, vector)
    one, other = base.record(episodes[20]), base.record(episodes[21])
    assert same(before, ask(world, base, vector))
    assert same(ask(world, one, vector), ask(world, Playbook.build(episodes[:21]), vector))
    expected = Playbook.build([*episodes[:20], episodes[21]])
    assert same(ask(world, other, vector), ask(world, expected, vector))


def test_an_episode_survives_json_bit_by_bit(world: World, episodes: list[Episode]) -> None:
    back = [Episode.from_json(episode.to_json()) for episode in episodes]
    for one, other in zip(episodes, back, strict=True):
        assert one.to_json() == other.to_json()
    for need in range(20):
        vector = world.ask(need)
        found = ask(world, Playbook.build(episodes), vector)
        assert same(found, ask(world, Playbook.build(back), vector))


@pytest.mark.parametrize("damage", [{"vector": None}, {"cold": {}}, {"ratings": [[1]]}])
def test_a_damaged_episode_is_refused(episodes: list[Episode], damage: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not an episode"):
        Episode.from_json({**episodes[0].to_json(), **damage})


def test_explanations_add_up(world: World, episodes: list[Episode]) -> None:
    playbook = Playbook.build(episodes)
    # Near enough that it is the same need wherever the dice fell before.
    vector = world.ask(2, 0.2)
    cold = world.search(vector)
    found = playbook.rerank("q", vector, cold, explain=True)
    assert found.activated
    p0 = dict(zip(cold.refs, cold.p0.tolist(), strict=True))
    for ref, score in zip(found.refs, found.scores.tolist(), strict=True):
        told = sum(each.delta for each in found.contributions.get(ref, []))
        assert score - p0[ref] == pytest.approx(told, abs=1e-9)
    used = {use.episode_id for use in found.notes}
    assert {each.episode_id for told in found.contributions.values() for each in told} <= used


def test_ratings_of_what_was_not_shown_are_ignored(world: World) -> None:
    vector = world.ask(4)
    honest = world.episode(4, 1, vector)
    bribed = Episode("b", 2, "q", vector, honest.cold, (Rating("c", "never-shown", 1.0),), "bribed")
    found = ask(world, Playbook.build([bribed]), vector)
    assert found.refs == world.search(vector).refs
    view = Playbook.build([bribed]).notes()[0]
    assert (view.helpful, view.harmful, view.ignored) == (0, 0, 1)


def test_run_after_run_what_was_blamed_makes_way_until_the_answer_is_found(world: World) -> None:
    vector = world.ask(6)
    cold = world.search(vector)
    answer = cold.refs[33]
    before = Playbook.build([world.episode(n % 5, n) for n in range(60)])
    known = {("c", name): each for name, each in world.documents.items()}

    def judge(playbook: Playbook, number: int, *, counts: bool) -> Episode:
        order = ask(world, playbook, vector, "need 6").refs
        shown = find_shown(cold, order, order[:10]) if counts else ()
        ratings = tuple(Rating(*ref, 1 if ref == answer else -1) for ref in order[:10])
        kept = cold.keep(50, 10, shown)
        made = Episode(
            f"r{number}", 100 + number, "need 6", vector, kept, ratings, "judge", shown=shown
        )
        return made.with_vectors(known)

    found: dict[bool, Playbook] = {}
    for counts in (True, False):
        playbook = before
        for number in range(9):
            playbook = playbook.record(judge(playbook, number, counts=counts))
        found[counts] = playbook
    assert ask(world, found[True], vector, "need 6").refs[0] == answer
    # What the first twenty of the cold list are not told of stays out of reach.
    assert answer not in ask(world, found[False], vector, "need 6").refs[:10]


def test_what_a_need_costs_is_not_what_its_own_notes_cost(world: World) -> None:
    """Nor those that praise nothing, whom only grouping knows for its own."""
    notes = [world.episode(n % 5, n) for n in range(30)]
    blind: list[Episode] = []
    for number in range(10):
        asked = world.ask(number % 5)
        cold = world.search(asked)
        wrong = tuple(Rating(*ref, -1) for ref in cold.refs[:10])
        blind.append(
            Episode(f"b{number}", 50 + number, f"need {number % 5}", asked, cold, wrong, "judge")
        )
    playbook = Playbook.build([*notes, *blind])
    asked = playbook._notes[3]
    praising = {at for at in range(30) if at % 5 == 3}
    assert playbook._find_kin(asked, praising) == praising | {33, 38}
    # Without notes that grouping adds, nothing has to be grouped.
    assert Playbook.build(notes)._find_kin(asked, praising) <= praising
    losses = [float(each[0]) for each, _ in playbook._measure_sample()]
    assert losses == [0.0] * 30


def test_only_the_same_words_are_the_same_query_for_certain(world: World) -> None:
    """However near: "complete" and "incomplete" are nearer than many a paraphrase."""
    vector = world.ask(6)
    cold = world.search(vector)
    wrong = tuple(Rating(*ref, -1) for ref in cold.refs[:10])
    blamed = Episode("b", 1, "Not Complete?", vector, cold.head(50), wrong, "judge")
    others = [world.episode(20 + n % 20, 100 + n) for n in range(40)]
    playbook = Playbook.build([*others, blamed])
    again = ask(world, playbook, vector, "not  complete").notes[0]
    other = ask(world, playbook, vector, "complete").notes[0]
    assert again.episode_id == other.episode_id == "b"
    assert again.probability > 0.99 > 0.95 > other.probability


def test_only_what_search_showed_beyond_the_cold_list_is_found_shown(world: World) -> None:
    cold = world.search(world.ask(4))
    raised, deep, top = cold.refs[60], cold.refs[61], cold.refs[0]
    order = (raised, *(ref for ref in cold.refs if ref != raised))
    assert find_shown(cold, order, {raised, deep, top, ("c", "no such")}) == (raised,)
    assert find_shown(cold, cold.refs, {raised, deep, top}) == ()
    kept = cold.keep(50, 10, (raised,))
    assert kept.refs == (*cold.refs[:50], raised)
    assert kept.p0[-1] == cold.p0[60]


def test_a_source_that_errs_is_believed_less() -> None:
    dice = random.Random(9)

    def record(world: World, rate: float, source: str, start: int) -> list[Episode]:
        return [
            world.episode(
                n % 20,
                start + n,
                flipped=[dice.random() < rate for _ in range(10)],
                source=source,
            )
            for n in range(120)
        ]

    # In one world of ten a careful source's 120 good ratings stand where guesses would; what is
    # promised is the order in every world and the figure in most.
    careful, coin = list[float](), list[float]()
    for seed in range(1, 6):
        world = World(seed=seed)
        found = Playbook.build(
            [
                *record(world, 0.0, "careful", 0),
                *record(world, 0.2, "hasty", 1000),
                *record(world, 0.45, "coin", 2000),
            ]
        ).sources()
        assert found["careful"].positive > found["hasty"].positive > found["coin"].positive
        careful.append(found["careful"].accuracy)
        coin.append(found["coin"].accuracy)
    assert statistics.median(careful) > 0.9
    assert max(coin) < 0.7


def test_newer_evidence_wins_over_older(world: World) -> None:
    vector = world.ask(5)
    cold = world.search(vector)
    other = next(i for _, i in cold.refs[4:10] if i != world.answers[5])
    clean = [world.episode(n % 20, n) for n in range(60)]
    before = [world.episode(5, 100 + n, vector) for n in range(3)]
    playbook = Playbook.build([*clean, *before])
    assert world.rank(ask(world, playbook, vector).refs, 5) == 1
    for run in range(3):
        playbook = playbook.record(world.episode(5, 200 + run, vector, answer=other))
    first = ask(world, playbook, vector).refs[0]
    assert first == ("c", other)


def test_only_documents_of_the_searched_corpora_come_back(
    world: World, episodes: list[Episode]
) -> None:
    vector = world.ask(2)
    cold = world.search(vector).head(3)
    found = Playbook.build(episodes).rerank("q", vector, cold)
    assert sorted(found.refs) == sorted(cold.refs)


def test_a_vector_of_another_model_is_not_compared(world: World, episodes: list[Episode]) -> None:
    playbook = Playbook.build(episodes)
    other = np.ones(7, np.float32) / np.float32(np.sqrt(7))
    assert not playbook.is_near(other)
    assert not playbook.rerank("q", other, world.search(world.ask(1))).activated


def test_a_source_that_repeats_itself_is_one_witness(world: World) -> None:
    others = [world.episode(n % 20, n) for n in range(40)]
    vector = world.ask(30)
    answer = next(i for _, i in world.search(vector).refs[4:10] if i != world.answers[30])
    said = [world.episode(30, 100, vector)]
    said += [world.episode(30, 101 + n, vector, answer=answer) for n in range(4)]
    grown = Playbook.build(others)
    for episode in said:
        grown = grown.record(episode)
    once = Playbook.build([*others, said[-1]])
    assert grown.sources()["judge"].ratings == once.sources()["judge"].ratings
    assert grown.sources()["judge"].accuracy == once.sources()["judge"].accuracy
    assert Playbook.build([*said, *others]).sources() == grown.sources()
    # What is taken back is as if it had never been said.
    back = grown.retire([episode.id for episode in said[1:]])
    assert back.sources() == Playbook.build([*others, said[0]]).sources()


def test_all_answers_may_change_and_their_judge_is_still_believed() -> None:
    """An honest judge that contradicts both cold search and itself for three runs."""
    world = World(needs=30)
    known = {("c", name): each for name, each in world.documents.items()}
    asked = [world.ask(need) for need in range(30)]
    cold = [world.search(vector) for vector in asked]
    dice = random.Random(3)
    answers = [
        dice.choice([i for _, i in found.refs[1:10] if i != world.answers[need]])
        for need, found in enumerate(cold)
    ]
    playbook = Playbook.build([])
    for number in range(60):
        need = number % 30
        episode = world.episode(need, number, asked[need] if number < 30 else None)
        playbook = playbook.record(replace(episode, query=f"need {need}, {number // 30}"))
    for run in range(3):
        for need, vector in enumerate(asked):
            order = playbook.rerank(f"need {need}, 0", vector, cold[need]).refs
            ratings = tuple(
                Rating(*ref, 1 if ref[1] == answers[need] else -1) for ref in order[:10]
            )
            made = Episode(
                f"r{run}-{need}",
                100 * (run + 1) + need,
                f"need {need}, 0",
                vector,
                cold[need].head(50),
                ratings,
                "judge",
            )
            playbook = playbook.record(made.with_vectors(known))
    first = [
        playbook.rerank(f"need {need}, 0", vector, cold[need]).refs[0][1] == answers[need]
        for need, vector in enumerate(asked)
    ]
    assert sum(first) >= 27


def test_notes_are_told_of_those_asked_for(world: World, episodes: list[Episode]) -> None:
    playbook = Playbook.build(episodes)
    names = [episodes[5].id, episodes[2].id, "nobody"]
    told = playbook.notes(names)
    assert [view.id for view in told] == [episodes[2].id, episodes[5].id]
    assert set(told) < set(playbook.notes())
