"""What the pretend models say: deterministic, conforming, and near for like texts."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest

from services.fake_ollama.core.answering import answer_chat, split_pieces
from services.fake_ollama.core.catalogue import Catalogue, PretendModel
from services.fake_ollama.core.embedding import embed, normalize, tokenize, truncate
from services.fake_ollama.core.schema import conform
from services.fake_ollama.core.script import NOTHING, ScriptBook
from shared.errors import Invalid, NotFound
from shared.wire.fake_ollama import Function, Message, ScriptRule, Tool


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


@pytest.mark.parametrize("text", ["", " ", "a", " a  b ", "a\n\nb c\t", "x" * 50])
def test_pieces_join_to_the_text(text: str) -> None:
    assert "".join(split_pieces(text)) == text


def test_the_same_request_has_the_same_answer() -> None:
    assert answer_chat(user("hi you")) == answer_chat(user("hi you"))
    assert answer_chat(user("hi you")) != answer_chat(user("hi me"))


@pytest.mark.parametrize(
    ("schema", "check"),
    [
        ({"type": "integer", "minimum": 5}, lambda v: v == 5),
        ({"type": "integer", "exclusiveMinimum": 5}, lambda v: v == 6),
        ({"type": "integer", "maximum": -3}, lambda v: v == -3),
        ({"type": "integer", "exclusiveMaximum": 1}, lambda v: v == 0),
        ({"type": "integer", "multipleOf": 4}, lambda v: v == 4),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, lambda v: 0 < v < 1),
        ({"type": "boolean"}, lambda v: v is True),
        ({"type": "null"}, lambda v: v is None),
        ({"const": 7}, lambda v: v == 7),
        ({"enum": ["red", "blue"]}, lambda v: v == "blue"),
        ({"enum": [3, 4]}, lambda v: v == 3),
        ({"type": "string", "minLength": 30}, lambda v: len(v) == 30),
        ({"type": "string", "maxLength": 2}, lambda v: len(v) == 2),
        ({"type": "string", "format": "date"}, lambda v: v == "2025-01-01"),
        ({"type": ["null", "string"]}, lambda v: v == "a blue text"),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, lambda v: v == 1),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3}, lambda v: v == [1] * 3),
        ({"type": "array", "items": {}, "maxItems": 0}, lambda v: v == []),
        ({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}]}, lambda v: v == [1, 2]),
        ({"properties": {"a": {}}, "required": ["b"]}, lambda v: set(v) == {"a", "b"}),
        (
            {
                "allOf": [{"$ref": "#/$defs/x"}, {"properties": {"b": {}}}],
                "$defs": {"x": {"type": "object", "properties": {"a": {}}}},
            },
            lambda v: set(v) == {"a", "b"},
        ),
    ],
)  # fmt: skip
def test_values_conform(schema: dict[str, Any], check: Any) -> None:
    assert check(conform(schema, "a blue text"))


def test_recursive_schemas_end() -> None:
    node = {
        "type": "object",
        "properties": {
            "value": {"type": "integer"},
            "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
        },
        "required": ["value"],
    }
    value = conform({"$ref": "#/$defs/node", "$defs": {"node": node}}, "x")
    assert value["value"] == 1
    assert len(json.dumps(value)) < 1_000_000


def test_tools_are_called_only_when_a_user_names_them() -> None:
    tools = [Tool(function=Function(name="get_weather")), Tool(function=Function(name="add"))]
    called = answer_chat(user("Get Weather and add"), tools=tools)
    assert [call.name for call in called.calls] == ["get_weather", "add"]
    assert called.content == ""
    assert answer_chat(user("hello"), tools=tools).calls == []
    after = [*user("add"), Message(role="tool", content="add gives 3")]
    assert answer_chat(after, tools=tools).calls == []
    assert len({call.id for call in called.calls}) == 2


def test_a_script_overrides_what_would_be_said() -> None:
    rule = ScriptRule(content="x y z", thinking="t", done_reason="length")
    answer = answer_chat(user("hi"), rule=rule, think=False)
    assert (answer.content, answer.thinking, answer.done_reason) == ("x y z", "t", "length")


def test_texts_that_share_words_are_near() -> None:
    texts = [
        "registered nurse in Oslo",
        "nurses registered, Oslo",
        "diesel engine repair",
        "!!!",
        "ny",
    ]
    vectors = [normalize(embed(text, 256)) for text in texts]
    near = [
        sum(a * b for a, b in zip(vectors[i], vectors[j], strict=True))
        for i, j in itertools.combinations(range(len(texts)), 2)
    ]
    assert near[0] > 0.5
    assert all(abs(value) < 0.4 for value in near[1:])
    assert all(math.isclose(math.hypot(*v), 1) for v in vectors)


@pytest.mark.parametrize("dim", [1, 7, 4096])
def test_any_dimension_has_a_vector(dim: int) -> None:
    for text in ("a b", "", "\ud800"):
        vector = embed(text, dim)
        assert len(vector) == dim
        assert all(vector)


def test_truncation_counts_tokens() -> None:
    text = "one two, three four"
    assert tokenize(text) == ["one", "two", ",", "three", "four"]
    assert tokenize(truncate(text, 3)) == ["one", "two", ","]
    assert truncate(text, 9) == text


def test_models_are_found_by_name_with_or_without_latest() -> None:
    model = PretendModel("org/m:latest", frozenset({"embedding"}), 10, 4)
    catalogue = Catalogue({model.name: model})
    assert catalogue.find("org/m") is catalogue.find("org/m:latest") is model
    for name, error in (("org/m:v2", NotFound), ("m", NotFound), ("", Invalid)):
        with pytest.raises(error):
            catalogue.find(name)
    with pytest.raises(Invalid, match='"org/m" does not support chat'):
        catalogue.find_able("org/m", "completion", "chat")
    other = PretendModel("org/m:latest", frozenset({"embedding"}), 11, 4)
    assert other.digest != model.digest


def test_rules_are_used_as_often_as_they_say() -> None:
    book = ScriptBook()
    book.add([ScriptRule(path="/a", times=2), ScriptRule(contains="x", times=None)])
    assert book.take("/b", "", "y") is NOTHING
    assert [book.take("/a", "", "").path for _ in range(3)] == ["/a", "/a", None]
    assert [book.take("/b", "m", "axb").contains for _ in range(3)] == ["x"] * 3
    book.clear()
    assert book.rules == []
