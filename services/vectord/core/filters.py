"""The filter language: what a caller's JSON means, before any row is looked at.

    {"city": {"eq": "Oslo"}, "age": {"gte": 18, "lt": 65}}      all must hold
    {"or": [{"city": {"eq": "Oslo"}}, {"not": {"skills": {"contains": "python"}}}]}

A comparison is typed: a missing field, or a value of another type than the operand's,
matches no comparison, `ne` included. `not` is plain negation, so it does match such rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from shared.errors import Invalid

OPERATORS = ("eq", "ne", "in", "gt", "gte", "lt", "lte", "contains")
MAX_DEPTH = 16
MAX_CLAUSES = 512
MAX_OPTIONS = 10_000

Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Compare:
    """One comparison of the field `name`; `operand` is a tuple for `in`, else a scalar."""

    name: str
    operator: str
    operand: Scalar | tuple[Scalar, ...]
    # Part of what makes two comparisons equal: in Python 1 and True are, here they are not.
    kinds: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        operands = self.operand if isinstance(self.operand, tuple) else (self.operand,)
        object.__setattr__(self, "kinds", tuple(kind_of(value) for value in operands))


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds; with no parts, always."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Any:
    """At least one part holds; with no parts, never."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Filter


Filter = Compare | All | Any | Not


def parse_filter(given: object) -> Filter:
    """The filter that a caller's JSON stands for.

    Raises:
        Invalid: it is malformed; the message says where and what is expected.
    """
    budget = [MAX_CLAUSES]
    return _parse(given, "filter", 0, budget)


def _parse(given: object, where: str, depth: int, budget: list[int]) -> Filter:
    if depth > MAX_DEPTH:
        raise Invalid(f"{where}: filters nest at most {MAX_DEPTH} deep.")
    if not isinstance(given, Mapping):
        raise Invalid(f'{where}: expected an object like {{"city": {{"eq": "Oslo"}}}}.')
    parts: list[Filter] = []
    for name, value in cast("Mapping[str, object]", given).items():
        at = f"{where}.{name}"
        if name in ("and", "or"):
            if not isinstance(value, list) or not value:
                raise Invalid(f"{at}: expected a list of one or more filters.")
            inner = tuple(
                _parse(part, f"{at}[{i}]", depth + 1, budget)
                for i, part in enumerate(cast("list[object]", value))
            )
            parts.append(All(inner) if name == "and" else Any(inner))
        elif name == "not":
            parts.append(Not(_parse(value, at, depth + 1, budget)))
        else:
            parts += _parse_field(name, value, at, budget)
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def _parse_field(name: str, given: object, where: str, budget: list[int]) -> list[Filter]:
    if not isinstance(given, Mapping) or not given:
        raise Invalid(
            f'{where}: expected an object with an operator, like {{"eq": "Oslo"}}; '
            f"operators are {', '.join(OPERATORS)}."
        )
    found: list[Filter] = []
    for operator, operand in cast("Mapping[str, object]", given).items():
        budget[0] -= 1
        if budget[0] < 0:
            raise Invalid(f"A filter may hold {MAX_CLAUSES} comparisons. Use in, or ask twice.")
        at = f"{where}.{operator}"
        if operator not in OPERATORS:
            raise Invalid(f"{at}: no such operator; there are {', '.join(OPERATORS)}.")
        if operator == "in":
            if not isinstance(operand, list):
                raise Invalid(f"{at}: expected a list of strings, numbers or booleans.")
            options = cast("list[object]", operand)
            if len(options) > MAX_OPTIONS:
                raise Invalid(f"{at}: a list may hold {MAX_OPTIONS} values.")
            found.append(
                Compare(
                    name, operator, tuple(_scalar(v, f"{at}[{i}]") for i, v in enumerate(options))
                )
            )
            continue
        value = _scalar(operand, at)
        if operator in ("gt", "gte", "lt", "lte") and isinstance(value, bool):
            raise Invalid(f"{at}: expected a number or a string; booleans have no order.")
        found.append(Compare(name, operator, value))
    return found


def _scalar(value: object, where: str) -> Scalar:
    if isinstance(value, str | bool | int):
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


def holds(value: object, compare: Compare) -> bool:
    """Whether one present value satisfies a comparison. Exact: integers of any size."""
    operator, operand = compare.operator, compare.operand
    if operator == "contains":
        if isinstance(value, list):
            options = cast("list[object]", value)
            return any(kind_of(v) == kind_of(operand) and v == operand for v in options)
        return isinstance(value, str) and isinstance(operand, str) and operand in value
    if operator == "in":
        assert isinstance(operand, tuple)
        return any(kind_of(value) == kind_of(option) and value == option for option in operand)
    kind = kind_of(value)
    if kind != kind_of(operand) or kind in ("list", "other"):
        return False
    if operator == "eq":
        return value == operand
    if operator == "ne":
        return value != operand
    # Both are numbers or both are strings here; booleans were refused as operands.
    return _ordered(value, operand, operator)  # pyright: ignore[reportArgumentType]


def _ordered(value: float, operand: float, operator: str) -> bool:
    if operator == "gt":
        return value > operand
    if operator == "gte":
        return value >= operand
    return value < operand if operator == "lt" else value <= operand


def look_up(metadata: Mapping[str, object], field: str) -> tuple[bool, object]:
    """A field's value: a key of exactly this name, else the path its dots describe."""
    if field in metadata:
        return True, metadata[field]
    if "." not in field:
        return False, None
    here = metadata
    *parents, last = field.split(".")
    for part in parents:
        inner = here.get(part)
        if not isinstance(inner, Mapping):
            return False, None
        here = cast("Mapping[str, object]", inner)
    return (True, here[last]) if last in here else (False, None)
