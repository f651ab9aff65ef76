"""What goes wrong at a provider, what may be done about it, and what the caller is told.

A fault before the first byte went to the client may be met by another try or another
provider; afterwards it can only be told. The table in docs/chatd.md is this module in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from services.chatd.core.reading import as_list, as_object, as_text
from shared.errors import (
    BY_STATUS,
    Invalid,
    LakehouseError,
    NotFound,
    RateLimited,
    Timeout,
    Unavailable,
    Upstream,
)

Kind = Literal["unreachable", "silent", "cut", "status", "malformed", "oversized"]

# Another try at the same provider can help these.
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
# The caller's own mistakes: no provider would answer them otherwise.
_CALLERS = frozenset({400, 405, 406, 411, 413, 415, 422})
_NO_RETRY = {"x-should-retry": "false"}
_LONGEST_MESSAGE = 500
# Names that errors carry in place of a status, by protocol.
_STATUS_BY_NAME = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "billing_error": 402,
    "insufficient_quota": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "api_error": 500,
    "server_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


class Fault(Exception):
    """A provider failed.

    Args:
        kind: unreachable (no connection), silent (a time limit passed), cut (the connection
            or stream ended too early), status (an error told, with its HTTP status, also when
            it came inside a 200), malformed (an answer that is none), oversized.
        message: what the provider said, or what was wrong.
        status: of kind `status`.
        retry_after_s: when the provider wants to be asked again.
    """

    def __init__(
        self, kind: Kind, message: str, *, status: int = 0, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message.strip()[:_LONGEST_MESSAGE] or "no reason given"
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def can_retry(self) -> bool:
        """Whether the same provider may answer the same question if asked again."""
        if self.kind == "status":
            return self.status in _PASSING
        # A provider that was silent for the whole limit would be so again.
        return self.kind in ("unreachable", "cut", "malformed")

    @property
    def can_fall_back(self) -> bool:
        """Whether another provider may answer it."""
        return self.kind != "status" or self.status not in _CALLERS

    @property
    def is_sickness(self) -> bool:
        """Whether it speaks of the provider's health, for its circuit breaker."""
        if self.kind == "status":
            return self.status >= 500 or self.status == 408
        return self.kind != "oversized"


def fault_of_body(body: object, *, status: int, retry_after_s: float | None = None) -> Fault | None:
    """The error that a body tells, in whatever protocol; None where it tells none.

    Args:
        body: decoded JSON.
        status: of the answer; used where the error has none of its own.
    """
    items = as_list(body)  # Gemini wraps errors of streams in a list
    whole = as_object(items[0] if items else body)
    error: object = whole.get("error")
    if not error and whole.get("type") == "error":
        error = whole  # OpenAI's stream event of that name has its fields at the top
    if not error:
        return None
    if isinstance(error, str):
        return Fault("status", error, status=_or_500(status), retry_after_s=retry_after_s)
    inner = as_object(error)
    found = _or_500(_own_status(inner) or status)
    message = as_text(inner.get("message")) or as_text(inner.get("type"))
    after = as_object(inner.get("metadata")).get("retry_after")
    if retry_after_s is None and isinstance(after, int | float):
        retry_after_s = float(after)
    return Fault("status", message, status=found, retry_after_s=retry_after_s)


def _own_status(error: Mapping[str, Any]) -> int:
    for name in ("code", "status", "type"):
        value = error.get(name)
        if isinstance(value, int) and 400 <= value <= 599:
            return value
        if isinstance(value, str):
            if value.isdigit() and 400 <= int(value) <= 599:
                return int(value)
            if value in _STATUS_BY_NAME:
                return _STATUS_BY_NAME[value]
    return 0


def _or_500(status: int) -> int:
    return status if status >= 400 else 500


def fault_of_status(status: int, body: object, text: str, retry_after_s: float | None) -> Fault:
    """The fault of an answer of 300 or more.

    Args:
        body: its decoded JSON, or None.
        text: its beginning as text, for bodies that are no JSON.
    """
    if status < 400:
        return Fault("malformed", f"it answered {status}; redirects are not followed")
    told = fault_of_body(body, status=status, retry_after_s=retry_after_s)
    whole = as_object(body)
    said = told.message if told is not None else ""
    said = said or as_text(whole.get("message")) or as_text(whole.get("detail")) or text
    return Fault("status", said, status=status, retry_after_s=retry_after_s)


def parse_retry_after(headers: Mapping[str, str], now_s: float) -> float | None:
    """Seconds to wait as `retry-after-ms` or `retry-after` say; None where neither does.

    Args:
        now_s: seconds since 1970, for dates.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        given = headers.get(name)
        if given is None:
            continue
        try:
            seconds = float(given) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(given).timestamp() - now_s
            except (ValueError, TypeError, OverflowError):
                continue
        if seconds == seconds:  # not NaN
            return max(0.0, seconds)
    return None


def error_of(fault: Fault, provider: str, model: str) -> LakehouseError:
    """What the caller is told."""
    details: dict[str, Any] = {"provider": provider, "model": model, "fault": fault.kind}
    headers: dict[str, str] = {}
    if fault.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(fault.retry_after_s + 0.49)))
    if fault.kind == "unreachable":
        return Unavailable(
            f"The provider {provider} cannot be reached: {fault.message}. Is it running? "
            f"See chatd.providers.{provider}.url.",
            details=details,
            headers={"Retry-After": "1", **headers},
        )
    if fault.kind == "silent":
        return Timeout(f"The provider {provider} {fault.message}.", details=details)
    if fault.kind != "status":
        what = {
            "cut": "broke its answer off",
            "malformed": "gave an answer that is none",
            "oversized": "gave an answer that is too large",
        }[fault.kind]
        return Upstream(f"The provider {provider} {what}: {fault.message}.", details=details)
    return _error_of_status(fault, provider, model, details, headers)


def _error_of_status(
    fault: Fault, provider: str, model: str, details: dict[str, Any], headers: dict[str, str]
) -> LakehouseError:
    status, said = fault.status, fault.message
    details["provider_status"] = status
    if status in (401, 403):
        return Unavailable(
            f"The provider {provider} refuses its key ({status}). Put a valid one into its "
            f"file under chatd.keys_dir and restart chatd. It said: {said}",
            details=details,
            headers=_NO_RETRY,
        )
    if status == 402:
        return Unavailable(
            f"The account at {provider} is out of credit. It said: {said}",
            details=details,
            headers=_NO_RETRY,
        )
    if status == 404:
        return NotFound(
            f"The provider {provider} has no {model}, or no such route. It said: {said}",
            details=details,
        )
    if status == 429:
        return RateLimited(
            f"The provider {provider} takes no more just now: {said}",
            details=details,
            headers={"Retry-After": "1", **headers},
        )
    if status < 500:
        cls = BY_STATUS.get(status, Invalid) if status in _CALLERS else Upstream
        return cls(f"The provider {provider} refuses the request: {said}", details=details)
    if status in (503, 529):
        return Unavailable(
            f"The provider {provider} is overloaded ({status}): {said}",
            details=details,
            headers={"Retry-After": "1", **headers},
        )
    if status == 504:
        return Timeout(f"The provider {provider} ran out of time: {said}", details=details)
    return Upstream(f"The provider {provider} failed ({status}): {said}", details=details)
