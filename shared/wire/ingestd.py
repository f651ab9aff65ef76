"""ingestd: files become tables."""

from __future__ import annotations

from typing import Literal

from shared.wire.base import WithSchema
from shared.wire.catalogd import Rejects

Contract = Literal["evolve", "freeze", "discard_row", "discard_value"]


class IngestResult(WithSchema):
    """What one ingest did. `rows_in = rows_out + rejects.count`, always."""

    dataset: str
    snapshot_id: str
    ingest_id: str
    rows_in: int
    rows_out: int
    rejects: Rejects
    warnings: list[str] = []
    duplicate: bool = False
