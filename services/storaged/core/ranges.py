"""Byte ranges of GET (RFC 9110 section 14)."""

from __future__ import annotations

import re
from typing import NamedTuple

from shared.errors import RangeNotSatisfiable

# Longer numbers mean nothing for any object, and would be slow to read.
_RANGE = re.compile(r"bytes[ \t]*=[ \t,]*(\d{0,24})-(\d{0,24})[ \t,]*", re.IGNORECASE | re.ASCII)


class Span(NamedTuple):
    """Bytes `first` to `last` of an object, both included."""

    first: int
    last: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.last - self.first + 1


def parse_range(header: str | None, size: int) -> Span | None:
    """The part of an object of `size` bytes that is asked for; None means all of it.

    A header that is malformed, in another unit or asks for several ranges is ignored, as
    the RFC allows: the whole object is always a right answer.

    Raises:
        RangeNotSatisfiable: the range begins past the end, or asks for no bytes at all.
    """
    found = _RANGE.fullmatch(header.strip()) if header is not None else None
    if found is None:
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:
        if int(last) == 0:
            raise _unsatisfiable(size)
        # An empty object has no byte that a 206 could name.
        return Span(max(0, size - int(last)), size - 1) if size else None
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise _unsatisfiable(size)
    return Span(int(first), min(int(last), size - 1) if last else size - 1)


def _unsatisfiable(size: int) -> RangeNotSatisfiable:
    return RangeNotSatisfiable(
        f"The object has {size} bytes; the range lies outside of them.",
        details={"size": size},
        headers={"Content-Range": f"bytes */{size}"},
    )
