"""What is read of a model that extracts facts."""

from __future__ import annotations

import json

import pytest

from services.pathwayd.core.facts import (
    MAX_FACT_CHARS,
    MAX_FACTS,
    leave_out,
    list_sayings,
    make_question,
    read_facts,
)


@pytest.mark.parametrize(
    ("answer", "facts"),
    [
        ('{"facts": ["Al likes fjords."]}', ["Al likes fjords."]),
        ('Sure!\n```json\n{"facts": ["a", " b\\n c ", "", "a"]}\n```', ["a", "b c"]),
        ('{"facts": []}', []),
        ('{"facts": "none"}', None),
        ('{"facts": [1]}', None),
        ('{"other": []}', None),
        ("There are none.", None),
        ("{", None),
        ("[]", None),
    ],
)
def test_only_a_list_of_facts_is_one(answer: str, facts: list[str] | None) -> None:
    assert read_facts(answer) == facts


def test_facts_are_bounded() -> None:
    many = json.dumps({"facts": [f"fact {n}" for n in range(MAX_FACTS + 5)]})
    assert len(read_facts(many) or []) == MAX_FACTS
    assert read_facts(json.dumps({"facts": ["x" * (MAX_FACT_CHARS + 1), "b"]})) == ["b"]


def test_the_model_sees_who_said_what() -> None:
    asked = make_question([("user", "al", "I like fjords"), ("assistant", None, "Noted.")])
    assert asked == "Conversation:\nal: I like fjords\nassistant: Noted."


def test_only_what_was_recalled_is_left_out() -> None:
    recalled = {"likes tea", "a\nb", "3 cats"}
    for text, left in (
        ("likes tea", ""),
        (" - likes tea \n", ""),
        ("2) likes tea\n\u2022 likes tea\n> likes tea", ""),
        ("a\nb", ""),
        ("says: likes tea", "says: likes tea"),
        ("likes tea\r\nand cake\n", "and cake"),
        ("and cake\n", "and cake\n"),
        ("3 cats", ""),
        ("", ""),
    ):
        assert leave_out(text, recalled) == left, text
        if left != text:
            assert list_sayings(text) & recalled
    assert list_sayings(" \n- \n") <= {"-"}
