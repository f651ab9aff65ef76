"""The index itself: recall with and without filters, views that hold still, rebuilds."""

from __future__ import annotations

import base64
import threading
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from services.vectord.core.records import Delete, Upsert
from services.vectord.store.candidates import find_candidates, render_candidates
from services.vectord.store.graph import Stopped
from services.vectord.store.index import VectorIndex
from services.vectord.store.lexical import Lexical
from services.vectord.store.search import Ask, search_view
from shared.errors import Invalid
from shared.filters.language import holds, look_up, parse_filter
from shared.wire.vectord import IndexSpec, Language, Metric
from tests.support.vectord import Floats, cluster_vectors

COUNT, DIM = 6000, 32


def make_upsert(vectors: Floats, numbers: Any, extra: str = "") -> Upsert:
    rows = list(numbers)
    return Upsert(
        [f"i{n}" for n in rows],
        vectors[rows].tobytes(),
        [f"text {n} {extra}" for n in rows],
        [orjson.dumps({"n": n, "share": n / COUNT, "odd": "yes" if n % 2 else "no"}) for n in rows],
    )


def settle(index: VectorIndex, tmp_path: Path) -> None:
    while index.settle(500, 0.25, idle=True, folder=tmp_path, threads=2, stopping=lambda: False):
        pass


def ids_of(index: VectorIndex, ask: Ask) -> list[str]:
    view = index.view
    found = search_view(view, index.spec.metric, [ask], 1)[0]
    return [view.table.ids[row] for row, _ in found.hits]


def true_ids(vectors: Floats, query: Floats, allowed: Any, metric: Metric, k: int) -> set[str]:
    wide, q = vectors[allowed].astype(np.float64), query.astype(np.float64)
    scores = wide @ q
    if metric == "cosine":
        scores /= np.linalg.norm(wide, axis=1)
    elif metric == "l2":
        scores = -np.linalg.norm(wide - q, axis=1)
    return {f"i{allowed[n]}" for n in np.argsort(-scores)[:k]}


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_recall_holds_under_every_filter_and_after_churn(tmp_path: Path, metric: Metric) -> None:
    vectors, queries, _ = cluster_vectors(COUNT, DIM, 60, 3)
    index = VectorIndex(IndexSpec(name="w", dim=DIM, metric=metric))
    index.apply([(1, make_upsert(vectors, range(5500)))])
    settle(index, tmp_path)
    index.apply([(2, make_upsert(vectors, range(5500, COUNT)))])  # scanned beside the graph
    assert index.view.graph_rows == 5500

    def recall(allowed: Any, where: Any) -> float:
        given = None if where is None else parse_filter(where)
        right = total = 0
        for query in queries[:30]:
            wanted = true_ids(vectors, query, allowed, metric, 10)
            got = ids_of(index, Ask(query, None, 10, 128, given))
            assert len(got) == len(wanted)
            right += len(wanted & set(got))
            total += len(wanted)
        return right / total

    assert recall(np.arange(COUNT), None) >= 0.98
    for share in (0.9, 0.5, 0.1, 0.01, 0.001):
        allowed = np.array([n for n in range(COUNT) if n / COUNT < share])
        assert recall(allowed, {"share": {"lt": share}}) >= 0.98
    half = list(range(0, COUNT, 2))
    index.apply([(3, Delete([f"i{n}" for n in half]))])
    assert recall(np.arange(1, COUNT, 2), None) >= 0.98
    index.apply([(4, make_upsert(vectors, half))])
    settle(index, tmp_path)
    view = index.view
    assert (view.rows, view.live) == (COUNT, COUNT), "the dead rows were reclaimed"
    assert recall(np.arange(COUNT), None) >= 0.98


