"""The filter language: what a caller's JSON means, before any row is looked at.

    {"city": {"eq": "Oslo"}, "age": {"gte": 18, "lt": 65}}      all must hold
    {"or": [{"tags": {"contains": "night"}}, {"not": {"outcome": "failed"}}]}

A comparison is typed: a missing field, null, or a value of another type than the operand's
matches no comparison, `ne` and `nin` included. `not` is plain negation and does match it.
A list matches `contains`, `icontains` and `in` by any element, `nin` by none. A bare value asks
for equality: `{"city": "Oslo"}`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

from shared.errors import Invalid

OPERATORS = ("eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "contains", "icontains", "exists")
MAX_DEPTH = 16
MAX_CLAUSES = 512
MAX_OPTIONS = 10_000
MAX_FIELD_CHARS = 512

Scalar = str | int | float | bool


class Field(NamedTuple):
    """A value of a row: a path in what callers gave (`content`), or in another of its scopes."""

    scope: str
    name: str


@dataclass(frozen=True, slots=True)
class Compare:
    """One comparison; `operand` is a tuple for `in` and `nin`, else a scalar."""

    field: Field
    operator: str
    operand: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds; with no parts, always."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Any:
    """At least one part holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Filter


Filter = Compare | All | Any | Not
Resolve = Callable[[str], Field]


def in_content(name: str) -> Field:
    """The field of a name where all that can be asked for is what callers gave."""
    return Field("content", name)


def parse_filter(given: object, resolve: Resolve = in_content, *, wildcard: bool = False) -> Filter:
    """The filter that a caller's JSON stands for.

    Args:
        given: the JSON.
        resolve: where a field of a name is.
        wildcard: the operand `*` asks whether the field is there (mem0's way).

    Raises:
        Invalid: it is malformed; the message says where and what is expected.
    """
    return _Parser(resolve, wildcard).parse(given, "filter", 0)


