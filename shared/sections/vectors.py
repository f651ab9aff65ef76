"""Sections of embeddings and vectors."""

from __future__ import annotations

from pydantic import Field

from shared.daemons import PORTS
from shared.sections.base import DaemonSection, MiB, Port


class VectordSection(DaemonSection):
    """[vectord]: vector indexes."""

    port: Port = PORTS["vectord"]
    max_body_bytes: int = Field(default=256 * MiB, ge=0)
    search_threads: int = Field(default=2, ge=1, le=256)
    build_threads: int = Field(default=2, ge=1, le=256)
    ef_search: int = Field(default=128, ge=1, le=10_000)
    max_k: int = Field(default=10_000, ge=1)
    max_queries: int = Field(default=1024, ge=1)
    max_items: int = Field(default=100_000, ge=1)
    max_text_bytes: int = Field(default=MiB, ge=1)
    max_metadata_bytes: int = Field(default=64 * 1024, ge=2)
    merge_rows: int = Field(default=1000, ge=1)
    compact_dead_fraction: float = Field(default=0.25, gt=0, lt=1)
    snapshot_interval_s: float = Field(default=30.0, gt=0)
