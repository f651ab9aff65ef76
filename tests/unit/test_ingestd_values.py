"""Types by their names, casts between them, and lines of JSON taken apart."""

from __future__ import annotations

import pytest

from services.ingestd.core.casts import build_cast, stored_type
from services.ingestd.core.checks import normalise_type
from services.ingestd.core.jsonlines import (
    BadLine,
    Number,
    begins_object,
    decode_string,
    is_json_lines,
    learn_pattern,
    parse_line,
    write_json,
)
from services.ingestd.core.nested import Shape, Unreadable, read_type, structure_of, write_type
from shared.errors import UnsupportedMediaType


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("BIGINT", "BIGINT"),
        ("DECIMAL(18,2)[]", "DECIMAL(18,2)[]"),
        ("STRUCT(a BIGINT, b VARCHAR[])", 'STRUCT("a" BIGINT, "b" VARCHAR[])'),
        ('STRUCT("a ""b"" c" BIGINT)[]', 'STRUCT("a ""b"" c" BIGINT)[]'),
        ("STRUCT(a STRUCT(b TIMESTAMP WITH TIME ZONE))", 'STRUCT("a" STRUCT("b" TIMESTAMPTZ))'),
        ("MAP(VARCHAR, MAP(INTEGER, DATE)[])", "MAP(VARCHAR, MAP(INTEGER, DATE)[])"),
        ('STRUCT("select" INTEGER)', 'STRUCT("select" INTEGER)'),
    ],
)
def test_types_are_read_by_their_names(given: str, written: str) -> None:
    assert normalise_type(given) == written
    assert write_type(read_type(written)) == written


@pytest.mark.parametrize("name", ["STRUCT(", "STRUCT(a)", "MAP(VARCHAR)", "", "BIGINT["])
def test_what_is_no_type_is_told(name: str) -> None:
    with pytest.raises(Unreadable):
        read_type(name)


def test_the_structure_for_from_json() -> None:
    found = structure_of('STRUCT("a" BIGINT, "b" STRUCT("c" VARCHAR[])[])')
    assert found == '{"a": "BIGINT", "b": [{"c": ["VARCHAR"]}]}'


@pytest.mark.parametrize(
    ("source", "stored"),
    [
        ("UBIGINT", "DECIMAL(20,0)"),
        ("UINTEGER", "BIGINT"),
        ("TIMESTAMP_NS", "TIMESTAMP"),
        ("STRUCT(a UBIGINT, b MAP(VARCHAR, USMALLINT))",
         'STRUCT("a" DECIMAL(20,0), "b" MAP(VARCHAR, INTEGER))'),
        ("ENUM('a', 'b')", None),
        ("UNION(a INTEGER)", None),
        ("GEOMETRY", None),
        ("GEOMETRY[]", None),
    ],
)  # fmt: skip
def test_what_tables_hold_in_place_of_other_types(source: str, stored: str | None) -> None:
    assert stored_type(source) == stored


@pytest.mark.parametrize(
    ("source", "target", "goes"),
    [
        ("BIGINT", "DOUBLE", True),
        ("DOUBLE", "BIGINT", True),
        ("UBIGINT", "VARCHAR", True),
        ("DATE", "TIMESTAMP", True),
        ("TIMESTAMP_NS", "DATE", True),
        ("STRUCT(a INTEGER)", 'STRUCT("a" BIGINT)', True),
        ("BOOLEAN", "BIGINT", False),
        ("BIGINT", "BOOLEAN", False),
        ("TIMESTAMP", "TIMESTAMPTZ", False),
        ("BLOB", "VARCHAR", False),
        ("BIGINT[]", "VARCHAR", False),
        ("BIGINT", "BIGINT[]", False),
        ("STRUCT(a INTEGER)", 'STRUCT("b" BIGINT)', False),
        ("STRUCT(a INTEGER)", 'STRUCT("a" BOOLEAN)', False),
        ("BIGINT", "DATE", False),
    ],
)
def test_casts_that_keep_a_value_s_meaning(source: str, target: str, goes: bool) -> None:
    assert (build_cast(source, target, "c0") is not None) is goes


