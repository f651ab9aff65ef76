"""The census: counted by vectors what a loop over single bytes counts, at any block size."""

from __future__ import annotations

import random
import re

import pytest

from services.ingestd.core.census import Census, Counts

WELL_FORMED = re.compile(rb'(?:(?:"(?:[^"]|"")*"|[^",\r\n]*)(?:,|\r?\n|\Z))*')


def count(data: bytes, block: int = 1 << 20, quote: bytes = b'"') -> Counts:
    census = Census(b",", quote)
    for start in range(0, len(data), block):
        census.feed(data[start : start + block])
    return census.finish()


def count_slowly(data: bytes) -> tuple[int, int, int, int, int, bool]:
    """Records, blanks, line ends, CRLFs, returns, whether the end is within quotes."""
    records = blanks = ends = crlf = returns = 0
    inside = False
    record = b""
    for position in range(len(data)):
        byte = data[position : position + 1]
        inside ^= byte == b'"'
        if byte == b"\n" and not inside:
            ends += 1
            crlf += record.endswith(b"\r")
            blanks += record in (b"", b"\r")
            records += record not in (b"", b"\r")
            record = b""
            continue
        returns += byte == b"\r" and not inside
        record += byte
    return records + bool(record), blanks, ends, crlf, returns, inside


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1 << 20])
def test_counts_are_those_of_a_slow_loop(block: int) -> None:
    chance = random.Random(block)
    for _ in range(1500):
        data = bytes(chance.choice(b'ab,"\n\r,"\n') for _ in range(chance.randrange(1, 25)))
        found = count(data, block)
        assert (
            found.records,
            found.blanks,
            found.line_ends,
            found.crlf,
            found.returns,
            found.open_quote,
        ) == count_slowly(data), data
        if found.returns == found.crlf and not found.open_quote:
            assert (found.stray_quotes == 0) == bool(WELL_FORMED.fullmatch(data)), data


def test_a_regular_file() -> None:
    found = count(b'a,b\n1,"x ""y"""\n2,\n')
    assert found.records == 3
    assert found.longest == 11
    assert found.is_regular
    assert not found.quoted_empties


@pytest.mark.parametrize("block", [1, 5, 1 << 20])
@pytest.mark.parametrize(
    "data",
    [
        b'a,b\n1,5" pipe\n',
        b'a,b\n1,"x"y\n',
        b'a,b\n1,"x" \n',
        b'a,b\n1,"x\n',
        b"a,b\n1,x\r\n2,y\n",
        b"a,b\n1,x\ry\n",
        b"a,b\n1,\xff\n",
        b"a,b\n1,\xc3",
        b'a,b\n1,"' + b"x\n" * 5 + b'"\n',
    ],
)
def test_what_a_plain_reader_may_misread_is_irregular(data: bytes, block: int) -> None:
    assert not count(data, block).is_regular


@pytest.mark.parametrize("block", [1, 3, 1 << 20])
def test_text_cut_by_a_block_is_still_text(block: int) -> None:
    assert count("a,b\n1,é€😀\n".encode(), block).is_utf8


def test_line_ends_within_quotes_are_counted_by_field() -> None:
    assert count(b'"x\ny",1\n"p\nq\nr",2\n').quoted_lines == 2
    assert count(b'"x\ny",1\n"p\nq\nr",2\n', 1).quoted_lines == 2


def test_quoted_empties_are_noticed() -> None:
    assert count(b'a,b\n"",1\n').quoted_empties
    assert count(b'a,b\n1,""\n').quoted_empties
    assert not count(b'a,b\n1,""""\n').quoted_empties
    assert not count(b'a,b\n1,"x"""\n').quoted_empties


def test_without_quotes_every_line_end_counts() -> None:
    assert count(b'a\n"x\ny"\n', quote=b"").records == 3


def test_nuls_are_counted() -> None:
    assert count(b"a\0b\n\0\n", 2).nuls == 2
