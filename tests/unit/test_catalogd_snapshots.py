"""catalogd's decisions about snapshots and ingest ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.catalogd.core.ingests import derive_ingest_id, digest_write, is_same_replace
from services.catalogd.core.snapshots import (
    At,
    Known,
    choose_expired,
    choose_snapshot,
    format_time,
    parse_reference,
)
from shared.errors import Invalid, NotFound

HISTORY = [Known(11, 1_000), Known(12, 2_000), Known(13, 3_000)]
# Snapshot 5 has a tag; those between it and 11 are expired.
TAGGED = [Known(5, 10), Known(11, 1_000, gap=True), Known(12, 2_000)]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("123", 123),
        (" 9223372036854775807 ", 9223372036854775807),
        ("1970-01-01T00:00:01Z", At(1_000)),
        ("1970-01-01T00:00:01.234Z", At(1_234)),
        ("1970-01-01T01:00:01+01:00", At(1_000)),
        ("1970-01-01T01:00:01 01:00", At(1_000)),
        ("1970-01-01 00:00:01Z", At(1_000)),
        ("1970-01-01t00:00:01z", At(1_000)),
        ("0001-01-01T00:00:00+14:00", At(-62_135_647_200_000)),
    ],
)
def test_references_that_are_understood(text: str, meant: int | At) -> None:
    assert parse_reference(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x y",
        "-1",
        "1.5",
        "٣",
        "12345678901234567890",
        "2026-01-31",
        "2026-13-01T00:00:00Z",
        "1st",
    ],
)
def test_references_that_are_not(text: str) -> None:
    with pytest.raises(Invalid, match="neither a snapshot id nor a tag nor an RFC 3339 time"):
        parse_reference(text)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(Invalid, match="zone"):
        parse_reference("2026-01-31T12:00:00")


@given(st.integers(0, 4_102_444_800_000))
def test_a_snapshots_own_time_finds_it_again(ms: int) -> None:
    assert parse_reference(format_time(ms)) == At(ms)


@pytest.mark.parametrize(
    ("reference", "chosen"),
    [(12, 12), (At(1_000), 11), (At(1_999), 11), (At(2_000), 12), (At(99_999), 13)],
)
def test_snapshot_by_id_and_by_time(reference: int | At, chosen: int) -> None:
    assert choose_snapshot("t", reference, {11, 12, 13}, HISTORY, {}) == chosen


@pytest.mark.parametrize("reference", [7, At(999), At(-62_135_647_200_000)])
def test_a_snapshot_that_is_not_kept_names_the_oldest(reference: int | At) -> None:
    with pytest.raises(NotFound) as caught:
        choose_snapshot("t", reference, {11, 12, 13}, HISTORY, {})
    assert caught.value.details["oldest_snapshot_id"] == "11"
    assert caught.value.details["oldest_time"] == "1970-01-01T00:00:01.000Z"
    assert "11" in caught.value.message


def test_a_moment_before_a_gap_is_not_answered_by_the_tagged_snapshot_before_it() -> None:
    with pytest.raises(NotFound) as caught:
        choose_snapshot("t", At(500), {5, 11, 12}, TAGGED, {})
    assert caught.value.details["oldest_snapshot_id"] == "11"
    assert choose_snapshot("t", 5, {5, 11, 12}, TAGGED, {}) == 5
    assert choose_snapshot("t", At(1_500), {5, 11, 12}, TAGGED, {}) == 11


def test_a_dataset_without_snapshots_says_so() -> None:
    with pytest.raises(NotFound, match="no snapshots yet"):
        choose_snapshot("t", At(5), set(), [], {})


@given(st.lists(st.integers(), unique=True, max_size=30), st.integers(1, 10), st.data())
def test_expiry_keeps_the_newest_and_what_a_ref_names(
    snapshots: list[int], keep: int, data: st.DataObject
) -> None:
    protected = set(data.draw(st.lists(st.sampled_from(snapshots)))) if snapshots else set()
    expired = choose_expired(snapshots, protected, keep)
    stay = [snapshot for snapshot in snapshots if snapshot not in expired]
    assert set(stay) == set(snapshots[-keep:]) | protected
    assert expired == [snapshot for snapshot in snapshots if snapshot in set(expired)]


def test_a_write_is_known_by_dataset_mode_and_objects() -> None:
    one = digest_write("u", "append", [("a", "1"), ("b", "2")])
    assert one == digest_write("u", "append", [("b", "2"), ("a", "1")])
    others = [
        digest_write("v", "append", [("a", "1"), ("b", "2")]),
        digest_write("u", "replace", [("a", "1"), ("b", "2")]),
        digest_write("u", "append", [("a", "1"), ("b", "3")]),
        digest_write("u", "append", [("a", "1")]),
    ]
    assert len({one, *others}) == 5


def test_an_append_is_the_same_whatever_came_after_and_a_replace_is_not() -> None:
    digest = digest_write("u", "append", [("a", "1")])
    assert derive_ingest_id(digest, "append", 1) == derive_ingest_id(digest, "append", 2)
    first, second = (derive_ingest_id(digest, "replace", base) for base in (1, 2))
    assert first != second
    assert is_same_replace(first, digest)
    assert not is_same_replace(first, digest_write("u", "replace", [("b", "1")]))
    assert not is_same_replace("given by the caller", digest)
