"""Nasty files, each with the rows, types and rejects that must come of it."""

from __future__ import annotations

import codecs
import gzip
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from services.ingestd.core.job import Limits
from shared.errors import LakehouseError, TooLarge, Unprocessable, UnsupportedMediaType
from tests.support.ingestd import Row, convert_bytes


@dataclass(frozen=True)
class Case:
    """One file. `rejects` are line numbers and reasons; `warns` is part of some warning."""

    name: str
    data: bytes
    columns: str
    rows: list[Row]
    rejects: list[tuple[int, str]] = field(default_factory=list)
    warns: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


LONG = "z" * 2_500_000
TAIL = "".join(f"{number},v{number}\n" for number in range(40)).encode()
TAIL_ROWS: list[Row] = [(str(number), f"v{number}") for number in range(40)]

CASES = [
    # Widths.
    Case("ragged in a small file", b"a,b,c\n1,2\n1,2,3,4\n1,2,3\n",
         "a BIGINT, b BIGINT, c BIGINT", [("1", "2", "3")],
         [(2, "too_few_fields"), (3, "too_many_fields")]),
    Case("ragged in a long file", b"id,text\n" + TAIL + b"7\n8,x,y\n",
         "id BIGINT, text VARCHAR", TAIL_ROWS,
         [(42, "too_few_fields"), (43, "too_many_fields")]),
    Case("last line cut off", b"a,b\n1,2\n3", "a BIGINT, b BIGINT", [("1", "2")],
         [(3, "too_few_fields")]),
    Case("delimiter at every line's end", b"a,b\n1,2,\n3,4,\n", "a BIGINT, b BIGINT",
         [("1", "2"), ("3", "4")]),
    Case("delimiter at the ends of rows and header", b"a,b,\n1,2,\n3,4,\n",
         "a BIGINT, b BIGINT", [("1", "2"), ("3", "4")]),
    Case("header longer than all rows", b"a,b,c\n1,2\n3,4\n", "a BIGINT, b BIGINT, c VARCHAR",
         [("1", "2", None), ("3", "4", None)], warns="missing ones are NULL"),
    Case("rows of one field under names", b"a,b,c\n1\n2\n", "a BIGINT, b VARCHAR, c VARCHAR",
         [("1", None, None), ("2", None, None)], warns="missing ones are NULL"),
    Case("header shorter than all rows", b"a,b\n1,2,3\n4,5,6\n",
         "a BIGINT, b BIGINT, column_3 BIGINT", [("1", "2", "3"), ("4", "5", "6")],
         warns="without a name"),
    Case("only delimiters in a row", b"a,b\n,\n1,2\n", "a BIGINT, b BIGINT",
         [(None, None), ("1", "2")]),
    # Quotes.
    Case("quote never closed", b'a,b\n1,"x\n2,y\n3,z\n', "a BIGINT, b VARCHAR",
         [("2", "y"), ("3", "z")], [(2, "quote")]),
    Case("two quotes never closed", b'a,b\n1,"x\n2,y\n3,"z\n4,w\n', "a BIGINT, b VARCHAR",
         [("2", "y"), ("4", "w")], [(2, "quote"), (4, "quote")]),
    Case("stray quotes far apart swallow no rows",
         b'a,b,c\n1,"x,y\n2,p,q\n3,p,q\n4,p,q\n5,p,q\n6,p,q\n7,p,q\n8,x",z\n9,p,q\n',
         "a BIGINT, b VARCHAR, c VARCHAR",
         [*((str(number), "p", "q") for number in range(2, 8)), ("8", 'x"', "z"), ("9", "p", "q")],
         [(2, "quote")]),
    Case("inches in a bare field", b'a,b\n1,5" pipe\n2,6" pipe\n', "a BIGINT, b VARCHAR",
         [("1", '5" pipe'), ("2", '6" pipe')]),
    Case("quotes not doubled", b'a,b\n1,"say "hi" x"\n2,b\n', "a BIGINT, b VARCHAR",
         [("1", 'say "hi" x'), ("2", "b")], warns="not doubled"),
    Case("text after a closing quote", b'a,b\n1,"x"y\n2,z\n', "a BIGINT, b VARCHAR",
         [("2", "z")], [(2, "quote")]),
    Case("doubled quotes and line ends", b'a,b\n1,"x ""y"",\nz"\n2,w\n', "a BIGINT, b VARCHAR",
         [("1", 'x "y",\nz'), ("2", "w")]),
    Case("single quotes", b"a,b\n'x,y',2\n'z',3\n", "a VARCHAR, b BIGINT",
         [("x,y", "2"), ("z", "3")]),
    Case("backslash before quotes", b'a,b\n1,"x\\"y, z"\n2,"p, q"\n', "a BIGINT, b VARCHAR",
         [("1", 'x"y, z'), ("2", "p, q")]),
    Case("backslash that escapes nothing", b'a,b\n1,"C:\\temp\\"\n2,"x"\n', "a BIGINT, b VARCHAR",
         [("1", "C:\\temp\\"), ("2", "x")]),
    Case("blank before quotes", b'a, b\n1, "x, y"\n2, "z"\n', "a BIGINT, b VARCHAR",
         [("1", "x, y"), ("2", "z")]),
    Case("blank after quotes", b'a,b\n"1" ,"x" \n"2" ,"y" \n', "a BIGINT, b VARCHAR",
         [("1", "x"), ("2", "y")]),
    Case("all quoted, empties too", b'"a","b"\n"1",""\n"","x"\n', "a BIGINT, b VARCHAR",
         [("1", ""), (None, "x")], warns='written ""'),
    Case("empty and quoted empty differ in text", b'a,b\nx,\ny,""\n', "a VARCHAR, b VARCHAR",
         [("x", None), ("y", "")]),
    Case("no quotes by option", b'a|b\n"x|1\ny"|2\n', "a VARCHAR, b BIGINT",
         [('"x', "1"), ('y"', "2")], options={"quote": ""}),
    # Line ends.
    Case("CRLF", b"a,b\r\n1,x\r\n2,y\r\n", "a BIGINT, b VARCHAR", [("1", "x"), ("2", "y")]),
    Case("CRLF without the last", b"a,b\r\n1,x\r\n2,y", "a BIGINT, b VARCHAR",
         [("1", "x"), ("2", "y")]),
    Case("CRLF and LF", b"a,b\r\n1,x\n2,y\r\n3,z\n", "a BIGINT, b VARCHAR",
         [("1", "x"), ("2", "y"), ("3", "z")]),
    Case("CR among LF", b"a,b\n1,2\r3,4\n5,6\n", "a BIGINT, b BIGINT",
         [("1", "2"), ("3", "4"), ("5", "6")]),
    Case("CR within a field", b"a,b\n1,x\ry\n2,z\n", "a BIGINT, b VARCHAR",
         [("1", "x\ry"), ("2", "z")]),
    Case("CR alone", b"a,b\r1,x\r2,y\r", "a BIGINT, b VARCHAR", [("1", "x"), ("2", "y")]),
    Case("CRLF inside quotes of an LF file", b'a,b\n1,"x\r\ny"\n2,z\n', "a BIGINT, b VARCHAR",
         [("1", "x\r\ny"), ("2", "z")]),
    Case("blank lines", b"a,b\n\n1,2\n\n\n3,4\n\n", "a BIGINT, b BIGINT",
         [("1", "2"), ("3", "4")], warns="Empty lines passed over: 4"),
    Case("blank lines of one column are NULL", b"x\n1\n\n3\n\n", "x BIGINT",
         [("1",), (None,), ("3",)], warns="Empty lines passed over: 1"),
    Case("lines of blanks", b"a,b\n1,2\n   \n3,4\n", "a BIGINT, b BIGINT",
         [("1", "2"), ("3", "4")], warns="Empty lines passed over: 1"),
    Case("end-of-file mark of DOS", b"a,b\n1,2\n\x1a", "a BIGINT, b BIGINT", [("1", "2")]),
    # Encodings.
    Case("UTF-8 with a mark", codecs.BOM_UTF8 + "a,b\n1,é\n".encode(), "a BIGINT, b VARCHAR",
         [("1", "é")]),
    Case("mark and no header", codecs.BOM_UTF8 + b"1,x\n2,y\n", "column_1 BIGINT, column_2 VARCHAR",
         [("1", "x"), ("2", "y")], options={"header": False}),
    Case("UTF-16 with a mark", codecs.BOM_UTF16_LE + "a,b\n1,€😀\n".encode("utf-16-le"),
         "a BIGINT, b VARCHAR", [("1", "€😀")]),
    Case("UTF-16, big end first", codecs.BOM_UTF16_BE + "a,b\n1,ø\n".encode("utf-16-be"),
         "a BIGINT, b VARCHAR", [("1", "ø")]),
    Case("UTF-32 with a mark", codecs.BOM_UTF32_LE + "a,b\n1,😀\n".encode("utf-32-le"),
         "a BIGINT, b VARCHAR", [("1", "😀")]),
    Case("UTF-16 without a mark", "a,b\n1,ø\n2,long enough\n".encode("utf-16-le"),
         "a BIGINT, b VARCHAR", [("1", "ø"), ("2", "long enough")], warns="utf-16-le"),
    Case("UTF-16 cut in a character", "a,b\n1,x\n2,y\n".encode("utf-16")[:-1],
         "a BIGINT, b VARCHAR", [("1", "x")], [(3, "encoding")]),
    Case("cp1252", "a,b\n1,Müller\n2,“q” €\n".encode("cp1252"), "a BIGINT, b VARCHAR",
         [("1", "Müller"), ("2", "“q” €")], warns="cp1252"),
    Case("cp1252 late in the file", b"id,text\n" + TAIL + "40,é\n".encode("cp1252"),
         "id BIGINT, text VARCHAR", [*TAIL_ROWS, ("40", "é")], warns="cp1252"),
    Case("bytes that cp1252 does not have", b"a,b\n1,\x81\xe9\n2,x\n", "a BIGINT, b VARCHAR",
         [("1", "\x81é"), ("2", "x")], warns="cp1252"),
    Case("UTF-8 with a damaged line", "a,b\n1,é\n2,".encode() + b"\xff" + "\n3,ø\n".encode(),
         "a BIGINT, b VARCHAR", [("1", "é"), ("3", "ø")], [(3, "encoding")]),
    Case("encoding by option", "a,b\n1,Ж\n2,Я\n".encode("cp1251"), "a BIGINT, b VARCHAR",
         [("1", "Ж"), ("2", "Я")], options={"encoding": "cp1251"}),
    Case("not in the encoding of the option", b"a,b\n1,\x98\n2,x\n", "a BIGINT, b VARCHAR",
         [("2", "x")], [(2, "encoding")], options={"encoding": "cp1251"}),
    Case("NUL in a field", b"a,b\n1,x\0y\n2,z\n", "a BIGINT, b VARCHAR",
         [("1", "x\0y"), ("2", "z")], warns="NUL"),
    Case("a block of NULs", b"a,b\n1,x\n" + b"\0" * 5000 + b"\n2,y\n", "a BIGINT, b VARCHAR",
         [("1", "x"), ("2", "y")], [(3, "too_few_fields")]),
    Case("a surplus field of nothing but NUL", b"a,b\n1,2,\0\n3,4\n5,6\n", "a BIGINT, b BIGINT",
         [("3", "4"), ("5", "6")], [(2, "too_many_fields")], warns="NUL"),
    # Headers.
    Case("no header", b"Alice,30,Oslo\nBob,25,Bergen\n",
         "column_1 VARCHAR, column_2 BIGINT, column_3 VARCHAR",
         [("Alice", "30", "Oslo"), ("Bob", "25", "Bergen")], warns="looks like a row"),
    Case("numbers throughout", b"1,2\n3,4\n", "column_1 BIGINT, column_2 BIGINT",
         [("1", "2"), ("3", "4")], warns="looks like a row"),
    Case("numbers as header by option", b"1,2\n3,4\n", "1 BIGINT, 2 BIGINT", [("3", "4")],
         options={"header": True}),
    Case("years as names", b"name,2020,2021\nx,1,2\ny,3,4\n",
         "name VARCHAR, 2020 BIGINT, 2021 BIGINT", [("x", "1", "2"), ("y", "3", "4")]),
    Case("names twice", b"a,a,A,b\n1,2,3,4\n", "a BIGINT, a_2 BIGINT, A_3 BIGINT, b BIGINT",
         [("1", "2", "3", "4")], warns="more than once"),
    Case("numbered name is taken", b"a,a,a_2\n1,2,3\n", "a BIGINT, a_3 BIGINT, a_2 BIGINT",
         [("1", "2", "3")], warns="'a_3'"),
    Case("names missing", b"a,,c\n1,2,3\n", "a BIGINT, column_2 BIGINT, c BIGINT",
         [("1", "2", "3")], warns="has no name"),
    Case("names with blanks and controls", b"  a\t ,\"b\nc\"\n1,2\n", "a BIGINT, b c BIGINT",
         [("1", "2")]),
    Case("title above the header", b"Report 2024\n\na,b\n1,2\n3,4\n", "a BIGINT, b BIGINT",
         [("1", "2"), ("3", "4")], [(1, "preamble")]),
    # Delimiters.
    Case("semicolons and decimal commas", b"a;b\n1,5;2\n2,5;3\n", "a VARCHAR, b BIGINT",
         [("1,5", "2"), ("2,5", "3")], warns="decimal comma"),
    Case("tabs", b"a\tb c\n1\tx y\n2\tz\n", "a BIGINT, b c VARCHAR", [("1", "x y"), ("2", "z")]),
    Case("pipes", b'a|b\n"x|y"|2\nz|3\n', "a VARCHAR, b BIGINT", [("x|y", "2"), ("z", "3")]),
    Case("one column of prose", b"text\nHello, world\nfoo\nbar, baz, q\n", "text VARCHAR",
         [("Hello, world",), ("foo",), ("bar, baz, q",)]),
    Case("delimiter of two bytes by option", "a¬b\n1¬x\n2¬y\n".encode(), "a BIGINT, b VARCHAR",
         [("1", "x"), ("2", "y")], options={"delimiter": "¬"}),
    # Types.
    Case("one past 64 bits", b"n\n9223372036854775808\n1\n", "n DECIMAL(38,0)",
         [("9223372036854775808",), ("1",)]),
    Case("more than 38 digits", b"n\n" + b"1" * 39 + b"\n2\n", "n VARCHAR",
         [("1" * 39,), ("2",)]),
    Case("leading zeros", b"zip,n\n00501,1\n12345,2\n", "zip VARCHAR, n BIGINT",
         [("00501", "1"), ("12345", "2")], warns="leading zeros"),
    Case("what DuckDB would take for numbers",
         b"a,b,c,d,e,f\n1_000,+5, 12 ,1e3,0x10,1.\n2,3,4,5,6,7\n",
         "a VARCHAR, b VARCHAR, c VARCHAR, d VARCHAR, e VARCHAR, f VARCHAR",
         [("1_000", "+5", " 12 ", "1e3", "0x10", "1."), ("2", "3", "4", "5", "6", "7")]),
    Case("scale is kept", b"n,m\n1.10,1\n2,2.5\n", "n DECIMAL(18,2), m DECIMAL(18,1)",
         [("1.10", "1.0"), ("2.00", "2.5")]),
    Case("long fractions of floats", b"n\n0.1\n0.30000000000000004\n1.2e-05\n", "n DOUBLE",
         [("0.1",), ("0.30000000000000004",), ("1.2e-05",)]),
    Case("long fractions no float holds", b"n\n0.1000000000000000055511\n2\n", "n DECIMAL(38,22)",
         [("0.1000000000000000055511",), ("2.0000000000000000000000",)]),
    Case("words for no number", b"n,m\nNaN,inf\n1,2\n", "n VARCHAR, m VARCHAR",
         [("NaN", "inf"), ("1", "2")]),
    Case("words for missing stay text", b"a,b\nNULL,NA\n1,2\n", "a VARCHAR, b VARCHAR",
         [("NULL", "NA"), ("1", "2")]),
    Case("one spelling of truth", b"a,b,c\ntrue,True,true\nfalse,False,FALSE\n",
         "a BOOLEAN, b BOOLEAN, c VARCHAR",
         [("true", "true", "true"), ("false", "false", "FALSE")]),
    Case("dates that may be day or month first", b"d,n\n01/02/2024,1\n03/04/2024,2\n",
         "d VARCHAR, n BIGINT", [("01/02/2024", "1"), ("03/04/2024", "2")], warns="ambiguous"),
    Case("dates that are none", b"d,n\n2024-01-01,1\n2024-02-30,2\n", "d VARCHAR, n BIGINT",
         [("2024-01-01", "1"), ("2024-02-30", "2")]),
    Case("dates and times",
         b"d,t,u,v\n2024-01-05,2024-01-05T10:20:30,2024-01-05 10:20:30.1234,2024-01-05T10:20:30Z\n",
         "d DATE, t TIMESTAMP, u TIMESTAMP, v TIMESTAMPTZ",
         [("2024-01-05", "2024-01-05 10:20:30", "2024-01-05 10:20:30.1234",
           "2024-01-05 10:20:30+00")]),
    Case("offsets from UTC", b"t\n2024-01-01T00:00:00+02:00\n", "t TIMESTAMPTZ",
         [("2023-12-31 22:00:00+00",)], warns="offsets"),
    Case("nanoseconds", b"t\n2024-01-05T10:20:30.123456789\n", "t VARCHAR",
         [("2024-01-05T10:20:30.123456789",)]),
    Case("never filled", b"a,b\n1,\n2,\n", "a BIGINT, b VARCHAR", [("1", None), ("2", None)]),
    Case("odd value past the sample", b"n,t\n" + b"1,x\n" * 60_000 + b"x,y\n",
         "n VARCHAR, t VARCHAR", [("1", "x")] * 60_000 + [("x", "y")], warns="1 of 60001"),
    Case("filled only past the sample", b"n,t\n" + b",x\n" * 60_000 + b"7,y\n",
         "n BIGINT, t VARCHAR", [(None, "x")] * 60_000 + [("7", "y")]),
    Case("finer numbers past the sample", b"n,t\n" + b"1,x\n" * 60_000 + b"1.25,y\n",
         "n DECIMAL(18,2), t VARCHAR", [("1.00", "x")] * 60_000 + [("1.25", "y")]),
    # Sizes.
    Case("a line of 2.5 MB", b"a,b\n1," + LONG.encode() + b"\n2,y\n", "a BIGINT, b VARCHAR",
         [("1", LONG), ("2", "y")]),
    Case("2.5 MB in quotes, with line ends",
         b'a,b\n1,"' + b"z\n" * 1_250_000 + b'"\n2,y\n', "a BIGINT, b VARCHAR",
         [("1", "z\n" * 1_250_000), ("2", "y")]),
    Case("a header of 300 characters", b"a," + b"n" * 300 + b"\n1,2\n",
         "a BIGINT, " + "n" * 255 + " BIGINT", [("1", "2")]),
    Case("names that would be SQL", b'"a""; DROP TABLE x; --",b\n1,2\n',
         'a"; DROP TABLE x; -- BIGINT, b BIGINT', [("1", "2")]),
    Case("names that the converter uses itself", b"c1,c0,span,line,select\n1,x,2,y,z\n",
         "c1 BIGINT, c0 VARCHAR, span BIGINT, line VARCHAR, select VARCHAR",
         [("1", "x", "2", "y", "z")]),
    Case("names as above on the careful way", b"c1,c0,span,line\n1,x,2,y\n3\n",
         "c1 BIGINT, c0 VARCHAR, span BIGINT, line VARCHAR", [("1", "x", "2", "y")],
         [(3, "too_few_fields")]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_nothing_is_lost_or_mistyped(case: Case, tmp_path: Path) -> None:
    found = convert_bytes(tmp_path, case.data, **case.options)
    named = ", ".join(f"{name} {kind}" for name, kind in found.outcome.columns)
    assert named == case.columns
    # Not compared as a whole, for pytest would print megabytes of difference.
    assert len(found.rows) == len(case.rows)
    assert all(ours == theirs for ours, theirs in zip(found.rows, case.rows, strict=True))
    assert [(line, reason) for line, _, reason, _, _ in found.rejects] == case.rejects
    assert found.outcome.rows_in == len(case.rows) + len(case.rejects)
    if case.warns is not None:
        assert any(case.warns in warning for warning in found.outcome.warnings)


def test_there_are_enough_nasty_files() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 40


TABLE = b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * 7919 % 10007) for i in range(500))


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd"))


