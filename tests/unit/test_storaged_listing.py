"""Listings: order, roll-up, limits and cursors, against a plain model."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.storaged.core.listing import (
    KeyPage,
    after_prefix,
    encode_cursor,
    parse_query,
    select_page,
)
from shared.errors import Invalid

KEYS = st.sets(st.text("ab/-.0é\U0010ffff", min_size=1, max_size=8), max_size=40)


def list_all(
    keys: set[str], prefix: str, delimiter: str | None, limit: int
) -> tuple[list[str], list[str], int]:
    """All pages put together: keys, prefixes, number of pages."""
    found: list[str] = []
    rolled: list[str] = []
    cursor: str | None = None
    pages = 0
    while True:
        query = parse_query(prefix, delimiter, limit, cursor)
        page = select_page(query, ModelWalk(keys, prefix, query.start))
        assert len(page.keys) + len(page.prefixes) <= limit
        found += page.keys
        rolled += page.prefixes
        pages += 1
        if page.next_start is None:
            return found, rolled, pages
        cursor = encode_cursor(query, page.next_start)


class ModelWalk:
    """A walk over a plain set."""

    def __init__(self, keys: set[str], prefix: str, start: str) -> None:
        self.keys = sorted(key for key in keys if key.startswith(prefix) and key >= start)
        self.seeks: list[str] = []

    def __iter__(self) -> Iterator[str]:
        while self.keys:
            yield self.keys.pop(0)

    def seek(self, start: str) -> None:
        self.seeks.append(start)
        self.keys = [key for key in self.keys if key >= start]


@given(KEYS, st.text("ab/é", max_size=3), st.sampled_from([None, "/", "-", "a", "é"]),
       st.integers(1, 7))  # fmt: skip
def test_pages_are_what_a_plain_model_says(
    keys: set[str], prefix: str, delimiter: str | None, limit: int
) -> None:
    found, rolled, _ = list_all(keys, prefix, delimiter, limit)
    plain: list[str] = []
    groups: list[str] = []
    for key in sorted(keys, key=str.encode):
        if not key.startswith(prefix):
            continue
        head, mark, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
        if mark:
            groups.append(prefix + head + mark)
        else:
            plain.append(key)
    assert found == plain
    assert rolled == sorted(set(groups), key=str.encode)


def test_order_is_that_of_utf8_bytes() -> None:
    keys = {"z", "Z", "é", "\U0001f600", "\uff5e", "a/b", "a!", "a0", "a"}
    found, _, _ = list_all(keys, "", None, 1000)
    assert found == sorted(keys, key=str.encode)
    assert found[:4] == ["Z", "a", "a!", "a/b"]


def test_a_rolled_up_prefix_costs_one_seek() -> None:
    keys = {f"{folder}/{n}" for folder in "abc" for n in range(100)}
    walk = ModelWalk(keys, "", "")
    page = select_page(parse_query("", "/", 10, None), walk)
    assert page == KeyPage([], ["a/", "b/", "c/"], None)
    assert walk.seeks == ["a0", "b0", "c0"]


@given(st.text(min_size=1, max_size=5), st.text(max_size=3))
def test_after_prefix_is_past_all_that_begin_with_it(prefix: str, more: str) -> None:
    past = after_prefix(prefix)
    assert past > prefix + more
    if past.startswith(prefix):
        assert set(prefix) == {"\U0010ffff"}


def test_a_full_page_that_is_the_last_has_no_cursor() -> None:
    assert list_all({"a", "b"}, "", None, 2)[2] == 1
    assert list_all({"a", "b", "c"}, "", None, 2)[2] == 2


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_limits_are_1_to_1000(limit: int) -> None:
    with pytest.raises(Invalid, match="limit"):
        parse_query("", None, limit, None)


@pytest.mark.parametrize("delimiter", ["", "x" * 17])
def test_a_delimiter_is_1_to_16_characters(delimiter: str) -> None:
    with pytest.raises(Invalid, match="delimiter"):
        parse_query("", delimiter, 10, None)


def test_a_prefix_longer_than_any_key_is_refused() -> None:
    with pytest.raises(Invalid, match="prefix"):
        parse_query("p" * 1025, None, 10, None)


def test_every_damaged_cursor_is_refused() -> None:
    query = parse_query("a/", "/", 10, None)
    cursor = encode_cursor(query, "a/b/c")
    assert parse_query("a/", "/", 10, cursor).start == "a/b/c"
    for index in range(len(cursor)):
        other = "A" if cursor[index] != "A" else "B"
        # The bits that pad the last character say nothing.
        if index < len(cursor) - 1:
            with pytest.raises(Invalid, match="damaged"):
                parse_query("a/", "/", 10, cursor[:index] + other + cursor[index + 1 :])
    for damaged in ("", "x", "é", "!!", cursor[:-3], cursor * 2, base64.b64encode(b"{}").decode()):
        with pytest.raises(Invalid, match="damaged"):
            parse_query("a/", "/", 10, damaged)


@pytest.mark.parametrize(("prefix", "delimiter"), [("b/", "/"), ("a/", None), ("a/", "-")])
def test_a_cursor_continues_its_own_listing_only(prefix: str, delimiter: str | None) -> None:
    cursor = encode_cursor(parse_query("a/", "/", 10, None), "a/b")
    with pytest.raises(Invalid, match="another"):
        parse_query(prefix, delimiter, 10, cursor)
