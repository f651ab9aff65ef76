"""What a check of `scripts/doctor` gives."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Finding:
    """One probe's outcome: `advice` is empty when all is well."""

    what: str
    ok: bool
    found: str
    advice: str = ""
