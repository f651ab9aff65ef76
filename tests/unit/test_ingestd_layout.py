"""How a file is written, where its header is, and what its columns are called."""

from __future__ import annotations

import pytest

from services.ingestd.core.dialect import NO_DELIMITER, Given, sniff_dialect
from services.ingestd.core.fields import Dialect
from services.ingestd.core.header import MAX_NAME, clean_name, is_header, name_columns
from services.ingestd.core.layout import Layout, find_layout


def sniff(sample: bytes, given: Given | None = None, *, complete: bool = True) -> Dialect:
    return sniff_dialect(sample, given, complete=complete).dialect


def lay_out(sample: bytes, header: bool | None = None, known: tuple[str, ...] = ()) -> Layout:
    layout = find_layout(sample, Given(), header, known)
    assert layout is not None
    return layout


@pytest.mark.parametrize(
    ("sample", "delimiter"),
    [
        (b"a,b\n1,2\n", b","),
        (b"a;b\n1,5;2,5\n3,5;4\n", b";"),
        (b"a\tb\n1,2\tx, y\n", b"\t"),
        (b"a|b\n1|2\n", b"|"),
        (b'name,note\nx,"a;b;c"\ny,"d;e;f"\n', b","),
        (b"city;people\nOslo, Norway;700\nBergen, Norway;280\n", b";"),
        (b"a,b,c\n1,2\n1,2,3,4\n", b","),
        (b"a,b,c\n1\n2\n", b","),
        (b"text\nHello, world\nfoo\n", NO_DELIMITER),
        (b"Dear all, hello\nfoo\nbar\n", NO_DELIMITER),
        (b"n\n1\n2\n", NO_DELIMITER),
        (b"time;value\n10:00;1\n11:00;2\n", b";"),
    ],
)
def test_the_delimiter_is_the_one_that_makes_a_table(sample: bytes, delimiter: bytes) -> None:
    assert sniff(sample).delimiter == delimiter


@pytest.mark.parametrize(
    ("sample", "quote", "escape"),
    [
        (b'a,b\n"x,y",1\n', b'"', b'"'),
        (b"a,b\n'x,y',1\n", b"'", b"'"),
        (b"a,b\nit's,1\nrock 'n' roll,2\n", b'"', b'"'),
        (b'a,b\n"x\\"y, z",1\n"p, q",2\n', b'"', b"\\"),
        (b'a,b\n"C:\\",1\n"D:\\",2\n', b'"', b'"'),
        (b'a,b\n"x ""y"" z, w",1\n', b'"', b'"'),
    ],
)
def test_quotes_and_escapes_are_found(sample: bytes, quote: bytes, escape: bytes) -> None:
    found = sniff(sample)
    assert (found.quote, found.escape) == (quote, escape)


def test_what_is_given_is_obeyed() -> None:
    given = Given(delimiter=b";", quote=b"'", escape=b"\\")
    found = sniff(b"a,b\n1,2\n", given)
    assert (found.delimiter, found.quote, found.escape) == (b";", b"'", b"\\")


def test_blanks_before_quotes_are_noticed() -> None:
    assert sniff(b'a, b\n1, "x, y"\n2, "z"\n').skip_space
    assert not sniff(b'a,b\n1,"x, y"\n').skip_space


def test_a_quoted_field_past_the_samples_end_says_nothing() -> None:
    sample = b'a,b\n1,"' + b"z\n" * 200
    assert sniff(sample, complete=False).delimiter == b","


def test_a_return_ends_lines_only_where_nothing_else_does() -> None:
    assert sniff(b"a,b\r1,2\r").newline == b"\r"
    assert sniff(b"a,b\n1,2\r\n").newline == b"\n"


@pytest.mark.parametrize(
    ("first", "rows", "expected"),
    [
        (["id", "name"], [["1", "x"], ["2", "y"]], True),
        (["1", "x"], [["2", "y"], ["3", "z"]], False),
        (["1", "2"], [["3", "4"]], False),
        (["name", "city"], [["Ann", "Oslo"], ["Bob", "Rome"]], True),
        (["Ann", "Oslo"], [["Bob", "Oslo"], ["Cy", "Rome"]], False),
        (["W-1", "x"], [["W-2", "y"], ["W-3", "z"]], False),
        (["worker", "x"], [["W-2", "y"], ["W-3", "z"]], True),
        (["a@b.no", "x"], [["c@d.no", "y"], ["e@f.no", "z"]], False),
        (["day", "n"], [["2024-01-01", ""], ["2024-01-02", ""]], True),
        (["2024-01-01", "x"], [["2024-01-02", "y"]], False),
        (["name", "2020", "2021"], [["x", "1", "2"], ["y", "3", "4"]], True),
        (["name", "2020", "1999"], [["x", "1", "2"], ["y", "3", "4"]], False),
        (["id", "NA"], [["1", "2"], ["3", "4"]], True),
        ([None, None], [["1", "2"]], False),
        (["a", "b"], [], True),
    ],
)
def test_a_header_is_told_from_a_row(
    first: list[str | None], rows: list[list[str | None]], expected: bool
) -> None:
    assert is_header(first, rows) is expected


