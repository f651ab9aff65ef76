"""JSON that nobody has checked, read without trust: what is of another type is absent.

And written without fear: callers' schemas may hold numbers that the fast writer has no form for.
"""

from __future__ import annotations

import json
from typing import Any, cast

import orjson

Object = dict[str, Any]


def as_object(value: object) -> Object:
    """The value if it is an object, else an empty one."""
    return cast("Object", value) if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def as_objects(value: object) -> list[Object]:
    """The objects of a list."""
    return [cast("Object", item) for item in as_list(value) if isinstance(item, dict)]


def as_text(value: object) -> str:
    """The value if it is text, else nothing."""
    return value if isinstance(value, str) else ""


def as_count(value: object) -> int:
    """The value if it is a number of something, else 0."""
    return int(value) if isinstance(value, int | float) and value > 0 else 0


def write_json(value: object) -> bytes:
    """JSON text."""
    try:
        return orjson.dumps(value)
    except TypeError:
        # Integers over 64 bits, which JSON allows.
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
