"""Errors of the gateway in the words of whoever called.

A client of OpenAI's, Anthropic's or Iceberg's protocol reads that protocol's error body
and nothing else, so on those paths the gateway's own failures take that form.
"""

from __future__ import annotations

from typing import Any

from services.gateway.core.routing import Shape
from shared.errors import LakehouseError

_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
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
    406: "UnsupportedOperationException",
    429: "TooManyRequestsException",
    503: "ServiceUnavailableException",
    504: "GatewayTimeoutException",
}


def shape_error(
    shape: Shape, error: LakehouseError, *, service: str, request_id: str
) -> dict[str, Any]:
    """The JSON body of an error in the caller's protocol.

    OpenAI's has all four keys, `code` a string or null. Anthropic's carries the request
    id. Iceberg's `code` is the HTTP status.
    """
    client_fault = error.status < 500
    if shape is Shape.OPENAI:
        kind = _OPENAI_TYPES.get(
            error.status, "invalid_request_error" if client_fault else "server_error"
        )
        inner = {"message": error.message, "type": kind, "param": None, "code": error.code}
        return {"error": inner}
    if shape is Shape.ANTHROPIC:
        kind = _ANTHROPIC_TYPES.get(
            error.status, "invalid_request_error" if client_fault else "api_error"
        )
        return {
            "type": "error",
            "error": {"type": kind, "message": error.message},
            "request_id": request_id,
        }
    if shape is Shape.ICEBERG:
        kind = _ICEBERG_TYPES.get(
            error.status, "BadRequestException" if client_fault else "InternalServerError"
        )
        return {"error": {"message": error.message, "type": kind, "code": error.status}}
    return error.envelope(service, request_id)
