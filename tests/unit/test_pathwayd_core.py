"""pathwayd's decisions: content, words, versions, chains, scores, memories."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pathwayd.core.content import check_json, digest_of, encode_content, search_text
from services.pathwayd.core.fields import read_filter
from services.pathwayd.core.memories import check_owned, read_expiration, resolve_field
from services.pathwayd.core.records import (
    Key,
    Retire,
    Vector,
    Vectors,
    Write,
    decode_change,
    encode_change,
)
from services.pathwayd.core.scoring import combine, squash
from services.pathwayd.core.state import State
from services.pathwayd.core.traces import Trace, format_time, read_if_match, walk_back
from services.pathwayd.core.words import split_words
from shared.bm25 import weigh_word
from shared.errors import Invalid
from shared.filters.language import Any as AnyOf
from shared.filters.language import Compare, holds, parse_filter
from shared.journal.record import encode_payload

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), inner, max_size=4)
    ),
    max_leaves=12,
)


def make_write(name: str = "a", **more: Any) -> Write:
    fields: dict[str, Any] = {
        "at": 5,
        "surface": "pathway",
        "version": 1,
        "content": b'{"n":1}',
        "digest": digest_of({"n": 1}),
        "tags": ("x",),
        "text": None,
        "created": 5,
        "supersedes": None,
        **more,
    }
    return Write(id=name, **fields)


@given(JSON.filter(lambda value: value is not None))
def test_content_comes_back_from_the_log_as_it_was(content: Any) -> None:
    check_json(content, "content")
    blob = encode_content(content, 1 << 20)
    change = make_write(content=blob, digest=digest_of(content))
    line = encode_payload(encode_change(change), 1 << 20)
    assert decode_change(orjson.loads(line)) == change


@pytest.mark.parametrize(
    "change",
    [
        make_write(key=Key("k", "d"), text="t", vector=Vector("m", b"\0\0\x80?")),
        make_write(version=3, created=2, supersedes="b", surface="mem0"),
        Retire(("a", "b"), 9, "why"),
        Retire(("a",), 9),
        Vectors("m", 2, (("a", 1), ("b", 2)), b"\0" * 16),
    ],
)
def test_changes_survive_their_records(change: Any) -> None:
    assert decode_change(orjson.loads(encode_payload(encode_change(change), 9999))) == change


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"op": "magic"},
        {"op": "add", "id": "a"},
        {"op": "retire", "ids": 3, "at": 1},
        {"op": "vectors", "model": "m", "dim": 2, "of": [["a", 1]], "data": "AAAA"},
        {**encode_change(make_write()), "content": 1, "version": 0, "op": "update"},
        {**encode_change(make_write()), "content": 1, "surface": "moon"},
    ],
)
def test_records_of_no_known_kind_are_told_apart(payload: dict[str, Any]) -> None:
    with pytest.raises((KeyError, ValueError, TypeError)):
        decode_change(payload)


def test_the_digest_does_not_see_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": {"c": 2, "d": 3}}) == digest_of({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": True})
    assert digest_of([1, 2]) != digest_of([2, 1])


def test_what_is_searched() -> None:
    content = {"task": "weld", "pay": 35, "ok": True, "deep": [{"x": "pipe"}], "none": None}
    assert search_text(content, None, 100) == "weld\npay 35\nok yes\npipe"
    assert search_text(content, "own", 100) == "own"
    assert search_text(content, None, 6) == "weld\np"
    assert search_text("just text", None, 100) == "just text"


def test_words() -> None:
    assert split_words("Crème-brûlée (No.7), STRASSE straße!") == [
        "creme",
        "brulee",
        "no",
        "7",
        "strasse",
        "strasse",
    ]
    assert split_words("x" * 65 + " y_z") == ["y", "z"]


@given(st.text())
def test_any_if_match_is_read_or_refused(header: str) -> None:
    with contextlib.suppress(Invalid):
        assert all(version >= 0 for version in read_if_match(header, 3))


def test_an_if_match_of_thousands_of_digits_is_refused() -> None:
    with pytest.raises(Invalid, match="ETag"):
        read_if_match(f'"{"9" * 5000}"', 3)


def test_applying_a_record_twice_changes_nothing() -> None:
    state = State(10)
    records: list[tuple[int, Any]] = [
        (1, make_write("a", key=Key("k", "d"))),
        (2, make_write("a", version=2, at=6)),
        (3, make_write("b", supersedes="a", at=7)),
        (4, Retire(("b",), 8, "why")),
    ]

    def play() -> None:
        for seq, change in records:
            state.retire(seq, change) if isinstance(change, Retire) else state.write(seq, change)

    play()
    before = dict(state.traces), list(state.order), dict(state.counts)
    play()
    assert (dict(state.traces), list(state.order), dict(state.counts)) == before
    assert state.counts == {"live": 0, "superseded": 1, "retired": 1}
    assert state.traces["a"].seqs == (1, 2)
    assert state.find_content(digest_of({"n": 1})) is None


def test_a_content_is_found_while_any_trace_has_it() -> None:
    state, digest = State(1), digest_of({"n": 1})
    for seq, name in enumerate("abc", start=1):
        state.write(seq, make_write(name))
    for seq, (gone, left) in enumerate([("a", "b"), ("c", "b"), ("b", None)], start=4):
        state.retire(seq, Retire((gone,), 1))
        found = state.find_content(digest)
        assert (found.id if found else None) == left


def test_keys_are_forgotten_oldest_first() -> None:
    state = State(2)
    for n in range(3):
        state.remember(Key(f"k{n}", "d"), "a")
    assert list(state.keys) == ["k1", "k2"]


def test_walking_back_ends_whatever_the_data() -> None:
    state = State(1)
    for seq, (name, before) in enumerate([("a", None), ("b", "a"), ("c", "b")], start=1):
        state.write(seq, make_write(name, supersedes=before))
    assert walk_back("c", state.get) == (["c", "b", "a"], None)
    looped: Trace = state.traces["a"]._replace(supersedes="c")
    state.traces["a"] = looped
    assert walk_back("b", state.get) == (["b", "a", "c"], "b")
    del state.traces["a"]
    assert walk_back("c", state.get) == (["c", "b"], "a")


def test_scores_lie_between_nothing_and_one() -> None:
    assert weigh_word(10, 0) > weigh_word(10, 3) > weigh_word(10, 10) > 0
    assert squash(0, 2) == 0 == squash(1, 0)
    assert squash(2, 2) == pytest.approx(math.tanh(1))
    assert combine(0.5, 0.5, 0.7) == pytest.approx(0.5)
    assert combine(-0.5, None, 0.7) == 0
    assert combine(None, 1.0, 0.7) == pytest.approx(0.3)
    assert combine(None, 0.8, 0.0) == pytest.approx(0.8)


def test_times_sort_as_texts() -> None:
    assert format_time(0) == "1970-01-01T00:00:00.000000Z"
    assert format_time(1_700_000_000_000_001) == "2023-11-14T22:13:20.000001Z"
    assert format_time(999_999) < format_time(1_000_000)


def test_a_day_ends_with_itself() -> None:
    assert read_expiration("1970-01-01") == 86_400_000_000
    assert read_expiration("1970-01-01T01:00:00+01:00") == 0
    assert read_expiration("1970-01-01T00:00:01") == 1_000_000
    for wrong in ("", "tomorrow", "2026-13-01", "99999-01-01"):
        with pytest.raises(Invalid, match="expiration_date"):
            read_expiration(wrong)
    assert read_expiration("9999-12-31") > read_expiration("9999-12-30")


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({"gte": "2026-11-23T10:00:00Z"}, True),
        ({"gt": "2026-11-23T10:00:00.5Z"}, False),
        ({"lte": "2026-11-23T10:00:00.5+00:00"}, True),
        ({"gte": "2026-11-23T12:00:00+02:00"}, True),
        ({"lt": "2026-11-23T12:00:00+02:00"}, False),
        ({"lt": "2026-11-23T06:00:00-05:00"}, True),
        ({"gte": "2026-11-23"}, True),
        ({"lt": "2026-11-23"}, False),
        ({"gt": "0999-01-01"}, True),
        ({"in": ["2026-11-23T11:00:00.5+01:00"]}, True),
        ({"contains": "11-23"}, True),
        ({"exists": True}, True),
    ],
)
def test_times_are_compared_as_instants(asked: dict[str, Any], kept: bool) -> None:
    made = 1_795_428_000_500_000
    assert format_time(made) == "2026-11-23T10:00:00.500000Z"
    found = read_filter({"or": [{"created_at": asked}]}, resolve_field)
    assert isinstance(found, AnyOf)
    (compare,) = found.parts
    assert isinstance(compare, Compare)
    assert holds(format_time(made), compare) is kept
    assert read_filter({"not": {"content.created_at": "x"}}, resolve_field)


@pytest.mark.parametrize("wrong", ["soon", 5, "2026-13-01", "0001-01-01T00:00:00+14:00", ""])
def test_what_is_no_time_is_refused(wrong: object) -> None:
    with pytest.raises(Invalid, match="updated_at"):
        read_filter({"updated_at": {"gte": wrong}}, resolve_field)


@pytest.mark.parametrize(
    ("filters", "owned"),
    [
        ({"user_id": "a"}, True),
        ({"AND": [{"city": "b"}, {"run_id": {"in": ["a"]}}]}, True),
        ({"OR": [{"user_id": "a"}, {"agent_id": "*"}]}, True),
        ({"OR": [{"user_id": "a"}, {"city": "b"}]}, False),
        ({"NOT": [{"user_id": "a"}]}, False),
        ({"user_id": {"nin": ["a"]}}, False),
        ({"user_id": {"exists": False}}, False),
        ({"metadata.user_id": "a"}, False),
        ({}, False),
    ],
)
def test_whose_memories_a_filter_keeps(filters: dict[str, Any], owned: bool) -> None:
    parsed = parse_filter(filters, resolve_field, wildcard=True)
    if owned:
        assert check_owned(parsed) is None
    else:
        with pytest.raises(Invalid, match="user_id"):
            check_owned(parsed)
