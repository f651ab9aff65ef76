"""[observerd]: what is watched, and workflows."""

from __future__ import annotations

from pydantic import Field

from shared.daemons import PORTS
from shared.sections.base import DaemonSection, MiB, Port


class ObserverdSection(DaemonSection):
    """[observerd]: events and workflow runs."""

    port: Port = PORTS["observerd"]
    max_body_bytes: int = Field(default=16 * MiB, ge=0)
    request_timeout_s: float = Field(default=330.0, gt=0)
    ring_events: int = Field(default=20_000, ge=1)
    ring_mb: int = Field(default=32, ge=1)
    max_batch: int = Field(default=10_000, ge=1)
    max_event_bytes: int = Field(default=MiB, ge=1024, le=8 * MiB)
    event_ids: int = Field(default=100_000, ge=1)
    log_mb: int = Field(default=4096, ge=128)
    active_runs: int = Field(default=16, ge=1)
    queued_runs: int = Field(default=1000, ge=0)
    max_parallel: int = Field(default=16, ge=1, le=256)
    node_timeout_s: float = Field(default=60.0, gt=0)
    run_timeout_s: float = Field(default=3600.0, gt=0)
    max_output_bytes: int = Field(default=4 * MiB, ge=1024)
    keep_runs: int = Field(default=10_000, ge=1)
