"""The filter language: typed comparisons, fields, bounds, and errors that say where."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import Invalid
from shared.filters.columns import Columns
from shared.filters.language import All, Compare, Field, holds, look_up, parse_filter

ANY_TEXT = st.text(st.characters())
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | ANY_TEXT
    | st.sampled_from(["eq", "in", "and", "or", "not"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)

VALUES: list[Any] = [None, True, False, 0, 1, 1.0, 2**60, "a", "A", "1", [1, "a"], [], {"k": 1}]


@pytest.mark.parametrize("operator", ["eq", "ne", "gt", "gte", "lt", "lte"])
@pytest.mark.parametrize("operand", [1, "a", 2**60 + 1, 0.5])
def test_comparisons_are_typed(operator: str, operand: Any) -> None:
    compare = Compare(Field("content", "x"), operator, operand)
    for value in VALUES[1:]:
        same = isinstance(value, str) == isinstance(operand, str)
        if isinstance(value, bool | list | dict) or not same:
            assert holds(value, compare) is False
        else:
            signs = {"eq": "==", "ne": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
            expected = eval(
                f"value {signs[operator]} operand", {"value": value, "operand": operand}
            )
            assert holds(value, compare) is expected


def test_look_up_prefers_a_key_of_the_very_name() -> None:
    assert look_up({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert look_up({"a": {"b": {"c": 3}}}, "a.b.c") == 3
    assert look_up({"a": {"b.c": 4, "b": {"c": 3}}}, "a.b.c") == 4
    for content in ("text", 7, [1], {"a": 1}, {"a": None}):
        assert look_up(content, "a.b") is None


@given(JSON)
def test_any_json_as_a_filter_is_parsed_or_refused(given_filter: Any) -> None:
    with contextlib.suppress(Invalid):
        assert parse_filter(given_filter, wildcard=True) is not None


@pytest.mark.parametrize(
    ("value", "operator", "operand", "expected"),
    [
        ("Oslo", "eq", "Oslo", True),
        ("Oslo", "ne", "Bergen", True),
        (3, "ne", "Bergen", False),
        (True, "eq", 1, False),
        (1, "eq", 1.0, True),
        (2**60 + 1, "gt", 2**60, True),
        (2**60, "gt", 2**60, False),
        ("b", "gt", "a", True),
        ("3", "gt", 2, False),
        (["a", "b"], "contains", "b", True),
        ([1], "contains", True, False),
        ("Tromsø", "contains", "ms", True),
        (5, "contains", 5, False),
        (5, "in", (1, 5), True),
        ("5", "in", (1, 5), False),
        (None, "eq", "x", False),
        ({"a": 1}, "ne", 1, False),
        (2, "lte", 2, True),
        (2, "lt", 2, False),
        (2, "gte", 2.5, False),
        (["a", "b"], "in", ("b", "c"), True),
        (["a"], "nin", ("b",), True),
        (["a", "b"], "nin", ("b",), False),
        ({"a": 1}, "nin", ("b",), False),
        ("STRASSE", "icontains", "straße", True),
        (["Welder"], "icontains", "welder", True),
        (0, "exists", True, True),
    ],
)
def test_a_comparison_holds(value: Any, operator: str, operand: Any, expected: bool) -> None:
    assert holds(value, Compare(Field("content", "f"), operator, operand)) is expected


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ([], "expected an object"),
        ({"city": ["Oslo"]}, "filter.city"),
        ({"city": None}, "filter.city"),
        ({"city": {}}, "operator"),
        ({"city": {"like": "x"}}, "no such operator"),
        ({"city": {"in": "Oslo"}}, "expected a list"),
        ({"city": {"eq": None}}, "finite number"),
        ({"city": {"eq": float("nan")}}, "finite number"),
        ({"a": {"gt": True}}, "no order"),
        ({"and": []}, "one or more"),
        ({"or": [{"a": []}]}, "filter.or[0].a"),
        ({"not": []}, "filter.not"),
        ({"a": {"eq": 2**64}}, "64 bits"),
        ({"a": {"in": [-(2**63) - 1]}}, "filter.a.in[0]"),
        ({"a": {"eq": "x\ud800"}}, "surrogate"),
        ({"a\udfff": {"eq": 1}}, "surrogate"),
        ({"a": {"\ud800": 1}}, "surrogate"),
        ({"a": {"exists": 1}}, "true or false"),
        ({"a": {"icontains": 1}}, "a string"),
    ],
)
def test_a_malformed_filter_is_told_where(wrong: Any, word: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_filter(wrong)
    assert word in caught.value.message


def test_filters_have_bounds() -> None:
    deep: Any = {"a": {"eq": 1}}
    for _ in range(20):
        deep = {"not": deep}
    with pytest.raises(Invalid, match="deep"):
        parse_filter(deep)
    with pytest.raises(Invalid, match="512"):
        parse_filter({"or": [{"a": {"eq": n}} for n in range(600)]})
    assert parse_filter({}) == All(())


def test_columns_grow_with_the_rows_and_agree_with_looking_at_each() -> None:
    chance = random.Random(1)
    values = [*VALUES, ["ab"], "Ø", -0.5, 2**60 + 1, -(2**63), 2**64 - 1, {"x": 1}, False]
    rows = [chance.choice(values) for _ in range(300)]
    columns = Columns(lambda row, fields: [rows[row] for _ in fields])
    operands: list[Any] = [1, 1.0, True, "a", "1", 2**60, 2**60 + 1, 0, "", 0.5, 2**64 - 1]
    for operator in ("eq", "ne", "gt", "gte", "lt", "lte", "contains", "in", "nin", "icontains"):
        for operand in operands:
            asked = {"f": {operator: [operand, "b"] if operator in ("in", "nin") else operand}}
            with contextlib.suppress(Invalid):
                compare = parse_filter(asked)
                assert isinstance(compare, Compare)
                expected = [value is not None and holds(value, compare) for value in rows]
                count = chance.randrange(1, 300)
                assert columns.mask(compare, count).tolist() == expected[:count], asked
                assert columns.mask(compare, 300).tolist() == expected, asked
    there = [value is not None for value in rows]
    assert columns.mask(parse_filter({"f": {"exists": True}}), 300).tolist() == there
    assert columns.mask(parse_filter({"not": {"f": {"exists": False}}}), 300).tolist() == there


def test_columns_of_ever_new_names_do_not_pile_up() -> None:
    rows = [{"a": n, "n": 1} for n in range(50)]
    read: list[str] = []

    def read_row(row: int, fields: Sequence[Field]) -> list[object]:
        read.extend(field.name for field in fields if row == 0)
        return [rows[row].get(field.name) for field in fields]

    columns = Columns(read_row)
    for number in range(200):
        assert columns.mask(parse_filter({"a": {"gte": 1}, f"no{number}": 1}), 50).sum() == 0
    assert len(columns.fields) <= 32
    assert read.count("a") == 1, "what is asked for again and again is kept"
    many = {"or": [{f"no{number}": 1} for number in range(100)] + [{"a": 7}]}
    assert columns.mask(parse_filter(many), 50).sum() == 1
    assert columns.mask(parse_filter({"a": 8}), 50).tolist() == [n == 8 for n in range(50)]
    assert len(columns.fields) <= 32
