"""Keys taken out of whatever a provider says: some repeat them in their errors."""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = "[key]"
# Shorter ones would take ordinary words out of messages.
_SHORTEST = 6


class Redactor:
    """Replaces the keys that are known in texts."""

    def __init__(self, keys: Iterable[str]) -> None:
        # The longest first: one may be part of another.
        self._keys = sorted({k for k in keys if len(k) >= _SHORTEST}, key=len, reverse=True)

    def clean(self, text: str) -> str:
        """The text without keys."""
        for key in self._keys:
            text = text.replace(key, SHOWN)
        return text
