"""The console's own script and style, and HTMX out of its package, each by its content's name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent.parent / "static"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file with its media type and a name for its content, which changes with it."""

    content: bytes
    media_type: str
    version: str


@cache
def read_static() -> dict[str, StaticFile]:
    """All static files by name."""
    packaged = resources.files("js_lib_htmx").joinpath("static/htmx/htmx.min.js").read_bytes()
    found = {path.name: path.read_bytes() for path in sorted(_FOLDER.iterdir()) if path.is_file()}
    return {
        name: StaticFile(
            content, _TYPES[Path(name).suffix], hashlib.sha256(content).hexdigest()[:12]
        )
        for name, content in {**found, "htmx.min.js": packaged}.items()
    }
