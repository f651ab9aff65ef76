"""[mcpd]: the system as tools for agents."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from shared.daemons import PORTS
from shared.sections.base import DaemonSection, MiB, Port

# http://name, http://name:port, or http://name:* for any port of it.
ORIGIN = r"^https?://(\[[0-9a-f:.]+\]|[a-z0-9_.\-]+)(:([0-9]{1,5}|\*))?$"
Origin = Annotated[str, StringConstraints(pattern=ORIGIN, to_lower=True)]


class McpdSection(DaemonSection):
    """[mcpd]: tools over the gateway."""

    port: Port = PORTS["mcpd"]
    max_body_bytes: int = Field(default=4 * MiB, ge=0)
    request_timeout_s: float = Field(default=150.0, gt=0)
    read_only: bool = False
    allowed_origins: tuple[Origin, ...] = (
        "http://localhost:*",
        "http://127.0.0.1:*",
        "http://[::1]:*",
    )
    max_rows: int = Field(default=1000, ge=1, le=100_000)
    max_chars: int = Field(default=50_000, ge=1000)
    max_cell_chars: int = Field(default=2000, ge=16)
    max_seconds: float = Field(default=120.0, gt=0)
    calls_per_minute: int = Field(default=300, ge=1)
    burst: int = Field(default=60, ge=1)
