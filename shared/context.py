"""What belongs to the request in hand: its id and its deadline.

Both travel from daemon to daemon in headers (`x-request-id`, `x-deadline-ms`); inside one
they are context variables, so that neither has to be a parameter of every function.
"""

from __future__ import annotations

import re
import secrets
import time
from contextvars import ContextVar

REQUEST_ID_HEADER = "x-request-id"
DEADLINE_HEADER = "x-deadline-ms"

request_id: ContextVar[str] = ContextVar("request_id", default="")
deadline: ContextVar[float | None] = ContextVar("deadline", default=None)

_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")


def accept_request_id(given: bytes | None) -> str:
    """The caller's id when it is safe to log and send on, else a new one."""
    if given is not None and _ID.fullmatch(given):
        return given.decode("ascii")
    return secrets.token_hex(8)


def parse_deadline_ms(given: bytes | None) -> float | None:
    """Milliseconds left as the header says, or None when it is absent or no number."""
    if given is None or not given.isdigit() or len(given) > 12:
        return None
    return float(given)


def remaining_s() -> float | None:
    """Seconds until the request's deadline (never negative), or None if it has none."""
    at = deadline.get()
    return None if at is None else max(0.0, at - time.monotonic())
