"""Keys of objects: what is allowed, and the names they have in the file system."""

from __future__ import annotations

import os
import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.storaged.core.keys import (
    MAX_KEY_BYTES,
    MAX_NAME_BYTES,
    check_key,
    name_path,
    name_segment,
    parse_name,
    parse_raw_path,
)
from shared.errors import Invalid

MOUNT = b"/storage/objects/"

# Text of all sorts, with what is special in names and addresses made frequent.
ODD = st.sampled_from("~_.-/%= +?#&@:\\'\"éÉßæ日本\u0301\u00a0\u2028\U0001f600AaZz09")
SEGMENTS = st.text(
    ODD.filter(lambda c: c != "/")
    | st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/"),
    min_size=1,
    max_size=40,
).filter(lambda segment: segment not in (".", ".."))
KEYS = (
    st.lists(SEGMENTS, min_size=1, max_size=6)
    .map("/".join)
    .filter(lambda key: len(key.encode()) <= MAX_KEY_BYTES)
)


@given(KEYS)
def test_every_key_maps_to_names_and_back(key: str) -> None:
    check_key(key)
    names = name_path(key)
    parsed = [parse_name(name) for name in names]
    assert [one.segment for one in parsed if one] == key.split("/")
    assert [one.is_directory for one in parsed if one] == [True] * (len(names) - 1) + [False]


@given(KEYS)
def test_names_are_safe_for_file_systems_and_addresses(key: str) -> None:
    for name in name_path(key):
        assert re.fullmatch(r"[A-Za-z0-9._~-]+", name)
        assert name not in (".", "..")
        assert len(name) <= 255


@given(KEYS, KEYS)
def test_different_keys_have_different_paths(one: str, other: str) -> None:
    assert (name_path(one) == name_path(other)) == (one == other)


@given(KEYS)
def test_a_key_survives_its_way_through_a_request_path(key: str) -> None:
    for safe in ("", "/"):
        assert parse_raw_path(MOUNT + quote(key, safe=safe).encode(), MOUNT) == key


@given(st.text(st.sampled_from("~_.-aA09%=CF"), min_size=1, max_size=12))
def test_a_name_that_parses_is_the_one_name_of_its_segment(name: str) -> None:
    parsed = parse_name(name)
    if parsed is not None:
        assert name_segment(parsed.segment) + "~" * parsed.is_directory == name


def test_an_object_and_a_folder_of_the_same_name_do_not_meet() -> None:
    assert name_path("a") == ("a",)
    assert name_path("a/b") == ("a~", "b")
    assert name_path("a~") == ("a~7E",)


def test_names_stay_readable_and_keep_their_extension() -> None:
    key = "datasets/0b5e/3f9a-0.parquet"
    assert name_path(key) == ("datasets~", "0b5e~", "3f9a-0.parquet")
    assert name_segment("dt=2024-01-01") == "dt~3D2024-01-01"
    long = "応募者一覧" * 11 + ".csv"
    assert name_segment(long).endswith(".csv")
    assert len(name_segment(long)) <= MAX_NAME_BYTES
    assert parse_name(name_segment(long)) == (long, False)


def test_case_and_unicode_forms_are_told_apart() -> None:
    keys = ["cafe\u0301", "caf\u00e9", "CAFE\u0301", "Caf\u00e9"]
    assert len({name_path(key) for key in keys}) == 4


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "empty"),
        ("/a", "slash"),
        ("a/", "slash"),
        ("a//b", "slash"),
        (".", "'.'"),
        ("a/./b", "'.'"),
        ("..", "'.'"),
        ("a/../b", "'.'"),
        ("a\x00b", "control"),
        ("a\nb", "control"),
        ("a\x7fb", "control"),
        ("a\x85b", "control"),
        ("a\ud800", "surrogate"),
        ("k" * 2000, "2000 bytes"),
        ("é" * 513, "1026 bytes"),
        ("a/" + "n" * 255, "too long for a file name"),
        ("日" * 86, "too long for a file name"),
    ],
)
def test_bad_keys_are_refused_with_the_reason(key: str, reason: str) -> None:
    with pytest.raises(Invalid, match=re.escape(reason)):
        check_key(key)


@pytest.mark.parametrize("key", ["k/" * 511 + "kk", "n" * 254, "日" * 60, "...", ".a", "a..b", "~"])
def test_keys_at_the_limits_are_allowed(key: str) -> None:
    check_key(key)
    longest = sum(len(name) + 1 for name in name_path(key))
    assert longest < 4096 - 900, "the path must fit beneath a data directory"


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (b"a%2Fb", "a/b"),
        (b"a%2fb", "a/b"),
        (b"a+b", "a+b"),
        (b"a%20b", "a b"),
        (b"a b", "a b"),
        (b"%252e%252e", "%2e%2e"),
        (b"caf%C3%A9", "café"),
        (b"a%3Fb%23c", "a?b#c"),
        (b"a;b=c", "a;b=c"),
    ],
)
def test_paths_are_percent_decoded_exactly_once(raw: bytes, key: str) -> None:
    assert parse_raw_path(MOUNT + raw, MOUNT) == key


@pytest.mark.parametrize(
    "raw",
    [b"", b"%2e%2e", b"a/%2E%2e/b", b"%2E", b"a%2F%2Fb", b"%2Fa", b"%00", b"%0A", b"%C0%AF", b"%FF",
     b"%", b"a%2", b"a%zz", b"%ED%A0%80", b"a/"],
)  # fmt: skip
def test_paths_without_an_allowed_key_are_refused(raw: bytes) -> None:
    with pytest.raises(Invalid):
        parse_raw_path(MOUNT + raw, MOUNT)


def test_an_encoded_mount_is_refused() -> None:
    with pytest.raises(Invalid, match="literally"):
        parse_raw_path(b"/storage%2Fobjects/a", MOUNT)


@pytest.mark.parametrize(
    "name",
    [".", "..", "a b", "a%41", "~", "a~4", "a~4z", "~2E~", "~41", "a~7e", "~_", "~_!!", "~_YQ",
     "é", "a~FF", "n" * 255, "~C3", "a/b", ""],
)  # fmt: skip
def test_foreign_names_stand_for_nothing(name: str) -> None:
    assert parse_name(name) is None


def test_a_backend_path_stays_inside_its_root() -> None:
    """No allowed key can leave the folder it is put under, whatever it holds."""
    for key in ("..%2f..%2fetc", "a\\..\\b", "~", "~/x", "C:/x", "a:b", "...", "-rf"):
        check_key(key)
        path = os.path.normpath(os.path.join("/root/objects", *name_path(key)))
        assert path.startswith("/root/objects/")
