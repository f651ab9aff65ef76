"""Types of nested values: guessed from JSON, and taken apart for DuckDB's `from_json`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from services.ingestd.core.jsonlines import Members, Number
from services.ingestd.core.ladder import is_bigint

# Types that are deeper stay JSON text.
MAX_DEPTH = 8
# Objects of more different names are maps written as objects, and stay JSON text.
_MAX_MEMBERS = 200
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_WORD = re.compile(r'"(?:[^"]|"")*"|[A-Za-z_][\w ]*(?:\([0-9, ]+\))?|[(),\[\]]')

# None: the values have no type in common. "": none of them says anything.
Guess = str | None


@dataclass(frozen=True, slots=True)
class Node:
    """A type: a scalar's name, or STRUCT, LIST or MAP with what it is made of."""

    name: str
    members: tuple[tuple[str, Node], ...] = ()


class Unreadable(Exception):
    """A type's name is not understood."""


class Shape:
    """The type that all of a column's nested values have, as far as seen."""

    def __init__(self) -> None:
        self._node: Node | None = Node("")

    def add(self, value: Any) -> None:
        """Sees another value."""
        if self._node is not None:
            found = _node_of(value, 0)
            self._node = None if found is None else merge(self._node, found)

    @property
    def type(self) -> str | None:
        """Its name in SQL; None where there is none."""
        if self._node is None or not _is_whole(self._node):
            return None
        return write_type(self._node)


def merge(one: Node, other: Node) -> Node | None:
    """What both are; numbers with and without a fraction are DOUBLE."""
    if not one.name:
        return other
    if not other.name or one == other:
        return one
    if {one.name, other.name} == {"BIGINT", "DOUBLE"}:
        return Node("DOUBLE")
    if one.name != other.name or len(one.members) != len(other.members):
        return None
    members: list[tuple[str, Node]] = []
    for (name, mine), (theirs, yours) in zip(one.members, other.members, strict=True):
        merged = merge(mine, yours) if name == theirs else None
        if merged is None:
            return None
        members.append((name, merged))
    return Node(one.name, tuple(members))


def write_type(node: Node) -> str:
    """A type's name in SQL; every member's name in quotes."""
    if node.name == "LIST":
        return write_type(node.members[0][1]) + "[]"
    if node.name == "MAP":
        return f"MAP({write_type(node.members[0][1])}, {write_type(node.members[1][1])})"
    if node.name == "STRUCT":
        listed = ", ".join(f"{_quote(name)} {write_type(kind)}" for name, kind in node.members)
        return f"STRUCT({listed})"
    return node.name


def read_type(name: str) -> Node:
    """A type by its name in SQL.

    Raises:
        Unreadable: it is none, or deeper than anything here.
    """
    words = _WORD.findall(name)
    reader = _TypeReader(words)
    node = reader.read(0)
    if reader.at != len(words):
        raise Unreadable(name)
    return node


def is_nested(type_name: str) -> bool:
    """Whether values of the type have parts."""
    return type_name.endswith("]") or type_name.startswith(("STRUCT(", "MAP("))


def structure_of(type_name: str) -> str:
    """What `from_json` wants to hear of a type.

    Raises:
        Unreadable: the name is not understood.
    """
    return json.dumps(_structure(read_type(type_name)), ensure_ascii=False)


def _structure(node: Node) -> Any:
    if node.name == "LIST":
        return [_structure(node.members[0][1])]
    if node.name == "STRUCT":
        return {name: _structure(kind) for name, kind in node.members}
    return write_type(node)


class _TypeReader:
    def __init__(self, words: list[str]) -> None:
        self._words = words
        self.at = 0

    def read(self, depth: int) -> Node:
        if depth > 2 * MAX_DEPTH:
            raise Unreadable
        word = self._next().strip()
        if word == "STRUCT":
            members: list[tuple[str, Node]] = []
            self._expect("(")
            while True:
                members.append(self._read_member(depth))
                if self._next() == ")":
                    break
            node = Node("STRUCT", tuple(members))
        elif word == "MAP":
            self._expect("(")
            key = self.read(depth + 1)
            self._expect(",")
            value = self.read(depth + 1)
            self._expect(")")
            node = Node("MAP", (("key", key), ("value", value)))
        else:
            node = Node(word)
        while self.at < len(self._words) and self._words[self.at] == "[":
            self.at += 1
            self._expect("]")
            node = Node("LIST", (("element", node),))
        return node

    def _read_member(self, depth: int) -> tuple[str, Node]:
        word = self._next()
        if word.startswith('"'):
            return word[1:-1].replace('""', '"'), self.read(depth + 1)
        name, _, kind = word.partition(" ")
        if not kind:
            raise Unreadable(word)
        self.at -= 1
        self._words[self.at] = kind
        return name, self.read(depth + 1)

    def _next(self) -> str:
        if self.at >= len(self._words):
            raise Unreadable
        self.at += 1
        return self._words[self.at - 1]

    def _expect(self, word: str) -> None:
        if self._next() != word:
            raise Unreadable(word)


def _node_of(value: Any, depth: int) -> Node | None:
    if value is None:
        return Node("")
    if isinstance(value, Number):
        whole = _INTEGER.fullmatch(value) and is_bigint(value)
        return Node("BIGINT" if whole else "DOUBLE")
    if isinstance(value, str):
        return Node("VARCHAR")
    if isinstance(value, bool):
        return Node("BOOLEAN")
    if depth == MAX_DEPTH:
        return None
    if isinstance(value, Members):
        if len({name.casefold() for name, _ in value}) < len(value) or len(value) > _MAX_MEMBERS:
            return None
        members: list[tuple[str, Node]] = []
        for name, inner in value:
            found = _node_of(inner, depth + 1)
            # DuckDB's names cannot be empty, and a NUL ends them.
            if found is None or not name or "\0" in name:
                return None
            members.append((name, found))
        return Node("STRUCT", tuple(members)) if members else None
    element = Node("")
    for inner in value:
        found = _node_of(inner, depth + 1)
        merged = None if found is None else merge(element, found)
        if merged is None:
            return None
        element = merged
    return Node("LIST", (("element", element),))


def _is_whole(node: Node) -> bool:
    """Whether nothing in it was always empty; only values could say what that is."""
    return bool(node.name) and all(_is_whole(kind) for _, kind in node.members)


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
