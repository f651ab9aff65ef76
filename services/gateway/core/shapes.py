"""Errors of the gateway in the words of whoever called.

A client of OpenAI's, Anthropic's or Iceberg's protocol reads that protocol's error body
and nothing else, so on those paths the gateway's own failures take that form.
"""

from __future__ import annotations

from typing import Any

from services.gateway.core.routing import Shape
from shared.errors import LakehouseError
from shared.protocols import anthropic_error, iceberg_error, openai_error


def shape_error(
    shape: Shape, error: LakehouseError, *, service: str, request_id: str
) -> dict[str, Any]:
    """The JSON body of an error in the caller's protocol.

    OpenAI's has all four keys, `code` a string or null. Anthropic's carries the request
    id. Iceberg's `code` is the HTTP status.
    """
    if shape is Shape.OPENAI:
        return openai_error(error)
    if shape is Shape.ANTHROPIC:
        return anthropic_error(error, request_id)
    if shape is Shape.ICEBERG:
        return iceberg_error(error)
    return error.envelope(service, request_id)
