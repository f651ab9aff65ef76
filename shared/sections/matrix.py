"""[matrixd] and [models]: the learning plane's search, and which model stands for which tier."""

from __future__ import annotations

from pydantic import Field

from shared.daemons import PORTS
from shared.sections.base import DaemonSection, MiB, Port, Section


class MatrixdSection(DaemonSection):
    """[matrixd]: many corpora searched as one."""

    port: Port = PORTS["matrixd"]
    max_body_bytes: int = Field(default=16 * MiB, ge=0)
    request_timeout_s: float = Field(default=330.0, gt=0)
    candidates: int = Field(default=100, ge=10, le=1000)
    max_corpora: int = Field(default=32, ge=1)
    corpus_timeout_s: float = Field(default=10.0, gt=0)
    builds: int = Field(default=2, ge=1)
    batch_texts: int = Field(default=64, ge=1, le=1000)
    answer_wait_s: float = Field(default=10.0, ge=0)
    retry_s: float = Field(default=300.0, gt=0)
    poll_s: float = Field(default=5.0, gt=0)
    probes: int = Field(default=96, ge=0, le=1000)
    max_candidates: int = Field(default=1000, ge=1)
    max_ratings: int = Field(default=200, ge=1)
    max_memory_notes: int = Field(default=100_000, ge=1)


class ModelsSection(Section):
    """[models]: which model stands for which tier. Callers name tiers, never models.

    `weak_models` are those that composed context helps; matrixd's downgrade gate lets them be.
    """

    local_fast: str = "qwen3.5:latest"
    local_judge: str = "qwen3.5:latest"
    cloud_judge: str = "kimi-k2.6:cloud"
    cloud_review: str = "ollama_cloud/qwen3-coder:480b"
    frontier_review: str = "openrouter/anthropic/claude-opus-4-7"
    frontier_arch: str = "openrouter/moonshotai/kimi-k2-0905"
    frontier_free: str = "opencode/claude-opus-4-7"
    weak_models: tuple[str, ...] = ("qwen3.5:latest", "qwen3:latest")

    def tiers(self) -> dict[str, str]:
        """Models by tier."""
        return {name: value for name, value in self if isinstance(value, str)}