def shape_of(*values: str) -> str | None:
    shape = Shape()
    for value in values:
        shape.add(parse_line(f'{{"v": {value}}}')[0][1])
    return shape.type


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["[1, 2]", "[]", "[null]"], "BIGINT[]"),
        (["[1]", "[2.5]"], "DOUBLE[]"),
        (['{"a": 1, "b": null}', '{"a": 2, "b": "x"}'], 'STRUCT("a" BIGINT, "b" VARCHAR)'),
        (["[]"], None),
        (['{"a": null}'], None),
        (["{}"], None),
        (['{"a": 1}', '{"b": 1}'], None),
        (['{"a": 1, "b": 2}', '{"b": 1, "a": 2}'], None),
        (['{"a": 1, "A": 2}'], None),
        (['{"": 1}'], None),
        (["[1]", '["a"]'], None),
        (["[" * 20 + "1" + "]" * 20], None),
    ],
)
def test_nested_values_have_a_type_when_they_are_alike(values: list[str], kind: str | None) -> None:
    assert shape_of(*values) == kind


def test_json_is_written_as_it_was_but_for_blanks() -> None:
    text = '{"a":[1.10,-0,1E5,"\\"é",{"a":null,"a":true}],"":false}'
    assert write_json(parse_line(text.replace(",", " , "))) == text
    assert isinstance(parse_line('{"a": 1}')[0][1], Number)


def test_a_pattern_takes_lines_like_the_one_it_learnt() -> None:
    pattern = learn_pattern('{"a": 1, "b" : "x"}')
    assert pattern is not None
    assert pattern.names == ("a", "b")
    assert pattern.split(b'{"a": 2, "b" : "y"}\n{"a": null, "b" : 1.50}\r\n') == [
        (b"2", b'"y"'),
        (b"null", b"1.50"),
    ]
    for odd in (
        b'{"a":2, "b" : "y"}\n',
        b'{"a": 2, "b" : "y\n"}\n',
        b'{"a": 02, "b" : "y"}\n',
        b'{"a": 2, "b" : "\\x"}\n',
        b'{"a": 2, "b" : "y"} x\n',
        b'{"a": 2, "b" : [1]}\n',
        b'x{"a": 2, "b" : "y"}\n',
        b"\n",
    ):
        assert pattern.split(b'{"a": 2, "b" : "y"}\n' + odd) is None
        assert pattern.split_line(odd.rstrip(b"\n")) is None


@pytest.mark.parametrize("line", ['{"a": [1]}', "{}", '{"a": 1, "a": 2}', '{"a\\n": 1}'])
def test_some_lines_have_no_pattern(line: str) -> None:
    assert learn_pattern(line) is None


def test_escapes_are_decoded_and_half_a_pair_is_none() -> None:
    assert decode_string(rb'"a\n\u00e5\ud83d\ude00"') == "a\nå😀"
    assert decode_string(rb'"\ud83d"') is None


def test_json_lines_are_told_from_other_texts() -> None:
    assert is_json_lines('\n{"a": 1}\nbad\n')
    assert is_json_lines('{bad\n{"a": 1}\n')
    assert not is_json_lines("a,b\n1,2\n")
    assert not is_json_lines("{a},b\n1,2\n")
    assert not is_json_lines("")
    assert not is_json_lines("[1] note\n")
    assert begins_object('{\n "a": 1\n}')
    with pytest.raises(UnsupportedMediaType):
        is_json_lines('[\n  {"a": 1}\n]')


def test_depth_is_a_reject_and_no_crash() -> None:
    with pytest.raises(BadLine, match="too deep"):
        parse_line('{"a":' + "[" * 100_000)
