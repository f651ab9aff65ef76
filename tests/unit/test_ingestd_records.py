"""The careful reader: every line ends up in a record, a reject or a blank."""

from __future__ import annotations

import csv
import io
import random

import pytest

from services.ingestd.core.fields import Cells, Dialect, split_line, split_plain, write_cells
from services.ingestd.core.records import Kind, Record, RecordReader, RecordTooLong

COMMA = Dialect()
BACKSLASH = Dialect(escape=b"\\")


def read(data: bytes, width: int | None, dialect: Dialect = COMMA, **kw: int) -> list[Record]:
    return list(RecordReader([data], dialect, width, **kw))


def cells_of(record: Record) -> Cells:
    if record.kind is Kind.PLAIN:
        return split_plain(record.raw, b",", b'"')
    assert record.cells is not None
    return record.cells


def kinds(data: bytes, width: int, **kw: int) -> list[tuple[str, int, int]]:
    return [(one.kind.value, one.line, one.span) for one in read(data, width, **kw)]


def test_plain_lines_are_passed_as_they_stand() -> None:
    records = read(b'1,x\n2,"a, ""b"""\r\n', 2)
    assert [one.raw for one in records] == [b"1,x", b'2,"a, ""b"""']
    assert [one.kind for one in records] == [Kind.PLAIN, Kind.PLAIN]


def test_null_and_quoted_empty_differ() -> None:
    assert [cells_of(one) for one in read(b',""\n', 2)] == [[None, b""]]


def test_a_quoted_field_spans_lines() -> None:
    records = read(b'1,"a\nb\n"\n2,c\n', 2)
    assert [(cells_of(one), one.line, one.span) for one in records] == [
        ([b"1", b"a\nb\n"], 1, 3),
        ([b"2", b"c"], 4, 1),
    ]


def test_an_unclosed_quote_costs_one_line() -> None:
    assert kinds(b'1,"x\n2,y\n3,z', 2) == [("reject", 1, 1), ("plain", 2, 1), ("plain", 3, 1)]


def test_an_unclosed_quote_before_another_costs_one_line() -> None:
    assert kinds(b'1,"x\n2,y\n3,"z"\n', 2) == [
        ("reject", 1, 1),
        ("plain", 2, 1),
        ("plain", 3, 1),
    ]


def test_a_spanning_record_of_the_wrong_width_costs_its_first_line() -> None:
    assert kinds(b'1,"x\n2,y",z\n3,w\n', 2) == [
        ("reject", 1, 1),
        ("reject", 2, 1),
        ("plain", 3, 1),
    ]


def test_rows_swallowed_between_stray_quotes_are_rows() -> None:
    data = b'1,"x,y\n2,a,b\n3,a,b\n4,x",z\n'
    assert kinds(data, 3) == [
        ("reject", 1, 1),
        ("plain", 2, 1),
        ("plain", 3, 1),
        ("cells", 4, 1),
    ]


def test_surplus_empty_fields_are_dropped_and_others_are_not() -> None:
    assert [cells_of(one) for one in read(b"1,2,,\n", 2)] == [[b"1", b"2"]]
    assert kinds(b"1,2,,x\n", 2) == [("reject", 1, 1)]


def test_short_rows_are_filled_up_only_when_told() -> None:
    assert kinds(b"1,2\n", 3) == [("reject", 1, 1)]
    assert cells_of(read(b"1,2\n", 3, pad_from=2)[0]) == [b"1", b"2", None]
    assert kinds(b"1\n", 3, pad_from=2) == [("reject", 1, 1)]


def test_quotes_that_are_not_doubled_are_characters() -> None:
    record = read(b'1,"say "hi" to her",x\n', 3)[0]
    assert record.lenient
    assert record.cells == [b"1", b'say "hi" to her', b"x"]


