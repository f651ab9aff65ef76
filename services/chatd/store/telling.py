"""Chats as observerd sees them: who answered, how it ended, what it took. Never what was said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shared.telling import RunTeller

_STATUS = {"ok": "ok", "cancelled": "cancelled"}
# Of a record of the ledger what is told as it is.
_TOLD = ("surface", "stream", "attempts", "first_ms", "finish_reason", "cost_usd", "recalled")


def tell_chats(teller: RunTeller) -> Callable[[dict[str, Any]], None]:
    """What the ledger hands each of its records to."""

    def tell(entry: dict[str, Any]) -> None:
        error = entry.get("error")
        status = _STATUS.get(entry["outcome"], "timeout" if error == "timeout" else "error")
        usage = entry.get("usage")
        model = f"{entry['provider']}/{entry['model']}" if entry["provider"] else entry["asked"]
        teller.tell(
            "chat",
            entry["ms"],
            status=status,
            error=error,
            task_signature=f"chat:{entry['surface']}",
            model=model[:300],
            tokens=usage and {"prompt": usage["input"], "completion": usage["output"]},
            attributes={name: entry.get(name) for name in _TOLD},
        )

    return tell
