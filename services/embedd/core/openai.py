"""OpenAI's shape of errors, and which of them are worth another try."""

from __future__ import annotations

from typing import Any

from shared.errors import LakehouseError

PREFIX = "/v1/"

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}


def error_body(error: LakehouseError) -> dict[str, Any]:
    """The body of a failed request: `message`, `type`, `param` and `code`, all four always."""
    default = "invalid_request_error" if error.status < 500 else "server_error"
    field = error.details.get("field")
    if error.status == 404 and "model" in error.details:
        field, code = "model", "model_not_found"
    else:
        code = _CODES.get(error.status, error.code)
    return {
        "error": {
            "message": error.message,
            "type": _TYPES.get(error.status, default),
            "param": field,
            "code": code,
        }
    }