def test_filters_by_column_agree_with_looking_at_each_item() -> None:
    values: list[Any] = [
        1,
        1.0,
        True,
        False,
        "1",
        "a",
        "ab",
        "",
        None,
        [1, "a"],
        [],
        {"x": 1},
        2**60,
        2**60 + 1,
        -5,
        0.5,
        -(2**70) // 2**10,
        ["ab"],
        "Ø",
    ]
    index = VectorIndex(IndexSpec(name="w", dim=2))
    rows = [{"f": v} for v in values] + [{}, {"g": {"f": 1}}]
    count = len(rows)
    vectors = np.ones((count, 2), np.float32)
    index.apply(
        [
            (
                1,
                Upsert(
                    [str(n) for n in range(count)],
                    vectors.tobytes(),
                    [None] * count,
                    [orjson.dumps(r) for r in rows],
                ),
            )
        ]
    )
    operands: list[Any] = [1, 1.0, True, "a", "1", 2**60, 2**60 + 1, 0, "", 0.5, "b"]
    for operator in ("eq", "ne", "gt", "gte", "lt", "lte", "contains", "in"):
        for operand in operands:
            if operator in ("gt", "gte", "lt", "lte") and isinstance(operand, bool):
                continue
            where = {"f": {operator: [operand] if operator == "in" else operand}}
            compare = parse_filter(where)
            mask = index.view.columns.mask(compare, count).tolist()
            slow = []
            for row in rows:
                value = look_up(row, "f")
                slow.append(value is not None and holds(value, compare))  # pyright: ignore
            assert mask == slow, where
            assert index.view.columns.mask(parse_filter({"not": where}), count).tolist() == [
                not kept for kept in slow
            ]


def test_a_view_never_changes_and_shows_no_half_of_an_upsert(tmp_path: Path) -> None:
    vectors, queries, _ = cluster_vectors(400, DIM, 5, 4)
    index = VectorIndex(IndexSpec(name="w", dim=DIM))
    index.apply([(1, make_upsert(vectors, range(400), "v0"))])
    old = index.view
    before = search_view(old, "cosine", [Ask(queries[0], "v0", 400, 400, None)], 1)
    stop = threading.Event()
    problems: list[str] = []

    def read() -> None:
        while not stop.is_set():
            view = index.view
            found = search_view(view, "cosine", [Ask(queries[0], None, 1000, 1000, None)], 1)[0]
            versions = {(view.table.texts[row] or "").split()[-1] for row, _ in found.hits}
            names = {view.table.ids[row] for row, _ in found.hits}
            if len(found.hits) != 400 or len(names) != 400 or len(versions) != 1:
                problems.append(f"{len(found.hits)} hits, {len(names)} items, {versions}")
            lexical = search_view(view, "cosine", [Ask(None, "text", 1000, 1, None)], 1)[0]
            if len(lexical.hits) != 400:
                problems.append(f"{len(lexical.hits)} texts")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for version in range(1, 12):
        index.apply([(version + 1, make_upsert(vectors, range(400), f"v{version}"))])
        index.settle(100, 0.25, idle=False, folder=tmp_path, threads=1, stopping=lambda: False)
    stop.set()
    for reader in readers:
        reader.join()
    assert problems == []
    again = search_view(old, "cosine", [Ask(queries[0], None, 400, 400, None)], 1)[0]
    assert again.hits == before[0].dense


def test_what_changes_during_a_rebuild_is_kept(tmp_path: Path) -> None:
    vectors, _, _ = cluster_vectors(900, DIM, 5, 6)
    index = VectorIndex(IndexSpec(name="w", dim=DIM))
    index.apply([(1, make_upsert(vectors, range(600)))])
    index.apply([(2, Delete([f"i{n}" for n in range(300)]))])
    done: list[bool] = []

    def meddle() -> bool:
        if not done:
            done.append(True)
            index.apply([(3, Delete(["i400"]))])
            index.apply([(4, make_upsert(vectors, [500, 700], "new"))])
            index.apply([(5, Delete(["i700"]))])
            index.apply([(6, make_upsert(vectors, [701], "new"))])
        return False

    assert index.settle(100, 0.25, idle=False, folder=tmp_path, threads=1, stopping=meddle)
    view = index.view
    expected = {f"i{n}" for n in range(300, 600) if n != 400} | {"i701"}
    got = {view.table.ids[row] for row in np.flatnonzero(view.alive)}
    assert got == expected
    assert (view.live, view.seq) == (len(expected), 6)
    row = view.find("i500")
    assert row is not None
    assert view.table.texts[row] == "text 500 new"
    assert view.find("i400") is None
    assert ids_of(index, Ask(None, "new", 10, 10, None)) == ["i500", "i701"]


