"""What a GET or HEAD is answered with, given the object it met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.storaged.core.conditions import is_unmodified, keeps_range
from services.storaged.core.objects import StoredObject
from services.storaged.core.ranges import Span, parse_range


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """Status and headers of the answer, and the bytes that are its body.

    `length` is 0 where no body is sent, as for HEAD, 304 and empty objects.
    """

    status: int
    headers: dict[str, str]
    offset: int = 0
    length: int = 0


def plan_read(
    method: str, headers: Mapping[str, str], stored: StoredObject, now_s: float
) -> ReadPlan:
    """Applies conditions first, then the range (RFC 9110 13.2.2).

    Args:
        method: GET or HEAD.
        headers: the request's, names in lower case.
        stored: the object.
        now_s: seconds since 1970.

    Raises:
        PreconditionFailed, RangeNotSatisfiable, Invalid.
    """
    described = stored.headers()
    if is_unmodified(stored, headers):
        return ReadPlan(304, described)
    span: Span | None = None
    if method == "GET" and keeps_range(stored, headers.get("if-range"), now_s):
        span = parse_range(headers.get("range"), stored.size)
    if span is None:
        described["content-length"] = str(stored.size)
        return ReadPlan(200, described, 0, stored.size if method == "GET" else 0)
    described["content-length"] = str(span.length)
    described["content-range"] = f"bytes {span.first}-{span.last}/{stored.size}"
    return ReadPlan(206, described, span.first, span.length)