def test_lone_returns_are_line_ends_only_where_that_makes_rows() -> None:
    split = read(b"1,2\r3,4\n", 2)
    assert [(one.cells, one.span) for one in split] == [([b"1", b"2"], 1), ([b"3", b"4"], 0)]
    assert [one.cells for one in read(b"1,2\r3\n", 2)] == [[b"1", b"2\r3"]]


def test_blank_lines_of_one_column_are_null_but_at_the_end() -> None:
    records = read(b"1\n\n2\n\n\n", 1)
    assert [one.kind.value for one in records] == ["plain", "cells", "plain", "blank", "blank"]
    assert [one.line for one in records] == [1, 2, 3, 4, 5]


def test_damaged_text_is_a_reject_when_it_matters() -> None:
    reader = RecordReader([b"1,\xff\n2,x\n"], COMMA, 2, check_text=True)
    assert [(one.kind, one.reason) for one in reader] == [
        (Kind.REJECT, "encoding"),
        (Kind.PLAIN, ""),
    ]


def test_a_line_over_the_limit_ends_the_reading() -> None:
    with pytest.raises(RecordTooLong) as caught:
        list(RecordReader([b"1,2\n", b"x" * 60, b"y" * 60], COMMA, 2, limit=100))
    assert caught.value.line == 2


def test_a_quoted_field_over_the_limit_costs_one_line() -> None:
    data = b'1,"a\n' + b"b,c\n" * 50 + b'd"\n'
    found = list(RecordReader([data], COMMA, 2, limit=100))
    assert found[0].kind is Kind.REJECT
    assert found[1].kind is Kind.PLAIN
    assert sum(one.span for one in found) == 52


@pytest.mark.parametrize(
    ("line", "cells"),
    [
        (b'"a\\"b",c', [b'a"b', b"c"]),
        (b"a\\,b,c", [b"a,b", b"c"]),
        (b"a\\\\,b", [b"a\\", b"b"]),
        (b"C:\\temp,x\\", [b"C:\\temp", b"x\\"]),
        (b'\\"x\\",y', [b'"x"', b"y"]),
    ],
)
def test_backslashes_escape_what_needs_it(line: bytes, cells: Cells) -> None:
    assert split_line(line, BACKSLASH) == (cells, None)


def test_blanks_before_quotes_mean_nothing_when_told() -> None:
    dialect = Dialect(skip_space=True)
    assert split_line(b'1, "a, b", c', dialect) == ([b"1", b"a, b", b" c"], None)


def test_written_cells_are_read_back() -> None:
    chance = random.Random(5)
    for _ in range(500):
        cells: Cells = [
            chance.choice([None, b"", bytes(chance.choice(b'ab,"\n\r ') for _ in range(4))])
            for _ in range(3)
        ]
        record = read(write_cells(cells, b",", b'"') + b"\n", 3)
        assert [cells_of(one) for one in record] == [cells]


def test_every_line_is_in_exactly_one_record() -> None:
    chance = random.Random(6)
    for _ in range(2000):
        data = bytes(chance.choice(b'a1,"\n,"\n\r') for _ in range(chance.randrange(1, 40)))
        lines = data.count(b"\n") + (not data.endswith(b"\n"))
        records = read(data, 2)
        assert sum(one.span for one in records) == lines, data
        assert [one.line for one in records] == sorted(one.line for one in records)


def test_block_boundaries_change_nothing() -> None:
    data = b'1,"a\nb"\r\n2,x\n\n3,"y ""z"""\n4'
    whole = read(data, 2)
    for size in (1, 2, 3, 7):
        blocks = [data[start : start + size] for start in range(0, len(data), size)]
        assert list(RecordReader(blocks, COMMA, 2)) == whole


def test_plain_splitting_agrees_with_pythons_csv() -> None:
    chance = random.Random(7)
    for _ in range(500):
        row = ["".join(chance.choice('ab,"x ') for _ in range(4)) for _ in range(3)]
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(row)
        cells = split_plain(text.getvalue().encode(), b",", b'"')
        assert [(cell or b"").decode() for cell in cells] == row