class _Parser:
    def __init__(self, resolve: Resolve, wildcard: bool) -> None:
        self._resolve = resolve
        self._wildcard = wildcard
        self._left = MAX_CLAUSES

    def parse(self, given: object, where: str, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise Invalid(f"{where}: filters nest at most {MAX_DEPTH} deep.")
        if not isinstance(given, Mapping):
            raise Invalid(f'{where}: expected an object like {{"city": {{"eq": "Oslo"}}}}.')
        parts: list[Filter] = []
        for name, value in cast("Mapping[str, object]", given).items():
            at = f"{where}.{_checked(name[:64], where)}"
            if name in ("and", "or", "AND", "OR"):
                inner = self._parse_list(value, at, depth)
                parts.append(All(inner) if name in ("and", "AND") else Any(inner))
            elif name in ("not", "NOT"):
                if isinstance(value, list):
                    parts.append(Not(Any(self._parse_list(cast("object", value), at, depth))))
                else:
                    parts.append(Not(self.parse(value, at, depth + 1)))
            else:
                parts += self._parse_field(name, value, at)
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _parse_list(self, value: object, at: str, depth: int) -> tuple[Filter, ...]:
        if not isinstance(value, list) or not value:
            raise Invalid(f"{at}: expected a list of one or more filters.")
        options = cast("list[object]", value)
        return tuple(self.parse(one, f"{at}[{n}]", depth + 1) for n, one in enumerate(options))

    def _parse_field(self, name: str, given: object, where: str) -> list[Filter]:
        if not name or len(name) > MAX_FIELD_CHARS:
            raise Invalid(f"{where}: a field's name has 1 to {MAX_FIELD_CHARS} characters.")
        field = self._resolve(_checked(name, where))
        if self._wildcard and given == "*":
            return [self._count(Compare(field, "exists", True))]
        if isinstance(given, str | int | float):
            return [self._count(Compare(field, "eq", _scalar(given, where)))]
        if not isinstance(given, Mapping) or not given:
            raise Invalid(
                f'{where}: expected a value, or an object with an operator like {{"eq": "Oslo"}}; '
                f"operators are {', '.join(OPERATORS)}."
            )
        found: list[Filter] = []
        for operator, operand in cast("Mapping[str, object]", given).items():
            at = f"{where}.{_checked(operator[:64], where)}"
            if self._wildcard and operand == "*" and operator in ("eq", "in", "contains"):
                found.append(self._count(Compare(field, "exists", True)))
            else:
                found.append(self._count(_compare(field, operator, operand, at)))
        return found

    def _count(self, compare: Compare) -> Compare:
        self._left -= 1
        if self._left < 0:
            raise Invalid(f"A filter may hold {MAX_CLAUSES} comparisons. Use in, or ask twice.")
        return compare


def _compare(field: Field, operator: str, operand: object, at: str) -> Compare:
    if operator not in OPERATORS:
        raise Invalid(f"{at}: no such operator; there are {', '.join(OPERATORS)}.")
    if operator in ("in", "nin"):
        if not isinstance(operand, list):
            raise Invalid(f"{at}: expected a list of strings, numbers or booleans.")
        options = cast("list[object]", operand)
        if len(options) > MAX_OPTIONS:
            raise Invalid(f"{at}: a list may hold {MAX_OPTIONS} values.")
        taken = tuple(_scalar(v, f"{at}[{i}]") for i, v in enumerate(options))
        return Compare(field, operator, taken)
    value = _scalar(operand, at)
    if operator == "exists" and not isinstance(value, bool):
        raise Invalid(f"{at}: expected true or false.")
    if operator in ("gt", "gte", "lt", "lte") and isinstance(value, bool):
        raise Invalid(f"{at}: expected a number or a string; booleans have no order.")
    if operator == "icontains" and not isinstance(value, str):
        raise Invalid(f"{at}: expected a string.")
    return Compare(field, operator, value)


def _checked(text: str, where: str) -> str:
    """The text, which must be one that can be written down: JSON's escapes can also make others."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Invalid(f"{ascii(where)[1:-1]}: the text holds half of a surrogate pair.") from None
    return text


def _scalar(value: object, where: str) -> Scalar:
    if isinstance(value, str):
        return _checked(value, where)
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise Invalid(f"{where}: integers have at most 64 bits.")
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise Invalid(f"{where}: expected a string, a finite number or a boolean.")


def kind_of(value: object) -> str:
    """The type that comparisons see: bool, number, string, list, or other."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "list" if isinstance(value, list) else "other"


def equals(value: object, operand: object) -> bool:
    """Whether two scalars are the same, type included. Integers of any size are exact."""
    return kind_of(value) == kind_of(operand) and value == operand


def holds(value: object, compare: Compare) -> bool:
    """Whether one present value (never null) satisfies a comparison."""
    operator, operand = compare.operator, compare.operand
    if operator == "exists":
        return operand is True
    if isinstance(value, list):
        return _holds_list(cast("list[object]", value), operator, operand)
    if operator in ("in", "nin"):
        options = cast("tuple[Scalar, ...]", operand)
        if kind_of(value) == "other":
            return False
        return any(equals(value, option) for option in options) == (operator == "in")
    if operator == "contains":
        return isinstance(value, str) and isinstance(operand, str) and operand in value
    if operator == "icontains":
        both = isinstance(value, str) and isinstance(operand, str)
        return both and cast("str", operand).casefold() in cast("str", value).casefold()
    if kind_of(value) != kind_of(operand) or kind_of(value) == "other":
        return False
    if operator == "eq":
        return value == operand
    if operator == "ne":
        return value != operand
    # Both are numbers or both are strings here; booleans were refused as operands.
    return _ordered(value, operand, operator)  # pyright: ignore[reportArgumentType]


def _holds_list(value: list[object], operator: str, operand: object) -> bool:
    if operator == "contains":
        return any(equals(element, operand) for element in value)
    if operator == "icontains":
        folded = cast("str", operand).casefold()
        return any(isinstance(e, str) and e.casefold() == folded for e in value)
    if operator in ("in", "nin"):
        options = cast("tuple[Scalar, ...]", operand)
        found = any(equals(element, option) for element in value for option in options)
        return found == (operator == "in")
    return False


def _ordered(value: float, operand: float, operator: str) -> bool:
    if operator == "gt":
        return value > operand
    if operator == "gte":
        return value >= operand
    return value < operand if operator == "lt" else value <= operand


def look_up(content: object, path: str) -> object:
    """A field's value: a key of exactly this name, else the path its dots describe.

    So in whatever a path leads into, too. None when there is none, or when it is null.
    """
    here = content
    while isinstance(here, Mapping):
        inner = cast("Mapping[str, object]", here)
        if path in inner or "." not in path:
            return inner.get(path)
        first, path = path.split(".", 1)
        here = inner.get(first)
    return None
