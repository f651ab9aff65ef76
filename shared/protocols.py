"""Errors in other people's protocols: what their SDKs turn into their own classes."""

from __future__ import annotations

from typing import Any

from shared.errors import LakehouseError

_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_OPENAI_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}

_ICEBERG_TYPES = {
    400: "BadRequestException",
    401: "NotAuthorizedException",
    403: "ForbiddenException",
    404: "NotFoundException",
    405: "UnsupportedOperationException",
    406: "UnsupportedOperationException",
    429: "TooManyRequestsException",
    503: "ServiceUnavailableException",
    504: "GatewayTimeoutException",
}


def openai_error(error: LakehouseError) -> dict[str, Any]:
    """OpenAI's error body: `message`, `type`, `param` and `code`, all four always."""
    default = "invalid_request_error" if error.status < 500 else "server_error"
    field = error.details.get("field")
    if error.status == 404 and "model" in error.details:
        field, code = "model", "model_not_found"
    else:
        code = _OPENAI_CODES.get(error.status, error.code)
    return {
        "error": {
            "message": error.message,
            "type": _OPENAI_TYPES.get(error.status, default),
            "param": field,
            "code": code,
        }
    }


def anthropic_error(error: LakehouseError, request_id: str) -> dict[str, Any]:
    """Anthropic's error body."""
    default = "invalid_request_error" if error.status < 500 else "api_error"
    return {
        "type": "error",
        "error": {"type": _ANTHROPIC_TYPES.get(error.status, default), "message": error.message},
        "request_id": request_id,
    }


def iceberg_error(error: LakehouseError) -> dict[str, Any]:
    """The error body of the Iceberg REST catalogue protocol."""
    default = "BadRequestException" if error.status < 500 else "InternalServerError"
    kind = _ICEBERG_TYPES.get(error.status, default)
    if error.status == 404 and "namespace" in error.details:
        kind = "NoSuchNamespaceException"
    elif error.status == 404 and "dataset" in error.details:
        kind = "NoSuchTableException"
    return {"error": {"message": error.message, "type": kind, "code": error.status}}
