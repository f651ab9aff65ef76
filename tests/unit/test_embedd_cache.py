"""The cache in memory, its keys, and the bytes of vectors."""

from __future__ import annotations

import math
import os
import struct
import tracemalloc

import pytest

from services.embedd.core.keys import KEY_BYTES, KeyMaker
from services.embedd.core.lru import OVERHEAD, Entry, VectorCache
from services.embedd.core.texts import share_tokens
from services.embedd.core.vectors import check_widths, pack_vector


def entry(size: int = 16) -> Entry:
    return Entry(os.urandom(size), 5, False)


def test_the_longest_unused_goes_first() -> None:
    cache = VectorCache(3 * (16 + OVERHEAD))
    for key in (b"a", b"b", b"c"):
        cache.put(key, entry())
    assert cache.get(b"a") is not None
    cache.put(b"d", entry())
    assert [key for key in (b"a", b"b", b"c", b"d") if cache.get(key)] == [b"a", b"c", b"d"]
    assert cache.bytes == 3 * (16 + OVERHEAD)
    assert cache.evictions == 1


def test_replacing_counts_once_and_large_ones_make_room() -> None:
    cache = VectorCache(4 * (16 + OVERHEAD))
    cache.put(b"a", entry())
    cache.put(b"a", entry())
    assert cache.bytes == 16 + OVERHEAD
    cache.put(b"b", entry())
    cache.put(b"c", entry(3 * (16 + OVERHEAD) - OVERHEAD))
    assert cache.get(b"a") is None
    assert cache.bytes <= cache.max_bytes


def test_what_can_never_fit_is_not_kept() -> None:
    cache = VectorCache(0)
    cache.put(b"a", entry())
    assert len(cache) == 0
    assert cache.bytes == 0


def test_counted_bytes_are_not_less_than_what_python_holds() -> None:
    count, size = 4000, 1536
    cache = VectorCache(1 << 30)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(count):
        cache.put(number.to_bytes(KEY_BYTES, "little"), Entry(bytes(size), 300 + number, False))
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.7 * cache.bytes < held <= cache.bytes


def test_keys_tell_everything_apart_that_changes_a_vector() -> None:
    recipes = [
        ("local", "sha", "recipe"),
        ("local", "sha2", "recipe"),
        ("locals", "ha", "recipe"),
        ("local", "sha", "recipe", "64"),
        ("local", "sharecipe"),
    ]
    keys = {KeyMaker(recipe).key(text) for recipe in recipes for text in ("a", "b", "", "A", "a ")}
    assert len(keys) == len(recipes) * 5
    maker = KeyMaker(recipes[0])
    assert maker.key("a") == maker.key("a") == KeyMaker(list(recipes[0])).key("a")
    assert len(maker.key("a")) == KEY_BYTES


def test_vectors_are_little_endian_float32_and_finite() -> None:
    assert pack_vector([1.0, -0.5]) == struct.pack("<2f", 1.0, -0.5)
    for bad in ([], [1.0, math.nan], [math.inf], [1e300]):
        with pytest.raises((ValueError, OverflowError)):
            pack_vector(bad)


def test_widths_must_agree() -> None:
    check_widths([bytes(8), bytes(8)])
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        check_widths([bytes(8), bytes(12)])


@pytest.mark.parametrize("total", [0, 1, 7, 1000])
def test_tokens_of_a_batch_are_shared_out_exactly(total: int) -> None:
    shares = share_tokens(total, ["a", "bb" * 50, "", "c" * 10])
    assert sum(shares) == total
    assert total < 1000 or shares[1] > 800 > 200 > shares[3] > shares[0] > 0
