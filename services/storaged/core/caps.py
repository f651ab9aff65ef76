"""How large an object may be, by the prefix of its key (ADR-002)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared.errors import TooLarge


@dataclass(frozen=True, slots=True)
class Cap:
    """The limit that holds for a key; `prefix` is empty when it is the general one."""

    prefix: str
    limit_bytes: int

    def check(self, size: int) -> None:
        """Lets `size` bytes pass.

        Raises:
            TooLarge: naming the cap.
        """
        if size > self.limit_bytes:
            where = f"Objects under {self.prefix!r}" if self.prefix else "Objects here"
            raise TooLarge(
                f"{where} may have at most {self.limit_bytes} bytes. "
                "Send less at once, use another prefix, or raise the cap in the configuration.",
                details={"prefix": self.prefix, "limit_bytes": self.limit_bytes},
            )


def choose_cap(key: str, caps: Mapping[str, int], default: int) -> Cap:
    """The cap of the longest configured prefix that the key begins with, else the default."""
    matching = [prefix for prefix in caps if key.startswith(prefix)]
    if not matching:
        return Cap("", default)
    longest = max(matching, key=len)
    return Cap(longest, caps[longest])
