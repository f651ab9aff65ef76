"""Traces as the wire shows them."""

from __future__ import annotations

from typing import Any

import orjson

from services.pathwayd.core.traces import Trace as Held
from services.pathwayd.core.traces import format_time
from shared.wire.pathwayd import Trace


def show_trace(held: Held, *, embedded: bool, duplicate: bool = False) -> Trace:
    """A trace as it is now."""
    return Trace(
        id=held.id,
        version=held.version,
        status=held.status,
        surface=held.surface,
        content=load_content(held.content),
        tags=list(held.tags),
        text=held.text,
        hash=held.digest.hex(),
        created_at=format_time(held.created),
        updated_at=format_time(held.updated),
        retired_at=None if held.retired is None else format_time(held.retired),
        reason=held.reason,
        supersedes=held.supersedes,
        superseded_by=held.superseded_by,
        embedded=embedded,
        duplicate=duplicate,
    )


def load_content(blob: bytes) -> Any:
    """Content as it was sent."""
    return orjson.loads(blob)
