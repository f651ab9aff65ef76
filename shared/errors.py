"""The one error taxonomy, and its envelope on the wire.

Every failure that a caller may see is a `LakehouseError` subclass: a code, an HTTP
status, a message that says what to do next, and details that are safe to show.
`envelope` gives the JSON body; `from_response` rebuilds the class from a peer's
answer, so that an error keeps its meaning across daemons.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class LakehouseError(Exception):
    """Base of the taxonomy.

    Args:
        message: one or two sentences for the caller: what is wrong, what to do next.
            Never a path of the server, a key or a traceback.
        details: JSON-serialisable facts (column names, limits, positions).
        headers: extra response headers (`Retry-After`, `Allow`).
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(
        self,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = dict(details or {})
        self.headers: dict[str, str] = dict(headers or {})

    def envelope(self, service: str, request_id: str) -> dict[str, Any]:
        """The wire form: `{"error": {code, message, details, service, request_id}}`."""
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "details": self.details,
                "service": service,
                "request_id": request_id,
            }
        }


class Invalid(LakehouseError):
    code = "invalid"
    status = 400


class Unauthorized(LakehouseError):
    code = "unauthorized"
    status = 401


class Forbidden(LakehouseError):
    code = "forbidden"
    status = 403


class NotFound(LakehouseError):
    code = "not_found"
    status = 404


class MethodNotAllowed(LakehouseError):
    code = "method_not_allowed"
    status = 405


class NotAcceptable(LakehouseError):
    code = "not_acceptable"
    status = 406


class Conflict(LakehouseError):
    code = "conflict"
    status = 409


class PreconditionFailed(LakehouseError):
    code = "precondition_failed"
    status = 412


class TooLarge(LakehouseError):
    code = "too_large"
    status = 413


class UnsupportedMediaType(LakehouseError):
    code = "unsupported_media_type"
    status = 415


class RangeNotSatisfiable(LakehouseError):
    code = "range_not_satisfiable"
    status = 416


class Misdirected(LakehouseError):
    code = "misdirected"
    status = 421


class Unprocessable(LakehouseError):
    code = "unprocessable"
    status = 422


class RateLimited(LakehouseError):
    code = "rate_limited"
    status = 429


class HeadersTooLarge(LakehouseError):
    code = "headers_too_large"
    status = 431


class Internal(LakehouseError):
    code = "internal"
    status = 500


class Upstream(LakehouseError):
    code = "upstream"
    status = 502


class Unavailable(LakehouseError):
    code = "unavailable"
    status = 503


class Timeout(LakehouseError):
    code = "timeout"
    status = 504


class InsufficientStorage(LakehouseError):
    code = "insufficient_storage"
    status = 507


BY_CODE: dict[str, type[LakehouseError]] = {
    cls.code: cls
    for cls in (
        Invalid,
        Unauthorized,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        NotAcceptable,
        Conflict,
        PreconditionFailed,
        TooLarge,
        UnsupportedMediaType,
        RangeNotSatisfiable,
        Misdirected,
        Unprocessable,
        RateLimited,
        HeadersTooLarge,
        Internal,
        Upstream,
        Unavailable,
        Timeout,
        InsufficientStorage,
    )
}
BY_STATUS: dict[int, type[LakehouseError]] = {cls.status: cls for cls in BY_CODE.values()}

# A peer's 4xx is the caller's own mistake and keeps its class; its 5xx is ours to
# report as a broken dependency, except the few that tell the caller when to try again.
_PASSED_5XX = frozenset({503, 504, 507})


def from_response(peer: str, status: int, body: object) -> LakehouseError:
    """The error class that a peer's answer stands for.

    Args:
        peer: name of the daemon that answered.
        status: its HTTP status, 400 or more.
        body: its decoded JSON body, or anything else if it had none.
    """
    error: dict[str, Any] = {}
    if isinstance(body, dict):
        inner: object = body.get("error")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if isinstance(inner, dict):
            error = inner  # pyright: ignore[reportUnknownVariableType]
    message = str(error.get("message") or f"{peer} answered {status}.")
    found: object = error.get("details")
    details: dict[str, Any] = found if isinstance(found, dict) else {}  # pyright: ignore[reportUnknownVariableType]
    if status < 500:
        cls = BY_CODE.get(str(error.get("code")), BY_STATUS.get(status, Invalid))
        return cls(message, details=details)
    details = {**details, "peer": peer, "peer_status": status}
    if status in _PASSED_5XX:
        return BY_STATUS[status](message, details=details)
    return Upstream(f"{peer} failed: {message}", details=details)
