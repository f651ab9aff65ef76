"""The languages inside a workflow: conditions, references, output schemas, YAML."""

from __future__ import annotations

from typing import Any

import pytest

from services.observerd.core.workflow.conditions import BadCondition, parse_condition
from services.observerd.core.workflow.references import (
    Scope,
    find_references,
    parse_reference,
    resolve_value,
)
from services.observerd.core.workflow.schemas import check_schema, find_mismatch
from services.observerd.core.workflow.states import Result, Unresolved
from services.observerd.documents import parse_yaml
from shared.errors import Invalid

SCOPE = Scope(
    {"city": "Oslo", "n": 3},
    {
        "a": Result("completed", output={"n": 2, "t": "x", "l": [{"id": 7}], "b": True, "z": None}),
        "a-b": Result("completed", output=[1, 2]),
        "s": Result("skipped", skip_cause="condition"),
        "f": Result("failed"),
    },
)
NAMES = frozenset({"a", "a-b", "s", "f"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 == 1.0", True),
        ("true == 1", False),
        ("null == $a.output.z", True),
        ("'x' == $a.output.t", True),
        ("\"it's\" == 'it\\'s'", True),
        ("$a.output.n >= 2 && $a.output.n < 3", True),
        ("$a.output.l[0].id == 7", True),
        ("$a-b.output[1] == 2", True),
        ("$inputs.n > -1e1", True),
        ("$s.state == 'skipped'", True),
        # && binds tighter, and both stop when the answer is known.
        ("1 == 1 || $f.output.x == 1", True),
        ("1 == 2 && $f.output.x == 1 || 2 == 2", True),
        ("1 == 2 || 1 == 1 && 1 == 3", False),
        ("'a' < 'b'", True),
        ("01 == 1", True),
        ("$a.output.b != 1", True),
    ],
)
def test_conditions(text: str, expected: bool) -> None:
    assert parse_condition(text).holds(SCOPE) is expected


@pytest.mark.parametrize(
    "text",
    ["", "1", "1 ==", "== 1", "1 = 1", "1 == 1 &&", "(1 == 1)", "1 == 1 and 2 == 2", "1 == 'x",
     "a == 1", "1 == 1 2 == 2", "!$a.output", "$a == ", "1 === 1", "1 == 1 || || 2 == 2",
     "1 < 2 < 3", "$ == 1", "$a..b == 1"],
)  # fmt: skip
def test_what_is_no_condition_is_an_error_when_loaded(text: str) -> None:
    with pytest.raises(BadCondition):
        parse_condition(text)


@pytest.mark.parametrize(
    "text",
    ["$f.output.x == 1", "$s.output == 1", "$a.output.q == 1", "1 < 'a'", "true < 2",
     "$a.output.l[5] == 1", "$a.output.n.m == 1"],
)  # fmt: skip
def test_what_has_no_value_is_an_error_when_evaluated(text: str) -> None:
    with pytest.raises(Unresolved):
        parse_condition(text).holds(SCOPE)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("$a.output.n", 2),
        ("n=$a.output.n", "n=2"),
        ("${a.output.t}y", "xy"),
        ("$a.output.l", [{"id": 7}]),
        ("l=$a.output.l", 'l=[{"id": 7}]'),
        ("$inputs.city.", "Oslo."),
        ("$$a.output.n", "$a.output.n"),
        ("$5 and $USD", "$5 and $USD"),
        ({"k": ["$a.output.b", 1]}, {"k": [True, 1]}),
        ({"from": "$s.output.x", "if_skipped": [0]}, [0]),
        ({"from": "$a.output.n", "if_skipped": 0}, 2),
        ({"from": "x"}, {"from": "x"}),
        ("$a-b.output.0", 1),
    ],
)
def test_references_are_replaced(value: Any, expected: Any) -> None:
    assert resolve_value(value, SCOPE, NAMES) == expected


@pytest.mark.parametrize(
    "value",
    ["$f.output", "$s.output", "$a.output.q", "$later.output.x", "$inputs.q",
     {"from": "$f.output.x", "if_skipped": 1}],
)  # fmt: skip
def test_references_without_a_value_are_errors(value: Any) -> None:
    with pytest.raises(Unresolved):
        resolve_value(value, SCOPE, NAMES)


def test_references_are_found_where_they_stand() -> None:
    value = {"a": "$a.output x ${s.state}", "b": [{"c": "$b"}], "d": "$$x.output $f"}
    assert [r.text for r in find_references(value, NAMES)] == ["$a.output", "${s.state}", "$f"]
    assert parse_reference("$a.output.x y") is None
    reference = parse_reference("$a.state.x")
    assert reference is not None
    assert reference.check() is not None


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "integer"}, [1, 2.0], [True, 1.5, "1"]),
        ({"type": ["string", "null"]}, ["", None], [0]),
        ({"enum": [1, "a"]}, [1, 1.0, "a"], [True, "b"]),
        ({"const": {"a": 1}}, [{"a": 1}], [{"a": 2}, None]),
        ({"minimum": 0, "maximum": 1}, [0, 0.5, "any"], [-1, 2]),
        ({"minLength": 1, "maxLength": 2}, ["a", 5], ["", "abc"]),
        ({"items": {"type": "number"}, "maxItems": 2}, [[], [1, 2]], [[1, 2, 3], ["a"]]),
        ({"properties": {"a": {"type": "array"}}, "required": ["a"]}, [{"a": []}], [{}, {"a": 1}]),
        ({"properties": {"a": {}}, "additionalProperties": False}, [{"a": 1}], [{"b": 1}]),
    ],
)
def test_outputs_are_held_to_their_schema(
    schema: dict[str, Any], good: list[Any], bad: list[Any]
) -> None:
    assert check_schema(schema) == []
    assert [find_mismatch(value, schema) for value in good] == [None] * len(good)
    assert None not in [find_mismatch(value, schema) for value in bad]


@pytest.mark.parametrize(
    "schema",
    [{"pattern": "x"}, {"type": "text"}, {"properties": []}, {"required": "a"}, {"items": 1},
     {"properties": {"a": {"format": "date"}}}, {"minimum": "0"}, {"enum": 1}, {"maxItems": -1},
     {"additionalProperties": {}}],
)  # fmt: skip
def test_a_schema_that_would_not_be_checked_is_refused(schema: dict[str, Any]) -> None:
    assert check_schema(schema) != []


def test_yaml_is_what_it_looks_like() -> None:
    text = b"a: no\nb: 2020-01-01\nc: true\nd: 'true'\ne: 1.5\nf: ~\ng: [1, {h: on}]\n1: x"
    assert parse_yaml(text) == {
        "a": "no", "b": "2020-01-01", "c": True, "d": "true", "e": 1.5, "f": None,
        "g": [1, {"h": "on"}], "1": "x",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [b"a: &x [1]\nb: *x", b"a: 1\na: 2", b"a: [", b"? [a]\n: 1", b"<<: {a: 1}", b"a: .nan",
     b"a: !!python/object/apply:os.system [ls]", b"a: !!binary aGk=", b"\xff\xfe", b"[" * 200,
     b"a: !!timestamp 2020-01-01", b'a: "\\ud800"', b"--- 1\n--- 2"],
)  # fmt: skip
def test_yaml_that_json_cannot_carry_is_refused(text: bytes) -> None:
    with pytest.raises(Invalid):
        parse_yaml(text)
