"""Reading Parquet footers: Thrift, schema trees, and bounds that are never too narrow."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.catalogd.core.bounds import (
    decode_bound,
    encode_bound,
    find_bounds,
    shorten_down,
    shorten_up,
    widen_bound,
)
from services.catalogd.core.columns import UnfitColumn, read_columns, read_leaf
from services.catalogd.core.footer import (
    BYTE_ARRAY,
    FIXED,
    INT32,
    INT64,
    MAX_FOOTER,
    Chunk,
    Element,
    Footer,
    parse_footer,
    parse_tail,
)
from services.catalogd.core.thrift import CompactReader, Corrupt
from services.catalogd.core.types import ColumnType, Decimal, Field, List, Map, Scalar, Struct


def element(name: str = "x", physical: int | None = INT32, **facts: Any) -> Element:
    base: dict[str, Any] = {
        "length": 0,
        "repeated": False,
        "children": 0,
        "converted": None,
        "logical": None,
        "precision": 0,
        "scale": 0,
        "field_id": None,
    }
    return Element(name, physical, **{**base, **facts})


def group(name: str, children: int, **facts: Any) -> Element:
    return element(name, None, children=children, **facts)


def columns_of(*elements: Element, root: int = 1) -> Any:
    return read_columns(Footer(list(elements), root, 0, []))


def chunk(
    lower: bytes | None, upper: bytes | None, values: int = 1, nulls: int | None = 0
) -> Chunk:
    return Chunk(INT32, values, 10, 4, nulls, lower, upper)


# Thrift: 15 is an int field of number 1 with a zigzag value, 18 bytes, 1c a struct, 00 its end.
def test_a_struct_gives_the_wanted_fields_and_skips_the_rest() -> None:
    data = bytes.fromhex("15 54 18 02 6869 1c 15 01 00 29 25 02 04 11 00")
    spec = {1: int, 3: {1: int}, 5: [int]}
    reader = CompactReader(data)
    assert reader.read_struct(spec) == {1: 42, 3: {1: -1}, 5: [1, 2]}
    assert CompactReader(data).read_struct({2: bytes, 6: bool}) == {2: b"hi", 6: True}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("", "ends"),
        ("15", "ends"),
        ("18 05 61", "ends"),
        ("15 ff ff ff ff ff ff ff ff ff ff 01 00", "64 bits"),
        ("19 fc ff ff ff ff 0f", "longer than the data"),
        ("1e 00", "no type"),
        ("1c" * 40, "too deep"),
        ("1b 05 cc" + "1c" * 40, "too deep"),
        ("19 1c" + "19 1c" * 40, "too deep"),
    ],
)
def test_bytes_that_make_no_sense_are_told(data: str, problem: str) -> None:
    with pytest.raises(Corrupt, match=problem):
        CompactReader(bytes.fromhex(data)).read_struct({})


@pytest.mark.parametrize("want", [bytes, bool, {1: int}, [int]])
def test_a_value_of_another_type_is_told(want: Any) -> None:
    with pytest.raises(Corrupt):
        CompactReader(bytes.fromhex("15 02 00")).read_struct({1: want})


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_do_more_harm_than_a_refusal(data: bytes) -> None:
    try:
        footer = parse_footer(data, 10_000)
        columns, problems = read_columns(footer)
    except Corrupt:
        return
    assert columns or problems or not footer.root_children


@pytest.mark.parametrize(
    ("tail", "size", "problem"),
    [
        (b"", 4, "does not end"),
        (b"\x05\0\0\0PAR2", 100, "does not end"),
        (b"\0\0\0\0PAR1", 100, "longer than the file"),
        (b"\xff\0\0\0PAR1", 100, "longer than the file"),
        ((MAX_FOOTER + 1).to_bytes(4, "little") + b"PAR1", 2 * MAX_FOOTER, "larger than"),
    ],
)
def test_a_tail_that_is_none(tail: bytes, size: int, problem: str) -> None:
    with pytest.raises(Corrupt, match=problem):
        parse_tail(tail, size)


def test_nested_columns() -> None:
    columns, problems = columns_of(
        element("id", INT64),
        group("tags", 1, logical=(3, {})),
        group("list", 1, repeated=True),
        element("element", BYTE_ARRAY, logical=(1, {})),
        group("by_name", 1, converted=1),
        group("key_value", 2, repeated=True),
        element("key", BYTE_ARRAY, converted=0),
        group("value", 1),
        element("deep", INT32),
        root=3,
    )
    assert problems == {}
    assert columns == (
        Field("id", Scalar("long")),
        Field("tags", List(Scalar("string"))),
        Field("by_name", Map(Scalar("string"), Struct((Field("deep", Scalar("int")),)))),
    )


def test_lists_as_older_writers_had_them() -> None:
    two_levels = columns_of(group("l", 1, converted=3), element("item", INT32, repeated=True))
    assert two_levels[0] == (Field("l", List(Scalar("int"))),)
    structs = columns_of(
        group("l", 1, converted=3),
        group("item", 2, repeated=True),
        element("a", INT32),
        element("b", INT64),
    )
    pair = Struct((Field("a", Scalar("int")), Field("b", Scalar("long"))))
    assert structs[0] == (Field("l", List(pair)),)
    for name in ("array", "l_tuple"):
        one = columns_of(
            group("l", 1, converted=3), group(name, 1, repeated=True), element("a", INT32)
        )
        assert one[0] == (Field("l", List(Struct((Field("a", Scalar("int")),)))),)
    bare = columns_of(element("l", INT32, repeated=True))
    assert bare[0] == (Field("l", List(Scalar("int"))),)


def test_a_refused_column_does_not_shift_the_others() -> None:
    columns, problems = columns_of(
        element("a", INT32),
        group("bad", 2),
        element("x", INT32, logical=(10, {1: 32, 2: False})),
        element("y", INT32),
        element("z", INT64),
        root=3,
    )
    assert columns == (Field("a", Scalar("int")), Field("z", Scalar("long")))
    assert list(problems) == ["bad"]
    assert "BIGINT" in problems["bad"]


@pytest.mark.parametrize(
    ("elements", "root"),
    [([group("s", 2), element()], 1), ([element(), element()], 1), ([], 1), ([element("x", 9)], 1)],
)
def test_a_schema_that_is_no_tree(elements: list[Element], root: int) -> None:
    with pytest.raises(Corrupt):
        columns_of(*elements, root=root)


def test_row_groups_must_have_every_column() -> None:
    with pytest.raises(Corrupt, match="lack columns"):
        read_columns(Footer([element(), element("y")], 2, 1, [[chunk(None, None)]]))


@pytest.mark.parametrize(
    ("leaf", "kind"),
    [
        (element(converted=15), Scalar("int")),
        (element(converted=12), Scalar("int")),
        (element(converted=6), Scalar("date")),
        (element(physical=INT64, converted=10), Scalar("timestamptz")),
        (element(physical=INT64, logical=(8, {1: False, 2: {2: {}}})), Scalar("timestamp")),
        (element(physical=INT64, converted=5, precision=18, scale=2), Decimal(18, 2)),
        (element(physical=FIXED, length=16, logical=(14, {})), Scalar("uuid")),
        (element(physical=BYTE_ARRAY, converted=19), Scalar("string")),
        (element(physical=BYTE_ARRAY, converted=20), Scalar("binary")),
    ],
)
def test_types_by_the_old_and_the_new_annotations(leaf: Element, kind: ColumnType) -> None:
    assert read_leaf(leaf) == kind


@pytest.mark.parametrize(
    "leaf",
    [
        element(converted=13),
        element(physical=INT64, converted=14),
        element(converted=7),
        element(physical=3),
        element(physical=FIXED, length=12, converted=21),
        element(physical=FIXED, length=2, logical=(15, {})),
        element(physical=FIXED, length=20, converted=5, precision=39, scale=0),
        *(element(physical=BYTE_ARRAY, logical=(number, {})) for number in (16, 17, 18)),
    ],
)
def test_types_that_iceberg_lacks(leaf: Element) -> None:
    with pytest.raises(UnfitColumn, match="cast it"):
        read_leaf(leaf)


def test_bounds_span_all_row_groups() -> None:
    int_bounds = [struct.pack("<i", value) for value in (-5, 7, -2, 9)]
    chunks = [chunk(int_bounds[0], int_bounds[1]), chunk(int_bounds[2], int_bounds[3])]
    found = find_bounds(Scalar("int"), element(), [*chunks, chunk(None, None, 3, 3)])
    assert found == (struct.pack("<i", -5), struct.pack("<i", 9))


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [chunk(None, None, 3, 1)],
        [chunk(None, None, 3, None)],
        [chunk(b"\0\0\0\0", b"\1\0\0\0"), chunk(None, None)],
        [chunk(b"\0\0\0\0", None)],
        [chunk(b"\2\0\0\0", b"\1\0\0\0")],
        [chunk(b"\2\0", b"\3\0")],
    ],
)
def test_any_doubt_means_no_bounds(chunks: list[Chunk]) -> None:
    assert find_bounds(Scalar("int"), element(), chunks) is None


def test_bounds_of_floats_know_no_nan_and_two_zeros() -> None:
    def packed(value: float) -> bytes:
        return struct.pack("<d", value)

    double = Scalar("double")
    assert find_bounds(double, element(), [chunk(packed(math.nan), packed(1))]) is None
    found = find_bounds(double, element(), [chunk(packed(0.0), packed(-0.0))])
    assert found == (packed(-0.0), packed(0.0))


def test_bounds_in_milliseconds_become_microseconds() -> None:
    millis = element(physical=INT64, logical=(8, {1: True, 2: {1: {}}}))
    raw = struct.pack("<q", 1_500)
    assert decode_bound(Scalar("timestamptz"), millis, raw) == 1_500_000
    far = struct.pack("<q", 2**62)
    assert find_bounds(Scalar("timestamp"), millis, [chunk(far, far)]) is None


@given(st.integers(-(10**37), 10**37))
def test_decimals_are_the_shortest_twos_complement(value: int) -> None:
    encoded = encode_bound(Decimal(38, 2), value)
    assert encoded is not None
    assert int.from_bytes(encoded, "big", signed=True) == value
    if len(encoded) > 1:
        with pytest.raises(OverflowError):
            value.to_bytes(len(encoded) - 1, "big", signed=True)


@given(st.text() | st.binary())
def test_shortened_bounds_still_enclose(value: str | bytes) -> None:
    low, high = shorten_down(value), shorten_up(value)
    assert low <= value
    assert len(low) <= 16
    if high is not None:
        assert high >= value
        assert len(high) <= 16


def test_a_bound_that_cannot_be_raised_is_left_out() -> None:
    assert shorten_up("\U0010ffff" * 20) is None
    assert shorten_up(b"\xff" * 20) is None
    assert shorten_up("a" * 15 + "\ud7ff" + "b") == "a" * 15 + "\ue000"


def test_bounds_widen_with_the_table() -> None:
    minus = struct.pack("<i", -3)
    assert widen_bound(Scalar("int"), Scalar("long"), minus) == struct.pack("<q", -3)
    half = struct.pack("<f", 0.5)
    assert widen_bound(Scalar("float"), Scalar("double"), half) == struct.pack("<d", 0.5)
    assert widen_bound(Decimal(5, 2), Decimal(9, 2), b"\x01") == b"\x01"
    assert widen_bound(Scalar("int"), Scalar("int"), minus) == minus