def test_a_row_of_the_tables_names_is_a_header() -> None:
    sample = b"red,green\nred,blue\nblue,red\n"
    assert not lay_out(sample).has_header
    assert lay_out(sample, known=("Red", "Green")).has_header


def test_columns_without_a_header_are_numbered_or_the_tables() -> None:
    assert lay_out(b"1,x\n2,y\n").names == ("column_1", "column_2")
    assert lay_out(b"1,x\n2,y\n", known=("id", "t")).names == ("id", "t")
    assert lay_out(b"1,x\n2,y\n", known=("id", "t", "u")).names == ("column_1", "column_2")


def test_a_title_above_the_header_is_passed_over() -> None:
    layout = lay_out(b"Workers 2024\n\nid,name\n1,x\n2,y\n")
    assert layout.names == ("id", "name")
    assert layout.preamble == (1,)
    assert layout.skipped_lines == 3
    assert not layout.is_regular


def test_a_title_padded_with_delimiters_is_passed_over() -> None:
    layout = lay_out(b"Workers 2024,,\nid,name,city\n1,x,Oslo\n")
    assert layout.names == ("id", "name", "city")
    assert layout.preamble == (1,)


def test_a_sparse_first_row_is_no_title() -> None:
    layout = lay_out(b"7,,\n8,,\n9,x,y\n", header=False)
    assert layout.preamble == ()
    assert layout.width == 3


@pytest.mark.parametrize(
    ("sample", "width", "pad_from"),
    [
        (b"a,b\n1,2,\n3,4,\n", 2, None),
        (b"a,b\n1,2,3\n4,5,6\n", 3, None),
        (b"a,b,c\n1,2\n3,4\n", 3, 2),
        (b"a,b,c\n1,2\n3,4\n5,6,7\n", 3, None),
    ],
)
def test_header_and_rows_of_different_widths(
    sample: bytes, width: int, pad_from: int | None
) -> None:
    layout = lay_out(sample)
    assert (layout.width, layout.pad_from) == (width, pad_from)


def test_a_regular_file_is_known_for_one() -> None:
    assert lay_out(b"a,b\n1,2\n").is_regular
    assert not lay_out(b"\na,b\n1,2\n").is_regular
    assert not lay_out(b'"a\nb",c\n1,2\n').is_regular
    assert not lay_out(b"a,b\r1,2\r").is_regular


def test_a_sample_without_records_has_no_layout() -> None:
    assert find_layout(b"\n\r\n", Given(), None) is None


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["a", "a", "A"], ["a", "a_2", "A_3"]),
        (["a", "a", "a_2"], ["a", "a_3", "a_2"]),
        (["", None, "c"], ["column_1", "column_2", "c"]),
        ([None, "column_1"], ["column_1_2", "column_1"]),
        (["x", "X", "x_2", "X_2"], ["x", "X_3", "x_2", "X_2_2"]),
        (["a"], ["a", "column_2"]),
        (["n" * 300, "n" * 300], ["n" * 255, "n" * 243 + "_2"]),
    ],
)
def test_names_are_made_distinct_the_same_way_each_time(
    cells: list[str | None], names: list[str]
) -> None:
    found, _ = name_columns(cells, len(names))
    assert found == names
    assert len({name.casefold() for name in found}) == len(found)


def test_renaming_is_told() -> None:
    _, warnings = name_columns(["a", "a", ""], 3)
    assert len(warnings) == 2


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("  a b ", "a b"),
        ("\ufeffid", "id"),
        ("a\x00b\nc", "a b c"),
        ("\t", ""),
        (None, ""),
        ("é€", "é€"),
        ("x" * 999, "x" * MAX_NAME),
    ],
)
def test_names_are_cleaned_but_kept_as_given(cell: str | None, name: str) -> None:
    assert clean_name(cell) == name
