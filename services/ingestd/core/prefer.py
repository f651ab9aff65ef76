"""What a client would rather have (RFC 7240): an answer at once, or one that it waits for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from shared.errors import Invalid

# One preference: a name, perhaps a value, perhaps parameters, which none of ours has.
_ITEM = re.compile(r'\s*([!#$%&\'*+.^_`|~\w-]+)\s*(?:=\s*("[^"]*"|[^;,"\s]*))?\s*(?:;[^,]*)?')
_KEY = re.compile(r"[\x20-\x7e]{1,200}")
# Longest that a request waits for its job, whatever it would rather. Seconds.
MOST_WAIT_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Preference:
    """What of `Prefer` is understood here; all else in it is passed over, as the RFC wants.

    Attributes:
        background: `respond-async`.
        wait_s: `wait=N`: how long the client is ready to wait for the job's end.
    """

    background: bool = False
    wait_s: float = 0.0

    def applied(self) -> str:
        """The value of `Preference-Applied`."""
        wait = f"wait={self.wait_s:g}" if self.wait_s else ""
        return ", ".join(one for one in ("respond-async" * self.background, wait) if one)


def parse_prefer(values: Sequence[str]) -> Preference:
    """Reads the `Prefer` headers of a request; of a preference named twice the first counts."""
    found: dict[str, str] = {}
    for value in values:
        for item in value.split(","):
            match = _ITEM.fullmatch(item)
            if match:
                found.setdefault(match[1].lower(), (match[2] or "").strip('"'))
    wait = found.get("wait", "")
    wait_s = min(float(wait), MOST_WAIT_S) if wait.isascii() and wait.isdigit() else 0.0
    return Preference("respond-async" in found, wait_s)


def check_key(key: str | None) -> str | None:
    """An `Idempotency-Key` if it can be one.

    Raises:
        Invalid: it cannot.
    """
    if key is not None and not _KEY.fullmatch(key):
        raise Invalid("An Idempotency-Key is 1 to 200 visible ASCII characters.")
    return key