def flip(data: bytes) -> bytes:
    """The bytes with one bit changed in the middle."""
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


REFUSED: list[tuple[str, bytes, type[LakehouseError], str]] = [
    ("empty", b"", Unprocessable, "empty"),
    ("only a mark", codecs.BOM_UTF8, Unprocessable, "empty"),
    ("only line ends", b"\n\r\n\n", Unprocessable, "blank lines"),
    ("only a header", b"a,b\n", Unprocessable, "no rows"),
    ("only a header, no line end", b"a,b", Unprocessable, "no rows"),
    ("only a header and blank lines", b"a,b\n\n\n", Unprocessable, "no rows"),
    ("no line undamaged", b"a,b\n\xff,\xc3\xa9\n\xfe,\xc3\xa9\n", Unprocessable, "None of the 2"),
    ("damaged gzip", b"\x1f\x8b\x08\x00rest", Unprocessable, "gzip file is damaged"),
    ("a cut gzip", gzip.compress(TABLE)[:-9], Unprocessable, "damaged or cut off"),
    ("gzip, then rubbish", gzip.compress(TABLE) + b"rubbish", Unprocessable, "damaged"),
    ("a flipped bit", flip(gzip.compress(TABLE)), Unprocessable, "damaged"),
    ("a cut zstd", zstd(TABLE)[:-3], Unprocessable, "damaged or cut off"),
    ("damaged zstd", zstd(TABLE)[:20] + b"xxxx", Unprocessable, "damaged"),
    ("gzip in gzip", gzip.compress(gzip.compress(TABLE)), UnsupportedMediaType, "holds a gzip"),
    ("zstd in gzip", gzip.compress(zstd(TABLE)), UnsupportedMediaType, "holds a Zstandard"),
    ("a gzip of nothing", gzip.compress(b""), Unprocessable, "empty"),
    ("a bomb", gzip.compress(b"0" * (80 << 20)), TooLarge, "unpacks to more than"),
    ("a zstd bomb", zstd(b"0" * (80 << 20)), TooLarge, "unpacks to more than"),
    ("cut Parquet", b"PAR1rest", Unprocessable, "Parquet file is damaged"),
    ("encrypted Parquet", b"PARErest", Unprocessable, "encrypted"),
    ("Avro", b"Obj\x01rest", UnsupportedMediaType, "Avro"),
    ("a zip", b"PK\x03\x04rest", UnsupportedMediaType, "zip"),
    ("a line over the limit", b"a,b\n1," + b"x" * 17_000_000 + b"\n", Unprocessable, "Line 2"),
    ("no line end for 17 MB", b"x" * 17_000_000, Unprocessable, "Line 1"),
    ("too many columns", b",".join(b"c" for _ in range(5000)) + b"\n", Unprocessable, "columns"),
]


