"""pathwayd's index: exact neighbours, exact BM25, packing, checkpoints, records in any order."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import orjson
import pytest

from services.pathwayd.core.content import digest_of
from services.pathwayd.core.fields import resolve_field
from services.pathwayd.core.records import Retire, Vector, Vectors, Write
from services.pathwayd.store import settling
from services.pathwayd.store.checkpoint import read_memory, write_memory
from services.pathwayd.store.explaining import explain_hit
from services.pathwayd.store.memory import Memory
from services.pathwayd.store.planes import BLOCK, Space, check_directions
from services.pathwayd.store.postings import Postings
from services.pathwayd.store.search import Ask, search_view
from services.pathwayd.store.vectors import read_vector, unit_query
from shared.bm25 import damp, score_count, weigh_word
from shared.errors import Invalid
from shared.filters.language import parse_filter


def unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=1)[:, None]


@pytest.mark.parametrize("spread", [1.0, 0.02])
@pytest.mark.parametrize("share", [1.0, 0.3, 0.01, 0.0])
def test_the_nearest_are_the_true_nearest(spread: float, share: float) -> None:
    rng = np.random.default_rng(1)
    count, dim, k = 2 * BLOCK + 77, 48, 10
    # With a small spread all vectors are nearly alike, and the high bytes cannot tell them apart.
    vectors = (rng.standard_normal(dim) + spread * rng.standard_normal((count, dim))).astype("f4")
    space = Space("m", dim)
    for start in range(0, count, 1000):
        space.add(range(start, min(start + 1000, count)), vectors[start : start + 1000])
    allowed = rng.random(count) < share
    exact = unit(vectors.astype(np.float64))
    for _ in range(5):
        query = unit_query(rng.standard_normal(dim).astype("f4"))
        scores = np.where(allowed, exact @ query, -9)
        best = np.argsort(-scores, kind="stable")[: min(k, int(allowed.sum()))]
        found = space.view().find_nearest(query, allowed, k)
        assert len(found) == len(best)
        assert [score for _, score in found] == pytest.approx(scores[best].tolist(), abs=1e-4)
        # Where two differ by less than 16 bits tell, either may come first.
        assert min((scores[row] for row, _ in found), default=0) >= min(scores[best], default=0) - (
            1e-4
        )
        some = space.view().score_rows(query, [3, 4000], count)
        assert some == {r: pytest.approx(exact[r] @ query, abs=1e-4) for r in (3, 4000)}


def test_scores_do_not_depend_on_where_a_vector_lies() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((3000, 16)).astype("f4")
    query = unit_query(rng.standard_normal(16).astype("f4"))
    one, other = Space("m", 16), Space("m", 16)
    one.add(range(3000), vectors)
    order = rng.permutation(3000)
    other.add(order.tolist(), vectors[order])
    every = np.ones(3000, np.bool_)
    found = one.view().find_nearest(query, every, 50)
    assert other.view().find_nearest(query, every, 50) == found
    few = np.zeros(3000, np.bool_)
    few[[row for row, _ in found[:7]]] = True
    assert other.view().find_nearest(query, few, 50) == found[:7]


def test_odd_vectors() -> None:
    tiny = np.array([[1e-12, 0], [1e30, 1], [0, 0], [np.nan, 1], [np.inf, 1]], np.float32)
    assert check_directions(tiny).tolist() == [True, True, False, False, False]
    space = Space("m", 2)
    space.add([0, 1], tiny[:2])
    query = unit_query(np.array([1, 0], np.float32))
    found = space.view().find_nearest(query, np.ones(2, np.bool_), 5)
    assert [score for _, score in found] == pytest.approx([1, 1], abs=1e-4)
    with pytest.raises(Invalid, match="direction"):
        read_vector([1e39, 0.0])
    with pytest.raises(Invalid, match="whole number"):
        read_vector("AAA=")


def test_bm25_is_that_of_the_formula_whatever_the_past() -> None:
    chance = random.Random(5)
    words = [f"w{n}" for n in range(40)]
    texts = [Counter(chance.choices(words, k=chance.randint(1, 12))) for _ in range(300)]
    postings = Postings()
    for row, text in enumerate(texts):
        if row in (50, 120, 200):
            merge_all, parts = postings.seal()
        postings.add(row, text, text.total())
        if row in (50, 123, 200):
            # What came since the seal stays beside.
            postings.replace(merge_all(), parts)
    dead = set(chance.sample(range(len(texts)), 90))
    for row in dead:
        postings.remove(texts[row], texts[row].total())
    alive = [t for row, t in enumerate(texts) if row not in dead]
    average = sum(t.total() for t in alive) / len(alive)
    view = postings.view()
    weighed = view.weigh(["w1", "w7", "w1", "absent"])
    assert [word for word, _ in weighed] == ["w1", "w7", "absent"]
    scores = view.score(weighed, len(texts))
    for row, text in enumerate(texts):
        expected = sum(
            score_count(
                weigh_word(len(alive), sum(word in t for t in alive)),
                text[word],
                damp(text.total(), average),
            )
            for word in ("w1", "w7")
            if text[word]
        )
        assert scores[row] == pytest.approx(expected, abs=1e-12)
        told = view.explain(weighed, row)
        assert sum(adds for *_, adds in told) == pytest.approx(expected, abs=1e-12)
        assert [count for _, _, count, _ in told] == [text["w1"], text["w7"], 0]


def write(name: str, version: int, text: str, **more: Any) -> Write:
    content = {"task": text, "v": version}
    fields: dict[str, Any] = {"supersedes": None, "text": None, **more}
    return Write(
        id=name,
        at=1000 + version,
        surface="pathway",
        version=version,
        content=orjson.dumps(content),
        digest=digest_of(content),
        tags=(f"t{version}",),
        created=1000,
        **fields,
    )


def make_changes(seed: int) -> list[Any]:
    """A life of some traces: added, updated, revised, retired, with vectors of two kinds."""
    chance, rng = random.Random(seed), np.random.default_rng(seed)
    versions: dict[str, int] = {}
    changes: list[Any] = []
    live: list[str] = []
    for step in range(150):
        text = " ".join(chance.choices("oak elm ash fir yew bay".split(), k=4)) + f" n{step}"
        kind = chance.random()
        if kind < 0.5 or not live:
            name = f"t{step}"
            own = rng.standard_normal(8).astype("<f4").tobytes() if chance.random() < 0.5 else None
            vector = Vector("m", own) if own else None
            changes.append(write(name, 1, text, vector=vector))
            versions[name] = 1
            live.append(name)
        elif kind < 0.65:
            name = chance.choice(live)
            versions[name] += 1
            changes.append(write(name, versions[name], text))
        elif kind < 0.75:
            before = live.pop(chance.randrange(len(live)))
            name = f"t{step}"
            changes.append(write(name, 1, text, supersedes=before))
            versions[name] = 1
            live.append(name)
        elif kind < 0.85:
            changes.append(Retire((live.pop(chance.randrange(len(live))),), 5000 + step))
        else:
            of = tuple((name, versions[name]) for name in chance.sample(live, min(3, len(live))))
            data = rng.standard_normal((len(of), 8)).astype("<f4").tobytes()
            changes.append(Vectors("m", 8, of, data))
    return changes


def look(memory: Memory) -> Any:
    """What searches of all kinds show, to the last digit."""
    rng = np.random.default_rng(9)
    told: list[Any] = [sorted(memory.state.traces.items()), memory.state.counts]
    for text, vector in (("oak fir", True), ("yew n30", False), (None, True)):
        asked = unit_query(rng.standard_normal(8).astype("f4")) if vector else None
        ask = Ask(text, asked, "m", 30, None, 0.7, superseded=True)
        answer = search_view(memory.index.view(), ask)
        hits = [(f.trace, f.score, f.cosine, f.lexical, f.semantic_rank) for f in answer.found]
        told.append((hits, answer.matched, answer.weighed))
    return told


def settle(memory: Memory) -> list[bytes]:
    """Takes up new words, and gives a checkpoint."""
    taken = settling.begin(memory)
    frozen = taken.merge()
    memory.index.postings.replace(frozen, taken.parts)
    packed = settling.pack_taken(taken, frozen)
    return list(write_memory(taken.books, packed, taken.text_chars))


@pytest.mark.parametrize("seed", range(8))
def test_a_memory_is_the_same_however_it_came_about(seed: int) -> None:
    changes = make_changes(seed)
    numbered = list(enumerate(changes, start=1))
    plain, bulk = Memory(10, 1000), Memory(10, 1000)
    for seq, change in numbered:
        plain.apply(seq, change)
    bulk.load(numbered)
    expected = look(plain)
    assert look(bulk) == expected
    chance = random.Random(seed)
    for _ in range(3):
        # A checkpoint in between, which may hold more than it says.
        cut, behind = chance.randrange(len(changes)), chance.randrange(10)
        early = Memory(10, 1000)
        for seq, change in numbered[:cut]:
            early.apply(seq, change)
        chunks = settle(early)
        again = read_memory(chunks, 10, 1000)
        again.load(numbered[max(0, cut - behind) :])
        assert look(again) == expected
        # And the running one, packed and put in place while changes go on.
        taken = settling.begin(early)
        frozen = taken.merge()
        middle = chance.randrange(cut, len(changes) + 1)
        for seq, change in numbered[cut:middle]:
            early.apply(seq, change)
        early.index.postings.replace(frozen, taken.parts)
        packed = settling.pack_taken(taken, frozen)
        settling.catch_up(early, settling.make_index(early, packed), taken, packed)
        for seq, change in numbered[middle:]:
            early.apply(seq, change)
        assert look(early) == expected


def test_words_go_with_the_last_row_that_held_them() -> None:
    memory = Memory(10, 1000)
    memory.apply(1, write("kept", 1, "oak elm"))
    for version in range(1, 51):
        memory.apply(1 + version, write("busy", version, f"oak once{version}"))
    memory.apply(60, write("gone", 1, "yew"))
    memory.apply(61, Retire(("gone",), 9))
    before = look(memory)
    taken = settling.begin(memory)
    frozen = taken.merge()
    memory.index.postings.replace(frozen, taken.parts)
    packed = settling.pack_taken(taken, frozen)
    assert {"oak", "elm", "once50"} <= set(packed.vocabulary)
    assert not {"once49", "yew"} & set(packed.vocabulary)
    settling.catch_up(memory, settling.make_index(memory, packed), taken, packed)
    assert look(memory) == before
    memory.apply(62, write("late", 1, "yew once3"))
    assert [w for w, n in zip(*_words(memory), strict=True) if n == 0] == []


def test_a_score_is_explained_by_what_was_searched() -> None:
    memory = Memory(10, 1000)
    memory.load(enumerate(make_changes(3), start=1))
    answer = search_view(memory.index.view(), Ask("oak fir", None, None, 50, None, 0.7))
    taken = settling.begin(memory)
    frozen = taken.merge()
    memory.index.postings.replace(frozen, taken.parts)
    packed = settling.pack_taken(taken, frozen)
    settling.catch_up(memory, settling.make_index(memory, packed), taken, packed)
    assert any(memory.index.row_of[f.trace.id] != f.row for f in answer.found)
    for found in answer.found:
        told = explain_hit(found, answer, 0.7)
        assert sum(term.adds for term in told.terms) == pytest.approx(found.bm25, abs=1e-5)


def _words(memory: Memory) -> tuple[list[str], list[int]]:
    postings = memory.index.postings
    return list(postings.vocabulary), list(postings.holding)


def test_a_checkpoint_knows_which_fields_were_filtered_on() -> None:
    memory = Memory(10, 1000)
    memory.load(enumerate(make_changes(2), start=1))
    wanted = {"v": {"gt": 1}, "tags": {"contains": "t2"}, "or": [{"v": 2}, {"no": 1}]}
    given = parse_filter(wanted, resolve_field)
    ask = Ask("oak", None, None, 50, given, 0.7)
    before = search_view(memory.index.view(), ask)
    again = read_memory(settle(memory), 10, 1000)
    assert {field.name for field in again.fields} == {"v", "tags", "no"}
    again.index.warm(again.fields)
    assert set(again.index.columns.fields) == set(again.fields)
    found = search_view(again.index.view(), ask)
    assert [f.trace.id for f in found.found] == [f.trace.id for f in before.found]
    assert (found.matched, bool(found.found)) == (before.matched, True)


def test_a_short_checkpoint_is_refused() -> None:
    memory = Memory(10, 1000)
    memory.load(enumerate(make_changes(1), start=1))
    data = b"".join(settle(memory))
    for cut in (10, 200, len(data) // 2, len(data) - 1):
        with pytest.raises((ValueError, KeyError, IndexError)):
            read_memory([data[:cut]], 10, 1000)
    with pytest.raises(ValueError, match="setting"):
        read_memory([data], 10, 999)
    pieces = [data[n : n + 7] for n in range(0, len(data), 7)]
    assert look(read_memory(pieces, 10, 1000)) == look(memory)


def test_vectors_of_another_length_are_left_out_and_counted() -> None:
    memory = Memory(10, 1000)
    memory.apply(1, write("a", 1, "oak", vector=Vector("m", b"\0\0\x80?" * 8)))
    memory.apply(2, write("b", 1, "elm", vector=Vector("m", b"\0\0\x80?" * 4)))
    memory.apply(3, Vectors("m", 4, (("b", 1),), b"\0\0\x80?" * 4))
    assert memory.misfits == 2, "what a caller brought gives way to what the model made"
    assert memory.index.has_vector("b", "m")
    assert memory.index.list_unembedded("m") == ["a"]


def test_a_space_that_was_let_go_of_does_not_come_back() -> None:
    memory = Memory(10, 1000)
    memory.apply(1, write("a", 1, "oak", vector=Vector("m", b"\0\0\x80?" * 8)))
    memory.apply(2, write("b", 1, "elm"))
    taken = settling.begin(memory)
    frozen = taken.merge()
    memory.apply(3, Vectors("m", 4, (("b", 1),), b"\0\0\x80?" * 4))
    memory.index.postings.replace(frozen, taken.parts)
    packed = settling.pack_taken(taken, frozen)
    settling.catch_up(memory, settling.make_index(memory, packed), taken, packed)
    assert memory.index.spaces["m"].dim == 4
    assert memory.index.list_unembedded("m") == ["a"]
