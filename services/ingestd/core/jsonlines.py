"""Takes lines of JSON apart without changing a character of what they hold.

Numbers stay the text they were written as, members of objects stay in their order, and a
name that comes twice is seen: a parser that makes floats and dicts of them has lost both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from enum import IntFlag
from json.encoder import encode_basestring
from typing import Any, NoReturn

from shared.errors import UnsupportedMediaType

# Lines at the beginning that are looked at to tell JSON lines from CSV.
_LOOKED_AT = 5
_STRING = r'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+"'
_PLAIN_STRING = r'"[^"\\\x00-\x1f]*+"'
_NUMBER = r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+"
# A value that is no object or array.
_TOKEN = rf"{_STRING}|{_NUMBER}|true|false|null"
_TOKENS = re.compile(_TOKEN)
_NAME = re.compile(rf"[ \t]*({_PLAIN_STRING})[ \t]*:[ \t]*")
_AFTER = re.compile(r"[ \t]*([,}])")


class Kind(IntFlag):
    """What JSON says a value is. A column's kinds are all that its values have."""

    NONE = 0
    STRING = 1
    NUMBER = 2
    BOOLEAN = 4
    NESTED = 8


class Number(str):
    """A number as it was written."""

    __slots__ = ()


class Members(list[tuple[str, Any]]):
    """An object's members in their order; a name may come twice."""

    __slots__ = ()


class BadLine(Exception):
    """A line that is no row; `reason` is the reject's error type, the text says why."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def parse_line(line: str) -> Members:
    """The members of the object on a line.

    Raises:
        BadLine: there is no object, or one that cannot be a row.
    """
    try:
        found: object = _DECODER.decode(line)
        if not isinstance(found, Members):
            raise BadLine("not_object", f"is {_describe(found)}, not an object")
        if "\\u" in line:
            # An escape may be half a pair of surrogates, which no text holds.
            write_json(found).encode()
    except json.JSONDecodeError as error:
        raise BadLine("json", f"is not valid JSON: {error.msg} at character {error.pos + 1}") from (
            None
        )
    except UnicodeEncodeError:
        raise BadLine("encoding", "has an escape for half a surrogate pair, no character") from None
    except RecursionError:
        raise BadLine("too_deep", "nests too deep") from None
    return found


def find_twice(names: Iterable[str]) -> str | None:
    """A name that comes more than once."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def take_value(value: Any) -> tuple[Kind, str | None]:
    """A member's kind and text: strings as they are, numbers as written, the rest as JSON."""
    if value is None:
        return Kind.NONE, None
    if isinstance(value, Number):
        return Kind.NUMBER, str(value)
    if isinstance(value, str):
        return Kind.STRING, value
    if isinstance(value, bool):
        return Kind.BOOLEAN, "true" if value else "false"
    return Kind.NESTED, write_json(value)


def write_json(value: Any) -> str:
    """A value as JSON without blanks; numbers as they were written."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, Members):
        return "{" + ",".join(f"{encode_basestring(k)}:{write_json(v)}" for k, v in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(write_json, value)) + "]"  # pyright: ignore
    return "null" if value is None else "true" if value else "false"


class LinePattern:
    """Matches every line written like one: the same names, order and blanks, plain values.

    A program writes its rows all alike, and taking them apart by one pattern is many times
    faster than parsing each.

    Attributes:
        names: of the members, in order.
        literals: what stands before each value, and after the last.
    """

    def __init__(self, names: tuple[str, ...], literals: tuple[str, ...]) -> None:
        self.names = names
        self.literals = tuple(one.encode() for one in literals)
        pattern = f"({_TOKEN})".join(map(re.escape, literals))
        self._pattern = re.compile(rf"^{pattern}[ \t]*\r?\n".encode(), re.MULTILINE)
        self._line = re.compile(rf"{pattern}[ \t]*\r?".encode())

    def split(self, lines: bytes) -> list[tuple[bytes, ...]] | None:
        """The values' texts as they stand in the JSON, a tuple a line; None if one differs.

        No match is longer than a line, so as many matches as lines are all the lines.
        """
        found = self._pattern.findall(lines)
        if len(found) != lines.count(b"\n"):
            return None
        return [(one,) for one in found] if len(self.names) == 1 else found

    def split_line(self, line: bytes) -> tuple[bytes, ...] | None:
        """The values' texts on one line; None if it differs."""
        found = self._line.fullmatch(line)
        return None if found is None else found.groups()


def decode_string(token: bytes) -> str | None:
    """The text of a string as it stands in the JSON; None if it is half a surrogate pair."""
    text: str = json.loads(token)
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return text


def learn_pattern(line: str) -> LinePattern | None:
    """The pattern of lines like this valid one; None if it holds more than plain values."""
    start = line.find("{") + 1
    if start == 0 or line[: start - 1].strip(" \t"):
        return None
    literals: list[str] = []
    before = line[:start]
    names: list[str] = []
    position = start
    while True:
        name = _NAME.match(line, position)
        token = _TOKENS.match(line, name.end()) if name else None
        after = _AFTER.match(line, token.end()) if token else None
        if name is None or token is None or after is None:
            return None
        names.append(name[1][1:-1])
        literals.append(before + name[0])
        before = after[0]
        position = after.end()
        if after[1] == "}":
            break
    if line[position:].strip() or find_twice(names) is not None:
        return None
    return LinePattern(tuple(names), (*literals, before))


def is_json_lines(head: str) -> bool:
    """Whether text begins with lines of JSON objects.

    Raises:
        UnsupportedMediaType: it is JSON of another form.
    """
    if head.lstrip()[:1] == "[" and _begins_array(head.lstrip()):
        raise UnsupportedMediaType(
            "This is one JSON array, not JSON lines: after a damaged row the others could not be "
            "told apart. Send an object a line: jq -c '.[]' FILE."
        )
    lines = [line for line in head.splitlines() if line.strip()][:_LOOKED_AT]
    if not lines or not lines[0].lstrip().startswith("{"):
        return False
    return any(_is_object(line) for line in lines)


def begins_object(head: str) -> bool:
    """Whether text begins like one JSON object written over many lines."""
    lines = [line.strip() for line in head.splitlines() if line.strip()][:2]
    return len(lines) == 2 and lines[0] == "{" and bool(re.match(r'"[^"]*"\s*:', lines[1]))


def _begins_array(head: str) -> bool:
    return bool(re.match(r"\[\s*(?:\{\s*[\"}]|\])", head))


def _is_object(line: str) -> bool:
    try:
        parse_line(line)
    except BadLine:
        return False
    return True


def _describe(value: object) -> str:
    if isinstance(value, Number):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "a bare word"


def _refuse_constant(word: str) -> NoReturn:
    raise BadLine("json", f"is not valid JSON: {word} is no number there")


_DECODER = json.JSONDecoder(
    parse_float=Number,
    parse_int=Number,
    parse_constant=_refuse_constant,
    object_pairs_hook=Members,
)