@pytest.mark.parametrize(
    ("data", "cls", "says"),
    [(data, cls, says) for _, data, cls, says in REFUSED],
    ids=[name.replace(" ", "-") for name, *_ in REFUSED],
)
def test_what_is_no_table_is_refused_with_the_reason(
    data: bytes, cls: type[LakehouseError], says: str, tmp_path: Path
) -> None:
    with pytest.raises(cls) as caught:
        convert_bytes(tmp_path, data)
    assert says in caught.value.message
    assert str(tmp_path) not in caught.value.message


def test_rejects_are_kept_with_their_text(tmp_path: Path) -> None:
    found = convert_bytes(tmp_path, b'a,b\n1,2\n3\n4,"x\n5,6,7\n\xff,9\n\xc3\xa9,8\n')
    assert found.rejects == [
        (3, None, "too_few_fields", "has 1 fields where 2 are expected", "3"),
        (4, None, "quote", "has a quoted field that runs into text not in UTF-8", '4,"x'),
        (5, None, "too_many_fields", "has 3 fields where 2 are expected", "5,6,7"),
        (6, None, "encoding", "is not valid UTF-8", "\\xff,9"),
    ]


def test_parts_stay_within_their_size_and_hold_the_ingest_id(tmp_path: Path) -> None:
    rows = "".join(
        f"{number},{hash(str(number))},{number * 7919 % 10007}\n" for number in range(200_000)
    )
    limits = Limits(part_bytes=500_000, memory_bytes=256 * 1024 * 1024)
    found = convert_bytes(tmp_path, b"a,b,c\n" + rows.encode(), limits=limits)
    assert len(found.outcome.parts) > 3
    assert all(part.size <= 500_000 for part in found.outcome.parts)
    assert sum(part.rows for part in found.outcome.parts) == 200_000
    assert len({part.sha256 for part in found.outcome.parts}) == len(found.outcome.parts)
    for part in found.outcome.parts:
        pairs = duckdb.sql(f"SELECT key, value FROM parquet_kv_metadata('{part.path}')").fetchall()
        assert (b"lakehouse.ingest_id", b"test") in pairs
