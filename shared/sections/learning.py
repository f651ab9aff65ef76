"""Sections of the learning plane: what was tried, and how it went."""

from __future__ import annotations

from pydantic import Field

from shared.daemons import PORTS
from shared.sections.base import DaemonSection, MiB, Port


class PathwaydSection(DaemonSection):
    """[pathwayd]: versioned traces."""

    port: Port = PORTS["pathwayd"]
    max_body_bytes: int = Field(default=64 * MiB, ge=0)
    model: str = Field(default="", max_length=300)
    semantic_weight: float = Field(default=0.8, ge=0, le=1)
    embed_wait_s: float = Field(default=2.0, ge=0)
    embed_timeout_s: float = Field(default=5.0, gt=0)
    embed_batch: int = Field(default=32, ge=1, le=1000)
    max_content_bytes: int = Field(default=MiB, ge=64, le=4 * MiB)
    max_text_chars: int = Field(default=32_768, ge=64)
    max_k: int = Field(default=1000, ge=1)
    max_batch: int = Field(default=1000, ge=1)
    idempotency_keys: int = Field(default=100_000, ge=1)
    search_threads: int = Field(default=2, ge=1, le=64)
    checkpoint_records: int = Field(default=10_000, ge=10)
    infer_model: str = Field(default="tier/local_fast", min_length=1, max_length=300)
    mem0_reset: bool = True
