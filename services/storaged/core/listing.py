"""Pages of a listing: byte order of keys, roll-up by delimiter, opaque cursors.

A cursor is a place in the order and not a count, so pages neither repeat nor skip a key
that exists throughout, whatever is written meanwhile. UTF-8 byte order is code point
order, which is how Python compares text, so keys are compared as text.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import orjson

from services.storaged.core.keys import MAX_KEY_BYTES
from shared.errors import Invalid

MAX_LIMIT = 1000
_CHECK_BYTES = 8
_LAST = "\U0010ffff"


class KeyWalk(Protocol):
    """Keys in order, with a way to leave some out unread."""

    def __iter__(self) -> Iterator[str]:
        """The keys that follow."""
        ...

    def seek(self, start: str) -> None:
        """Goes on at the first key that is not before `start`."""
        ...


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What is listed: keys from `start` on that begin with `prefix`.

    `delimiter` is empty when nothing is rolled up; `limit` counts keys and prefixes.
    """

    prefix: str
    delimiter: str
    limit: int
    start: str


@dataclass(frozen=True, slots=True)
class KeyPage:
    """Keys and rolled-up prefixes of one page; `next_start` is None on the last one."""

    keys: list[str]
    prefixes: list[str]
    next_start: str | None


def parse_query(prefix: str, delimiter: str | None, limit: int, cursor: str | None) -> ListQuery:
    """Checks a listing's parameters.

    Raises:
        Invalid: a limit outside 1 to 1,000, text that is too long, a damaged cursor, or one
            from another listing.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise Invalid(f"limit must be 1 to {MAX_LIMIT}; follow next_cursor for more.")
    if len(prefix.encode("utf-8", "replace")) > MAX_KEY_BYTES:
        raise Invalid(f"prefix is longer than any key, which has at most {MAX_KEY_BYTES} bytes.")
    if delimiter is not None and not 1 <= len(delimiter) <= 16:
        raise Invalid("delimiter must be 1 to 16 characters, most often '/'. Or leave it out.")
    delimiter = delimiter or ""
    start = prefix if cursor is None else _decode_cursor(cursor, prefix, delimiter)
    return ListQuery(prefix, delimiter, limit, start)


def select_page(query: ListQuery, walk: KeyWalk) -> KeyPage:
    """One page out of a walk that begins at the query's start.

    A prefix that is rolled up costs one seek past everything beneath it, so a page reads
    no more than it shows.
    """
    keys: list[str] = []
    prefixes: list[str] = []
    for key in walk:
        if len(keys) + len(prefixes) == query.limit:
            return KeyPage(keys, prefixes, key)
        cut = key.find(query.delimiter, len(query.prefix)) if query.delimiter else -1
        if cut < 0:
            keys.append(key)
        else:
            prefixes.append(key[: cut + len(query.delimiter)])
            walk.seek(after_prefix(prefixes[-1]))
    return KeyPage(keys, prefixes, None)


def after_prefix(prefix: str) -> str:
    """Text that sorts after every key beginning with `prefix`, and before all that follow."""
    for index in range(len(prefix) - 1, -1, -1):
        if prefix[index] != _LAST:
            code = ord(prefix[index]) + 1
            # Surrogates are not text; the next code point past them is.
            return prefix[:index] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)
    # Nothing follows such a prefix; this is longer than any key that begins with it.
    return prefix + _LAST * MAX_KEY_BYTES


def encode_cursor(query: ListQuery, next_start: str) -> str:
    """An opaque token that continues this listing."""
    body = orjson.dumps([query.prefix, query.delimiter, next_start])
    return base64.urlsafe_b64encode(_checksum(body) + body).decode("ascii").rstrip("=")


def _decode_cursor(cursor: str, prefix: str, delimiter: str) -> str:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        raw = base64.b64decode(padded, altchars=b"-_", validate=True)
        check, body = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        if check != _checksum(body):
            raise ValueError
        found_prefix, found_delimiter, start = orjson.loads(body)
    except (ValueError, binascii.Error):
        raise Invalid("The cursor is damaged. Pass next_cursor on unchanged.") from None
    if (found_prefix, found_delimiter) != (prefix, delimiter):
        raise Invalid("The cursor belongs to a listing with another prefix or delimiter.")
    return str(start)


def _checksum(body: bytes) -> bytes:
    # Finds damage; there is nothing to forge, as a cursor only names a place in the order.
    return hashlib.blake2b(body, digest_size=_CHECK_BYTES, person=b"storaged.list.1").digest()
