"""What is done to a dataset's versions: going back to one, naming one, letting old ones go.

Everything here blocks and belongs into the pool, one call of a dataset at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot

from services.catalogd.core.snapshots import TAG
from services.catalogd.store.catalog import discard_written
from services.catalogd.store.changes import Changes, list_tags
from services.catalogd.store.ingestlog import OWN, ROLLBACK, Ingest
from services.catalogd.store.pointers import require_dataset
from services.catalogd.store.tools import Tools
from services.catalogd.store.views import describe_table, locate_snapshot
from shared.errors import Conflict, Invalid, NotFound
from shared.wire import catalogd as wire

# Where a rollback's snapshot says which one it brought back.
RESTORED = "lakehouse.restored-snapshot"

T = TypeVar("T")


class Versions:
    """Rollbacks, tags and expiry."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def roll_back(self, name: str, reference: str, patience_s: float) -> wire.RolledBack:
        """Makes the dataset what it was at a retained snapshot, by a new one.

        Raises:
            NotFound: no such dataset, or no such snapshot is kept.
            Invalid: the reference is neither an id, a time nor a tag.
        """
        return self._run(name, patience_s, lambda table: self._roll_back(name, table, reference))

    def _roll_back(self, name: str, table: Table, reference: str) -> wire.RolledBack:
        metadata = table.metadata
        old = locate_snapshot(name, metadata, reference)
        current = metadata.current_snapshot()
        if current is None:
            raise Conflict(f"Dataset {name} has no current snapshot. Register objects first.")
        if _holds_same(current, old):
            return _answer(name, metadata, old, current, "unchanged")
        lineage = _list_lineage(metadata, old)
        uuid = str(metadata.table_uuid)
        target = self._tools.pointers.find_position(uuid, lineage, old.timestamp_ms)
        changes = Changes(table)
        marks = {RESTORED: _find_origin(old)}
        snapshot_id = self._stage(
            table,
            lambda: changes.restore_snapshot(old, summary=marks, now_ms=self._tools.now_ms()),
        )
        changes.expire_snapshots(self._tools.keep)
        ingest = Ingest(
            ingest_id=f"{OWN}{ROLLBACK}-{snapshot_id}",
            mode=ROLLBACK,
            snapshot_id=snapshot_id,
            schema_id=changes.table_metadata.current_schema_id,
            record=str(target),
            made_ms=self._tools.now_ms(),
        )
        after = self._tools.catalog.commit_ingest(table, changes.updates, ingest)
        self._tools.figures.upkeep.labels("rollback").inc()
        return _answer(name, after, old, current, "updated")

    def set_tag(self, name: str, tag: str, reference: str | None, patience_s: float) -> wire.Tagged:
        """Names a retained snapshot, which is kept from then on.

        Raises:
            NotFound: no such dataset, or no such snapshot is kept.
            Invalid: the reference is neither an id, a time nor a tag.
            Conflict: the name is a branch's.
        """
        return self._run(name, patience_s, lambda table: self._set_tag(name, table, tag, reference))

    def _set_tag(self, name: str, table: Table, tag: str, reference: str | None) -> wire.Tagged:
        _require_tag(name, table.metadata, tag)
        chosen = (
            table.metadata.current_snapshot()
            if reference is None
            else locate_snapshot(name, table.metadata, reference)
        )
        if chosen is None:
            raise Conflict(f"Dataset {name} has no snapshot to tag yet. Register objects first.")
        before = list_tags(table.metadata).get(tag)
        status = "unchanged" if before == chosen.snapshot_id else "moved" if before else "created"
        if status != "unchanged":
            changes = Changes(table)
            changes.set_tag(tag, chosen.snapshot_id)
            self._tools.catalog.commit_ingest(table, changes.updates, None)
        return wire.Tagged(
            dataset=name, tag=tag, snapshot_id=str(chosen.snapshot_id), status=status
        )

    def remove_tag(self, name: str, tag: str, patience_s: float) -> wire.TagDeleted:
        """Takes a name away; its snapshot is kept only as long as others of its age are.

        Raises:
            NotFound: no such dataset or tag.
        """
        return self._run(name, patience_s, lambda table: self._remove_tag(name, table, tag))

    def _remove_tag(self, name: str, table: Table, tag: str) -> wire.TagDeleted:
        _require_tag(name, table.metadata, tag)
        named = list_tags(table.metadata).get(tag)
        if named is None:
            raise NotFound(
                f"Dataset {name} has no tag {tag!r}. GET .../snapshots lists its tags.",
                details={"dataset": name, "tag": tag},
            )
        changes = Changes(table)
        changes.remove_tag(tag)
        self._tools.catalog.commit_ingest(table, changes.updates, None)
        return wire.TagDeleted(dataset=name, tag=tag, snapshot_id=str(named))

    def expire(self, name: str, keep: int | None, patience_s: float) -> wire.Expired:
        """Lets go of all snapshots but the last `keep` and those that a tag names.

        Raises:
            NotFound: there is no such dataset.
        """
        return self._run(name, patience_s, lambda table: self._expire(name, table, keep))

    def _expire(self, name: str, table: Table, keep: int | None) -> wire.Expired:
        changes = Changes(table)
        expired = changes.expire_snapshots(self._tools.keep if keep is None else keep)
        after = table.metadata
        if expired:
            after = self._tools.catalog.commit_ingest(table, changes.updates, None)
            self._tools.figures.expired.inc(expired)
        return wire.Expired(dataset=name, expired=expired, kept=len(after.snapshots))

    def _run(self, name: str, patience_s: float, attempt: Callable[[Table], T]) -> T:
        def once() -> T:
            pointer = require_dataset(name, self._tools.pointers.read_pointer(name))
            return attempt(self._tools.catalog.open_table(name, pointer.location or ""))

        return self._tools.commits.run(name, once, patience_s)

    def _stage(self, table: Table, work: Callable[[], T]) -> T:
        try:
            return work()
        except BaseException:
            discard_written(table.io)
            raise


def _holds_same(current: Snapshot, old: Snapshot) -> bool:
    """Whether the current snapshot is that one, or brought it back (or both did)."""
    return _find_origin(current) == _find_origin(old)


def _find_origin(snapshot: Snapshot) -> str:
    told = snapshot.summary.get(RESTORED) if snapshot.summary else None
    return str(told or snapshot.snapshot_id)


def _list_lineage(metadata: TableMetadata, snapshot: Snapshot) -> list[int]:
    lineage: list[int] = []
    found: Snapshot | None = snapshot
    while found is not None:
        lineage.append(found.snapshot_id)
        parent = found.parent_snapshot_id
        found = None if parent is None else metadata.snapshot_by_id(parent)
    return lineage


def _require_tag(name: str, metadata: TableMetadata, tag: str) -> None:
    if not TAG.fullmatch(tag):
        raise Invalid(f"{tag[:60]!r} is no tag: a letter, then letters, digits and . _ - only.")
    if tag in metadata.refs and tag not in list_tags(metadata):
        raise Conflict(
            f"{tag!r} is the name of a branch of dataset {name}. Choose another name.",
            details={"dataset": name, "branch": tag},
        )


def _answer(
    name: str, metadata: TableMetadata, old: Snapshot, previous: Snapshot, status: str
) -> wire.RolledBack:
    shown = describe_table(name, metadata)
    return wire.RolledBack.model_validate(
        {
            "dataset": name,
            "snapshot_id": shown.snapshot_id,
            "restored": str(old.snapshot_id),
            "previous": str(previous.snapshot_id),
            "status": status,
            "rows": shown.rows,
            "columns": shown.columns,
        }
    )
