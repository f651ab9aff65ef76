"""Whose a failure is: the model's, which can ask otherwise, or the host's, which cannot."""

from __future__ import annotations

import json
from typing import Any

from shared.errors import (
    Forbidden,
    LakehouseError,
    Misdirected,
    RateLimited,
    Timeout,
    Unauthorized,
)

# A refusal that no other arguments would change.
_HOSTS = (Unauthorized, Misdirected)
# Failures of ours that asking for less, or later, mends.
_MODELS = (Timeout, RateLimited, Forbidden)
MAX_DETAILS = 1500


def can_model_fix(error: LakehouseError) -> bool:
    """Whether other arguments, or waiting, would help."""
    if isinstance(error, _HOSTS):
        return False
    return error.status < 500 or isinstance(error, _MODELS)


def tell_model(error: LakehouseError) -> str:
    """The failure in words for a model: code, what to do, and the details that fit."""
    told = f"{error.code}: {error.message}"
    if error.details:
        details = json.dumps(error.details, ensure_ascii=False, default=str)
        if len(details) <= MAX_DETAILS:
            told += f" Details: {details}"
    return told


def tell_host(error: LakehouseError) -> dict[str, Any]:
    """What a host is told beside the message."""
    return {"code": error.code, "status": error.status}
