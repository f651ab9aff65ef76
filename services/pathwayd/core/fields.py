"""What filters can name of a trace: its own fields, and paths in its content."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from services.pathwayd.core.traces import Trace, format_time
from shared.filters.language import Field, look_up

# The trace's own fields; all others are paths in its content.
OWN_FIELDS = frozenset("id version tags surface created_at updated_at supersedes".split())


def resolve_field(name: str) -> Field:
    """A field by the name that callers of the pathway routes use."""
    if name in OWN_FIELDS:
        return Field("trace", name)
    return Field("content", name.removeprefix("content."))


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
