"""What filters can name of a trace: its own fields, and paths in its content."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from services.pathwayd.core.traces import Trace, format_time, parse_time
from shared.errors import Invalid
from shared.filters.language import (
    All,
    Compare,
    Field,
    Filter,
    Not,
    Resolve,
    look_up,
    parse_filter,
)
from shared.filters.language import Any as AnyOf

# The trace's own fields; all others are paths in its content.
OWN_FIELDS = frozenset("id version tags surface created_at updated_at supersedes".split())


# Texts of one length in UTC, which therefore sort as the instants they name.
_TIMES = (Field("trace", "created_at"), Field("trace", "updated_at"))


def resolve_field(name: str) -> Field:
    """A field by the name that callers of the pathway routes use."""
    if name in OWN_FIELDS:
        return Field("trace", name)
    return Field("content", name.removeprefix("content."))


def read_filter(given: object, resolve: Resolve, *, wildcard: bool = False) -> Filter:
    """The filter that a caller's JSON stands for; times in it are instants, not texts.

    Raises:
        Invalid: it is malformed, or compares a trace's times with what is no time.
    """
    return _with_times(parse_filter(given, resolve, wildcard=wildcard))


def _with_times(given: Filter) -> Filter:
    if isinstance(given, Not):
        return Not(_with_times(given.part))
    if isinstance(given, All):
        return All(tuple(_with_times(part) for part in given.parts))
    if isinstance(given, AnyOf):
        return AnyOf(tuple(_with_times(part) for part in given.parts))
    field, operator, operand = given.field, given.operator, given.operand
    if field not in _TIMES or operator in ("exists", "contains", "icontains"):
        return given
    if isinstance(operand, tuple):
        return Compare(field, operator, tuple(_read_time(field, one) for one in operand))
    return Compare(field, operator, _read_time(field, operand))


def _read_time(field: Field, given: object) -> str:
    try:
        return format_time(parse_time(str(given)))
    except (ValueError, OverflowError):
        raise Invalid(
            f"filter.{field.name}: expected a time like 2026-12-31T18:00:00Z, or a day like "
            "2026-12-31, which stands for its first instant in UTC."
        ) from None


def read_fields(trace: Trace, fields: Sequence[Field]) -> list[object]:
    """A trace's values of some fields, None where it has none; its content is parsed once."""
    parse = any(field.scope == "content" for field in fields)
    content = orjson.loads(trace.content) if parse else None
    return [_read_field(trace, content, field) for field in fields]


def _read_field(trace: Trace, content: object, field: Field) -> object:
    if field.scope == "content":
        return look_up(content, field.name)
    if field.name == "tags":
        return list(trace.tags)
    if field.name == "created_at":
        return format_time(trace.created)
    if field.name == "updated_at":
        return format_time(trace.updated)
    return getattr(trace, field.name)
