"""Listings of a bucket come in byte order, whatever order its server has them in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.storaged.core.listing import ListQuery, after_prefix, select_page
from services.storaged.store.s3_versions import OurKeys
from services.storaged.store.s3_walk import FlatWalk, FolderWalk, OutOfOrder, precede

BASE = "p/"
WHEN = datetime(2026, 1, 31, tzinfo=UTC)


class Bucket:
    """A server's listing: `by_folder` as SeaweedFS has it, else as AWS."""

    def __init__(self, keys: list[str], *, by_folder: bool, page: int) -> None:
        self.by_folder = by_folder
        self.page = page
        self.calls = 0
        self.keys = [BASE + key for key in keys]

    def list_page(self, **asked: Any) -> dict[str, Any]:
        self.calls += 1
        prefix, delimiter = asked["Prefix"], asked.get("Delimiter", "")
        after = asked.get("ContinuationToken") or asked.get("StartAfter", "")
        entries: set[str] = set()
        folded: set[str] = set()
        for key in self.keys:
            if key.startswith(prefix):
                cut = key.find(delimiter, len(prefix)) if delimiter else -1
                entries.add(key if cut < 0 else key[: cut + 1])
                folded |= {key[: cut + 1]} if cut >= 0 else set()
        if self.by_folder:
            # A folder and a key of its name are next to each other, the key first.
            order = sorted(entries, key=lambda one: (one.rstrip("/"), one.endswith("/")))
            left = [one for one in order if self._follows(one, after)]
        else:
            order = sorted(entries)
            left = [one for one in order if one > after]
        shown = left[: asked.get("MaxKeys", self.page)]
        more = len(left) > len(shown)
        return {
            "Contents": [
                {"Key": one, "ETag": '"e"', "Size": 1, "LastModified": WHEN}
                for one in shown
                if one not in folded
            ],
            "CommonPrefixes": [{"Prefix": one} for one in shown if one in folded],
            "IsTruncated": more,
            "NextContinuationToken": shown[-1] if more else "",
        }

    def _follows(self, one: str, after: str) -> bool:
        return (one.rstrip("/"), one.endswith("/")) > (after.rstrip("/"), after.endswith("/"))


SEGMENT = st.text(alphabet="ab-.0é\U0001f600", min_size=1, max_size=3).filter(
    lambda text: text not in (".", "..")
)
KEYS = st.lists(st.lists(SEGMENT, min_size=1, max_size=3).map("/".join), max_size=24, unique=True)


def list_all(
    bucket: Bucket, prefix: str, delimiter: str, limit: int
) -> tuple[list[str], list[str]]:
    keys: list[str] = []
    prefixes: list[str] = []
    start: str | None = prefix
    kind = FolderWalk if bucket.by_folder else FlatWalk
    while start is not None:
        query = ListQuery(prefix, delimiter, limit, start)
        walk = kind(bucket.list_page, BASE, prefix, start, delimiter)
        page = select_page(query, OurKeys(walk))
        assert len(page.keys) + len(page.prefixes) <= limit
        assert all(key in walk.found for key in page.keys)
        keys += page.keys
        prefixes += page.prefixes
        start = page.next_start
    return keys, prefixes


@given(
    keys=KEYS,
    prefix=st.sampled_from(["", "a", "a/", "a-", "b/a", "é"]),
    delimiter=st.sampled_from(["", "/", "-"]),
    limit=st.integers(1, 7),
    page=st.integers(1, 5),
    by_folder=st.booleans(),
)
def test_pages_hold_every_key_once_and_in_order(
    keys: list[str], prefix: str, delimiter: str, limit: int, page: int, by_folder: bool
) -> None:
    bucket = Bucket(keys, by_folder=by_folder, page=page)
    expected: list[str] = []
    folded: list[str] = []
    for key in sorted(keys):
        if key.startswith(prefix):
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            if cut < 0:
                expected.append(key)
            elif key[: cut + len(delimiter)] not in folded:
                folded.append(key[: cut + len(delimiter)])
    assert list_all(bucket, prefix, delimiter, limit) == (expected, folded)


def test_a_flat_walk_notices_a_server_with_another_order() -> None:
    def list_page(**_: Any) -> dict[str, Any]:
        found = [
            {"Key": key, "ETag": '"e"', "Size": 1, "LastModified": WHEN}
            for key in ("p/a/1", "p/a-1")
        ]
        return {"Contents": found, "IsTruncated": False}

    with pytest.raises(OutOfOrder):
        list(FlatWalk(list_page, BASE, "", "", ""))


def test_a_page_of_a_large_folder_costs_few_calls() -> None:
    keys = [f"uploads/f-{number:05}.parquet" for number in range(5000)]
    for by_folder in (False, True):
        bucket = Bucket(keys, by_folder=by_folder, page=1000)
        kind = FolderWalk if by_folder else FlatWalk
        start = "uploads/f-03000.parquet"
        walk = kind(bucket.list_page, BASE, "uploads/", start, "")
        page = select_page(ListQuery("uploads/", "", 100, start), OurKeys(walk))
        assert page.keys == keys[3000:3100]
        assert bucket.calls <= 4


@given(st.text(alphabet="a/\ud7ff\ue000\U0010ffff ", min_size=1, max_size=4))
def test_what_precedes_a_name_is_before_it(name: str) -> None:
    assert precede(name) < name
    assert after_prefix(name) > name
    precede(name).encode("utf-8")
