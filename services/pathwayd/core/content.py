"""What a caller's JSON may be, what it hashes to, and which words of it are searched."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import orjson

from shared.errors import Invalid, TooLarge

MAX_DEPTH = 64
MAX_TAGS = 64
MAX_TAG_CHARS = 256
# What the log's JSON can carry exactly.
_SMALLEST, _GREATEST = -(2**63), 2**64 - 1


def encode_content(content: object, limit: int) -> bytes:
    """The content as JSON, its keys in the order in which they came.

    Raises:
        Invalid: it is null, too deep, or holds a number that JSON cannot carry exactly.
        TooLarge: it takes more than `limit` bytes.
    """
    if content is None:
        raise Invalid("content: null is no content. Send any other JSON, an object for example.")
    check_json(content, "content")
    blob = orjson.dumps(content)
    if len(blob) > limit:
        raise TooLarge(
            f"content takes {len(blob)} bytes as JSON; {limit} are allowed. "
            "Store the large part as an object (PUT /storage/objects/…) and keep its key here.",
            details={"bytes": len(blob), "limit_bytes": limit},
        )
    return blob


def check_json(value: object, where: str, depth: int = 0) -> None:
    """Passes when a parsed value comes back from the log exactly as it is.

    Raises:
        Invalid: it does not; the message says where.
    """
    if depth > MAX_DEPTH:
        raise Invalid(f"{where}: JSON may nest {MAX_DEPTH} deep here.")
    if isinstance(value, str):
        check_unicode(value, where)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise Invalid(f"{where}: NaN and infinity are no JSON. Send null or a string.")
    elif isinstance(value, bool):
        return
    elif isinstance(value, int):
        if not _SMALLEST <= value <= _GREATEST:
            raise Invalid(f"{where}: an integer of more than 64 bits. Send it as a string.")
    elif isinstance(value, dict):
        for key, inner in cast("dict[str, object]", value).items():
            check_unicode(key, where)
            check_json(inner, f"{where}.{key}" if depth < 8 else where, depth + 1)
    elif isinstance(value, list):
        for inner in cast("list[object]", value):
            check_json(inner, where, depth + 1)


def check_unicode(text: str, where: str) -> None:
    """Passes when a string can be written as UTF-8.

    Raises:
        Invalid: it holds half of a surrogate pair.
    """
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise Invalid(f"{where}: the string holds half of a surrogate pair.") from None


def digest_of(content: object) -> bytes:
    """SHA-256 of the content as canonical JSON: the same however its keys were ordered."""
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).digest()


def clean_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """The tags without repeats, in their order.

    Raises:
        Invalid: one is empty or too long, or there are too many.
    """
    for number, tag in enumerate(tags):
        if not tag.strip() or len(tag) > MAX_TAG_CHARS:
            raise Invalid(f"tags[{number}]: a tag has 1 to {MAX_TAG_CHARS} characters.")
        check_unicode(tag, f"tags[{number}]")
    found = tuple(dict.fromkeys(tags))
    if len(found) > MAX_TAGS:
        raise Invalid(f"tags: {len(found)} tags; a trace may have {MAX_TAGS}.")
    return found


def search_text(content: object, text: str | None, limit: int) -> str:
    """The text that stands for a trace in searches, at most `limit` characters.

    It is `text` where the caller gave one; else the strings in the content as they come, and
    numbers and booleans behind their keys.
    """
    if text is not None:
        return text[:limit]
    parts: list[str] = []
    room = limit
    for part in _leaves(content, ""):
        parts.append(part[:room])
        room -= len(part) + 1
        if room <= 0:
            break
    return "\n".join(parts)


def _leaves(value: object, key: str) -> Iterator[str]:
    if isinstance(value, str):
        if value.strip():
            yield value
    elif isinstance(value, bool):
        yield f"{key} {'yes' if value else 'no'}".strip()
    elif isinstance(value, int | float):
        yield f"{key} {value}".strip()
    elif isinstance(value, dict):
        for name, inner in cast("dict[str, Any]", value).items():
            yield from _leaves(inner, name)
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            yield from _leaves(inner, key)
