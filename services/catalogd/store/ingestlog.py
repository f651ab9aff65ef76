"""The writes of each dataset, in the order of their commits.

Every snapshot that catalogd makes has its row, those of rollbacks and compactions included, so
that a rollback can tell which writes the state it brings back has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.exc import IntegrityError

from services.catalogd.core.lineage import Rollback, is_superseded, list_spans
from services.catalogd.store.tables import INGESTS
from shared.wire.catalogd import INGEST_ID

# Ids of our own begin with a character that no caller's may hold.
OWN = "\t"
_CALLERS = re.compile(INGEST_ID)
ROLLBACK = "rollback"
COMPACT = "compact"
_OVERTAKING = ("replace", "rewrite")


class AlreadyIngested(Exception):
    """The dataset has an ingest of this id; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Ingest:
    """One write that a dataset holds.

    Attributes:
        record: the caller's account of it, as JSON; of a rollback, the number of the write
            whose state it brought back.
        made_ms: when, in milliseconds since 1970.
        superseded: a later replace or a rollback took its rows away.
    """

    ingest_id: str
    mode: str
    snapshot_id: int
    schema_id: int
    record: str | None
    made_ms: int
    superseded: bool = False


def note_ingest(connection: Connection, uuid: str, ingest: Ingest) -> None:
    """Adds a write.

    Raises:
        AlreadyIngested: there is one of this id.
    """
    row = {
        "dataset_uuid": uuid,
        "ingest_id": ingest.ingest_id,
        "mode": ingest.mode,
        "snapshot_id": ingest.snapshot_id,
        "schema_id": ingest.schema_id,
        "record": ingest.record,
        "made_ms": ingest.made_ms,
    }
    try:
        connection.execute(insert(INGESTS).values(row))
    except IntegrityError:
        raise AlreadyIngested from None


def find_ingest(connection: Connection, uuid: str, ingest_id: str) -> Ingest | None:
    """The write of this id, and whether its rows are (or may be) gone since."""
    if not _CALLERS.fullmatch(ingest_id):
        return None  # no caller's: PostgreSQL would not even take a NUL
    of_dataset = INGESTS.c.dataset_uuid == uuid
    row = connection.execute(
        select(INGESTS).where(of_dataset, INGESTS.c.ingest_id == ingest_id)
    ).first()
    if row is None:
        return None
    after = select(INGESTS.c.seq, INGESTS.c.mode).where(
        of_dataset, INGESTS.c.mode.in_(_OVERTAKING), INGESTS.c.seq > row.seq
    )
    later = [(seq, mode) for seq, mode in connection.execute(after)]
    spans = list_spans(_list_rollbacks(connection, uuid))
    return Ingest(
        row.ingest_id,
        row.mode,
        row.snapshot_id,
        row.schema_id,
        row.record,
        row.made_ms,
        is_superseded(row.seq, row.mode, later, spans),
    )


def find_replace_of(connection: Connection, uuid: str, snapshot_id: int) -> str | None:
    """Id of the replace that made a snapshot, if one did."""
    query = select(INGESTS.c.ingest_id).where(
        INGESTS.c.dataset_uuid == uuid,
        INGESTS.c.snapshot_id == snapshot_id,
        INGESTS.c.mode == "replace",
    )
    return connection.execute(query).scalar()


def find_position(connection: Connection, uuid: str, lineage: Sequence[int], made_ms: int) -> int:
    """The number of the last write that a snapshot holds; 0 when it holds none.

    Args:
        lineage: the snapshot, its parent, and so on, as far as they are kept.
        made_ms: when it was made. Decides for one that another Iceberg client made, and whose
            parents are not kept.
    """
    last: Any = func.max(INGESTS.c.seq)
    of_dataset = INGESTS.c.dataset_uuid == uuid
    for snapshot_id in lineage:
        found = connection.execute(
            select(last).where(of_dataset, INGESTS.c.snapshot_id == snapshot_id)
        ).scalar()
        if found is not None:
            return found
    before = select(last).where(of_dataset, INGESTS.c.made_ms <= made_ms)
    return connection.execute(before).scalar() or 0


def _list_rollbacks(connection: Connection, uuid: str) -> list[Rollback]:
    query = select(INGESTS.c.seq, INGESTS.c.record).where(
        INGESTS.c.dataset_uuid == uuid, INGESTS.c.mode == ROLLBACK
    )
    return [Rollback(seq, int(target)) for seq, target in connection.execute(query)]