def test_a_build_that_is_stopped_changes_nothing(tmp_path: Path) -> None:
    vectors, queries, _ = cluster_vectors(600, DIM, 5, 7)
    index = VectorIndex(IndexSpec(name="w", dim=DIM))
    index.apply([(1, make_upsert(vectors, range(600)))])
    before = index.view
    with pytest.raises(Stopped):
        index.settle(100, 0.25, idle=False, folder=tmp_path, threads=1, stopping=lambda: True)
    assert index.view is before
    assert len(ids_of(index, Ask(queries[0], None, 5, 10, None))) == 5


def test_scores_do_not_depend_on_how_a_row_was_found(tmp_path: Path) -> None:
    vectors, queries, _ = cluster_vectors(5000, DIM, 50, 8)
    index = VectorIndex(IndexSpec(name="w", dim=DIM))
    index.apply([(1, make_upsert(vectors, range(5000)))])
    asks = [Ask(q, None, 5, 400, None) for q in queries]
    scanned = [found.hits for found in search_view(index.view, "cosine", asks, 1)]
    settle(index, tmp_path)
    assert index.view.graph is not None
    together = [found.hits for found in search_view(index.view, "cosine", asks, 2)]
    alone = [search_view(index.view, "cosine", [ask], 1)[0].hits for ask in asks]
    assert together == alone
    assert sum(a == b for a, b in zip(scanned, together, strict=True)) >= 58


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_candidates_carry_both_scores_whichever_search_found_them(metric: Metric) -> None:
    vectors, queries, _ = cluster_vectors(400, DIM, 10, 5)
    index = VectorIndex(IndexSpec(name="w", dim=DIM, metric=metric))
    index.apply([(1, make_upsert(vectors, range(400)))])
    view = index.view
    whole = search_view(view, metric, [Ask(queries[0], None, 400, 400, None)], 1)[0]
    exact = dict(whole.hits)
    words = dict(search_view(view, metric, [Ask(None, "text 7 9", 400, 400, None)], 1)[0].hits)
    asks = [Ask(queries[0], "text 7 9", 20, 128, None), Ask(queries[1], "nothing", 5, 128, None)]
    found, wordless = find_candidates(view, metric, asks, 1)

    assert 20 < len(found) <= 40
    assert len({row for row, _, _ in found}) == len(found)
    assert [row for row, _, _ in found[:20]] == [row for row, _ in whole.hits[:20]]
    for row, dense, lexical in found:
        assert dense == exact[row]
        assert lexical == words.get(row, 0.0)
    assert {7, 9} <= {row for row, _, _ in found}
    assert [lexical for _, _, lexical in wordless] == [0.0] * 5
    answer = render_candidates(view, found, ("text", "vector"))
    assert answer["texts"][0] == f"text {found[0][0]} "
    raw = np.frombuffer(base64.b64decode(answer["vectors"]), "<f4").reshape(-1, DIM)
    assert (raw == vectors[[row for row, _, _ in found]]).all()
    with pytest.raises(Invalid, match="a vector and a text"):
        find_candidates(view, metric, [Ask(queries[0], None, 5, 5, None)], 1)


@pytest.mark.parametrize(("language", "found"), [("english", ["0"]), ("none", [])])
def test_words_are_found_by_their_stem_in_the_index_s_language(
    language: Language, found: list[str]
) -> None:
    texts = ["a welder of boats", "a nurse"]
    lexical = Lexical(texts, language)
    lexical.add(0, texts)
    searcher = lexical.commit()
    assert searcher is not None
    hits = searcher.search("welders", 10, np.ones(2, bool), lambda: 2)
    assert [str(row) for row, _ in hits] == found
    lexical.close()
