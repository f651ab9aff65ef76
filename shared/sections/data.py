"""Sections of the edge and the data plane."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from shared.daemons import PORTS
from shared.sections.base import DaemonSection, GiB, MiB, Port


class GatewaySection(DaemonSection):
    """[gateway]: the single edge."""

    port: Port = PORTS["gateway"]
    max_body_bytes: int = Field(default=64 * GiB, ge=0)
    max_concurrency: int = Field(default=2048, ge=1)
    # Streams pass here too, so this only ends what would never end by itself.
    request_timeout_s: float = Field(default=86400.0, gt=0)
    connect_timeout_s: float = Field(default=2.0, gt=0)
    answer_margin_s: float = Field(default=5.0, ge=0)
    silence_timeout_s: float = Field(default=300.0, gt=0)
    ready_timeout_s: float = Field(default=2.0, gt=0)
    document_max_age_s: float = Field(default=60.0, ge=0)
    console_session_s: float = Field(default=43_200.0, ge=60)
    console_reports: Path = Path("../reports")


class StoragedSection(DaemonSection):
    """[storaged]: objects."""

    port: Port = PORTS["storaged"]
    max_body_bytes: int = Field(default=64 * GiB, ge=0)
    request_timeout_s: float = Field(default=3600.0, gt=0)
    threads: int = Field(default=16, ge=1, le=128)
    min_free_bytes: int = Field(default=256 * MiB, ge=0)
    default_cap_bytes: int = Field(default=256 * MiB, ge=1)
    caps: dict[str, Annotated[int, Field(ge=1)]] = {"_vectors/": 4 * GiB, "uploads/": 64 * GiB}


class CatalogdSection(DaemonSection):
    """[catalogd]: datasets as Iceberg tables.

    Empty `database_uri` and `warehouse` mean SQLite and a folder in the data directory.
    """

    port: Port = PORTS["catalogd"]
    database_uri: SecretStr = SecretStr("")
    warehouse: str = ""
    keep_snapshots: int = Field(default=100, ge=1)
    read_threads: int = Field(default=4, ge=1)
    commit_threads: int = Field(default=4, ge=1)
    commit_patience_s: float = Field(default=30.0, gt=0)
    upkeep: bool = True
    upkeep_interval_s: float = Field(default=60.0, gt=0)
    compact_target_mb: int = Field(default=128, ge=1, le=128)
    compact_min_files: int = Field(default=16, ge=2)
    compact_round_mb: int = Field(default=512, ge=1)
    compact_memory_mb: int = Field(default=512, ge=64)
    collect_interval_s: float = Field(default=3600.0, gt=0)
    collect_grace_s: float = Field(default=86_400.0, ge=0)


class IngestdSection(DaemonSection):
    """[ingestd]: files become tables."""

    port: Port = PORTS["ingestd"]
    max_body_bytes: int = Field(default=64 * GiB, ge=0)
    request_timeout_s: float = Field(default=3600.0, gt=0)
    workers: int = Field(default=2, ge=1, le=64)
    worker_threads: int = Field(default=2, ge=1, le=256)
    worker_memory_mb: int = Field(default=448, ge=128)
    worker_idle_s: float = Field(default=60.0, gt=0)
    queue_length: int = Field(default=32, ge=0)
    part_mb: int = Field(default=128, ge=1, le=4096)
    row_group_rows: int = Field(default=61_440, ge=2048)
    max_record_mb: int = Field(default=16, ge=1, le=64)
    max_columns: int = Field(default=2000, ge=1, le=20_000)
    max_files: int = Field(default=1000, ge=1, le=10_000)
    max_unpacked_mb: int = Field(default=262_144, ge=1)
    max_unpack_ratio: int = Field(default=250, ge=1)
    job_from_mb: int = Field(default=256, ge=0)
    job_workers: int = Field(default=1, ge=1, le=64)
    job_queue: int = Field(default=64, ge=1)
    job_timeout_s: float = Field(default=43_200.0, gt=0)
    job_patience_s: float = Field(default=600.0, ge=0)
    keep_jobs: int = Field(default=500, ge=1)


class QuerydSection(DaemonSection):
    """[queryd]: SQL."""

    port: Port = PORTS["queryd"]
    request_timeout_s: float = Field(default=65.0, gt=0)
    query_timeout_s: float = Field(default=60.0, gt=0)
    workers: int = Field(default=2, ge=1, le=64)
    spare_workers: int = Field(default=1, ge=0, le=64)
    worker_threads: int = Field(default=2, ge=1, le=256)
    worker_memory_mb: int = Field(default=1024, ge=128)
    worker_temp_mb: int = Field(default=4096, ge=16)
    worker_files: int = Field(default=8192, ge=64)
    queue_length: int = Field(default=32, ge=0)
    json_rows: int = Field(default=10_000, ge=1)
    max_rows: int = Field(default=100_000_000, ge=1)
    read_paths: tuple[Path, ...] = ()
