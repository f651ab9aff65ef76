"""The fleet's roster: every daemon by name, with its default port.

`BUILT` says which of them this tree holds; the launcher runs those, the gateway answers
503 for the others by name instead of 404, and the repo tests hold the list to the tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

PORTS: Mapping[str, int] = MappingProxyType(
    {
        "gateway": 3110,
        "fake_ollama": 3209,
        "mcpd": 3210,
        "storaged": 3211,
        "catalogd": 3212,
        "ingestd": 3213,
        "queryd": 3214,
        "vectord": 3215,
        "embedd": 3216,
        "pathwayd": 3217,
        "matrixd": 3218,
        "observerd": 3219,
        "chatd": 3220,
    }
)

ROOT = Path(__file__).resolve().parent.parent


def is_built(name: str) -> bool:
    """Whether this tree holds the daemon's code."""
    return (ROOT / "services" / name / "app.py").is_file()


BUILT: tuple[str, ...] = tuple(name for name in PORTS if is_built(name))
