"""Conditional requests: what `If-Match` and its relatives decide (RFC 9110 section 13).

Etags here are strong. On writes a condition that storaged cannot keep is refused rather
than ignored: a caller who sent one relies on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum

from services.storaged.core.objects import StoredObject
from shared.errors import Invalid, PreconditionFailed

_ETAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_ETAG_LIST = re.compile(rf"[ \t,]*{_ETAG}(?:[ \t]*,[ \t,]*{_ETAG})*[ \t,]*")
_EACH = re.compile(_ETAG)


class Expects(Enum):
    """What a write wants to find under its key."""

    ANYTHING = "anything"
    NOTHING = "nothing"
    SOMETHING = "something"
    ONE_OF = "one of"


@dataclass(frozen=True, slots=True)
class WriteCondition:
    """The condition of a PUT or DELETE; `etags` are those of ONE_OF."""

    expects: Expects = Expects.ANYTHING
    etags: tuple[str, ...] = ()

    def check(self, current: str | None) -> None:
        """Lets the write pass when the object's etag (None: there is none) is as expected.

        Raises:
            PreconditionFailed: it is not.
        """
        if self.expects is Expects.ANYTHING:
            return
        details = {"etag": current}
        if self.expects is Expects.NOTHING:
            if current is not None:
                raise PreconditionFailed(
                    "An object is stored under this key already. Read it, or choose another key.",
                    details=details,
                )
        elif current is None:
            raise PreconditionFailed(
                "No object is stored under this key, so If-Match cannot hold.", details=details
            )
        elif self.expects is Expects.ONE_OF and current not in self.etags:
            raise PreconditionFailed(
                "The object has changed: its etag is another one. Read it again and retry.",
                details=details,
            )


def parse_write_condition(method: str, headers: Mapping[str, str]) -> WriteCondition:
    """The condition that a PUT's or DELETE's headers state.

    Raises:
        Invalid: a condition that is malformed or not supported here.
    """
    if_match = headers.get("if-match")
    if_none_match = headers.get("if-none-match")
    if "if-unmodified-since" in headers:
        raise Invalid(f"{method} does not support If-Unmodified-Since. Use If-Match with the etag.")
    if if_match is not None and if_none_match is not None:
        raise Invalid("Send either If-Match or If-None-Match, not both.")
    if if_none_match is not None:
        if method != "PUT" or if_none_match.strip() != "*":
            raise Invalid("Only PUT with If-None-Match: * (create only) is supported here.")
        return WriteCondition(Expects.NOTHING)
    if if_match is None:
        return WriteCondition()
    if if_match.strip() == "*":
        return WriteCondition(Expects.SOMETHING)
    # A weak etag never matches in If-Match (RFC 9110 13.1.1); it stays listed and unequal.
    return WriteCondition(Expects.ONE_OF, parse_etags("If-Match", if_match))


def parse_etags(header: str, value: str) -> tuple[str, ...]:
    """The etags of a list, each with its quotes and weakness mark.

    Raises:
        Invalid: it is no list of etags.
    """
    if not _ETAG_LIST.fullmatch(value):
        raise Invalid(f'{header} takes * or quoted etags, as in {header}: "abc", "def".')
    return tuple(_EACH.findall(value))


def is_unmodified(stored: StoredObject, headers: Mapping[str, str]) -> bool:
    """Whether a GET or HEAD is answered 304: the caller has this version already.

    Raises:
        PreconditionFailed: the object is not the version that the caller insists on.
        Invalid: a malformed list of etags.
    """
    if_match = headers.get("if-match")
    if if_match is not None:
        if if_match.strip() != "*" and stored.etag not in parse_etags("If-Match", if_match):
            raise PreconditionFailed(
                "The object has another etag than If-Match asks for.",
                details={"etag": stored.etag},
            )
    else:
        limit = _parse_date(headers.get("if-unmodified-since"))
        if limit is not None and stored.modified_s > limit:
            raise PreconditionFailed(
                "The object was changed after the time in If-Unmodified-Since.",
                details={"etag": stored.etag},
            )
    if_none_match = headers.get("if-none-match")
    if if_none_match is not None:
        if if_none_match.strip() == "*":
            return True
        known = parse_etags("If-None-Match", if_none_match)
        return stored.etag in [etag.removeprefix("W/") for etag in known]
    since = _parse_date(headers.get("if-modified-since"))
    return since is not None and stored.modified_s <= since


def keeps_range(stored: StoredObject, if_range: str | None, now_s: float) -> bool:
    """Whether a Range header still applies, given the `If-Range` sent with it.

    A date counts only when the object was at rest for a second before now: two versions
    within one second have the same date (RFC 9110 8.8.2.2).
    """
    if if_range is None:
        return True
    if if_range.startswith(('"', "W/")):
        return if_range == stored.etag
    date = _parse_date(if_range)
    return date == stored.modified_s and now_s - stored.modified_s >= 1.0


def _parse_date(value: str | None) -> int | None:
    """Seconds since 1970, or None for what is no HTTP date: such a header is ignored."""
    if value is None:
        return None
    try:
        date = parsedate_to_datetime(value)
        return int((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return None
