"""JSON with one spelling, so that equal content has equal bytes and an equal hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from shared.errors import Invalid


def write_json(value: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8, no NaN.

    Raises:
        Invalid: the value holds what JSON cannot carry.
    """
    try:
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        return text.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise Invalid(f"This cannot be written as JSON: {error}.") from None


def write_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A row a line, each with its newline."""
    return b"".join(write_json(row) + b"\n" for row in rows)


def hash_bytes(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def hash_json(value: Any) -> str:
    """SHA-256 of the value's one spelling."""
    return hash_bytes(write_json(value))
