"""Records, plans, snapshots and BM25 of vectord: decisions alone."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vectord.core.bm25 import Counts, count_words, score_words
from services.vectord.core.fusion import fuse_ranks
from services.vectord.core.plans import SCAN_ROWS, plan_width, should_compact, should_merge, widen
from services.vectord.core.records import Assembler, Delete, Upsert, encode_write
from services.vectord.core.snapshots import (
    PIECE_BYTES,
    index_prefix,
    is_due,
    label_of,
    parse_key,
    piece_keys,
)
from services.vectord.core.spec import check_model, check_same
from shared.errors import Conflict
from shared.wire.vectord import IndexSpec


def test_fused_ranks_prefer_what_both_lists_hold() -> None:
    fused = fuse_ranks([[1, 2, 3], [4, 2]], 3)
    assert [row for row, _ in fused] == [2, 1, 4]
    assert fused[0][1] == pytest.approx(2 / 62)


def test_selective_filters_scan_and_wide_ones_use_the_graph() -> None:
    assert plan_width(10, 100, 100_000, 100_000) == 100
    assert plan_width(10, 100, 100_000, SCAN_ROWS) is None
    half = plan_width(10, 100, 100_000, 50_000)
    assert half is not None
    assert half >= 200
    assert plan_width(5000, 100, 100_000, 9_000) is None
    assert widen(100, 100_000) == 400
    assert widen(4000, 100_000) is None
    assert widen(100, 300) is None


def test_building_waits_for_enough_to_do() -> None:
    assert not should_merge(999, 5_000, 1000, idle=False)
    assert should_merge(1000, 5_000, 1000, idle=False)
    assert not should_merge(4_000, 100_000, 1000, idle=False)
    assert should_merge(300, 100_000, 1000, idle=True)
    assert not should_merge(0, 100_000, 1000, idle=True)
    assert should_compact(300, 1000, 0.25, 1000)
    assert not should_compact(200, 1000, 0.25, 1000)


def upsert(count: int, text: str = "t") -> Upsert:
    vectors = struct.pack(f"<{count * 2}f", *range(count * 2))
    return Upsert([f"i{n}" for n in range(count)], vectors, [text] * count, [b"{}"] * count)


@given(st.integers(1, 40), st.integers(1, 400))
def test_a_write_in_parts_comes_back_whole(count: int, limit: int) -> None:
    import orjson

    payloads = [orjson.loads(orjson.dumps(p)) for p in encode_write(upsert(count), limit)]
    assembler = Assembler()
    parts = [w for n, p in enumerate(payloads, start=7) for w in assembler.take(n, p)]
    writes = [w for _, w in parts if isinstance(w, Upsert)]
    assert len(parts) == len(payloads)
    assert [name for w in writes for name in w.ids] == upsert(count).ids
    assert b"".join(w.vectors for w in writes) == upsert(count).vectors


def test_half_a_write_counts_for_nothing() -> None:
    import orjson

    first = [orjson.loads(orjson.dumps(p)) for p in encode_write(upsert(4), 60)]
    assert len(first) > 2
    assembler = Assembler()
    assert [x for n, p in enumerate(first[:-1], 1) for x in assembler.take(n, p)] == []
    whole = list(assembler.take(len(first), encode_write(Delete(["a"]))[0]))
    assert whole == [(len(first), Delete(["a"]))]
    assert assembler.torn == 1
    assert list(assembler.take(99, first[1])) == []
    assert list(assembler.take(100, {"op": "other", "part": 0, "parts": 1})) == []
    assert assembler.damaged == 1


def test_keys_of_snapshots_go_both_ways() -> None:
    prefix, label = index_prefix("w", "u1"), label_of(7, 3)
    keys = piece_keys(prefix, label, "vectors.f32", PIECE_BYTES + 5)
    assert [(start, size) for _, start, size in keys] == [(0, PIECE_BYTES), (PIECE_BYTES, 5)]
    assert parse_key(keys[1][0]) == ("w", "u1", label, "vectors.f32.0001")
    assert parse_key("_vectors/w/u1/other/manifest.json") is None
    assert parse_key("elsewhere") is None
    assert len(piece_keys(prefix, label, "empty", 0)) == 1


def test_snapshots_are_due_on_news_and_not_too_often() -> None:
    def due(stored: str | None, since_s: float, took_s: float = 0.0) -> bool:
        return is_due(
            stored=stored, current="b", since_s=since_s, interval_s=30, last_took_s=took_s
        )

    assert due(None, 0)
    assert due("a", 30)
    assert not due("a", 29)
    assert not due("b", 1000)
    assert not due("a", 100, took_s=10)


def test_another_index_of_the_same_name_is_a_conflict() -> None:
    spec = IndexSpec(name="a", dim=3, model="m")
    check_same(spec, spec.model_copy())
    with pytest.raises(Conflict) as caught:
        check_same(spec, spec.model_copy(update={"metric": "ip"}))
    assert caught.value.details["differences"]["metric"] == {"existing": "cosine", "asked": "ip"}
    check_model(spec, None)
    with pytest.raises(Conflict):
        check_model(spec, "n")


def test_bm25_counts_only_what_is_there() -> None:
    counts = Counts()
    for text in ("a b", "a", "c c c"):
        counts.add(text.split())
    counts.add(["a", "z"])
    counts.remove(["a", "z"])
    found, length = count_words(["c", "c", "c"])
    weight = math.log(1 + (3 - 1 + 0.5) / 1.5)
    damping = 1.2 * (0.25 + 0.75 * 3 / 2)
    assert score_words(counts, ["c", "q"], found, length) == pytest.approx(
        weight * 3 * 2.2 / (3 + damping)
    )
    assert counts.weight("a") < counts.weight("c")
