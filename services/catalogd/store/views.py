"""What the wire says about a table, read from its metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot

from services.catalogd.core.schema import fingerprint_columns
from services.catalogd.core.snapshots import (
    Known,
    choose_snapshot,
    format_time,
    parse_reference,
)
from services.catalogd.core.sqltypes import sql_name
from services.catalogd.core.types import Columns
from services.catalogd.store.changes import list_tags, order_snapshots
from services.catalogd.store.iceberg import from_schema
from services.catalogd.store.ingestlog import Ingest
from shared.wire import catalogd as wire
from shared.wire.base import Column

# Properties that are about the table's own works, not about the data.
_INTERNAL = ("commit.", "write.", "schema.", "history.", "read.")


def show_columns(columns: Columns) -> list[Column]:
    """Columns by name and SQL type."""
    return [Column(name=column.name, type=sql_name(column.type)) for column in columns]


def find_schema(metadata: TableMetadata, schema_id: int | None) -> Schema:
    """The schema of an id, or the table's own where it has none of that id."""
    found = None if schema_id is None else metadata.schema_by_id(schema_id)
    return found or metadata.schema()


def describe_table(name: str, metadata: TableMetadata) -> wire.Dataset:
    """The dataset as its current snapshot shows it."""
    snapshot = metadata.current_snapshot()
    columns = from_schema(metadata.schema())
    return wire.Dataset(
        name=name,
        uuid=str(metadata.table_uuid),
        snapshot_id=str(snapshot.snapshot_id) if snapshot else "",
        fingerprint=fingerprint_columns(columns),
        rows=_total(snapshot, "total-records"),
        bytes=_total(snapshot, "total-files-size"),
        files=_total(snapshot, "total-data-files"),
        updated_at=format_time(metadata.last_updated_ms),
        properties={
            key: value
            for key, value in metadata.properties.items()
            if not key.startswith(_INTERNAL)
        },
        columns=show_columns(columns),
    )


def describe_snapshots(name: str, metadata: TableMetadata) -> wire.Snapshots:
    """Every retained snapshot, oldest first."""
    tags: dict[int, list[str]] = {}
    for tag, snapshot_id in sorted(list_tags(metadata).items()):
        tags.setdefault(snapshot_id, []).append(tag)
    return wire.Snapshots(
        dataset=name,
        snapshots=[
            _describe_snapshot(snapshot, tags.get(snapshot.snapshot_id, []))
            for snapshot in order_snapshots(metadata)
        ],
    )


def _describe_snapshot(snapshot: Snapshot, tags: list[str]) -> wire.Snapshot:
    summary = snapshot.summary
    parent = snapshot.parent_snapshot_id
    return wire.Snapshot(
        snapshot_id=str(snapshot.snapshot_id),
        parent_id=None if parent is None else str(parent),
        time=format_time(snapshot.timestamp_ms),
        operation=summary.operation.value if summary else "append",
        rows=_total(snapshot, "total-records"),
        tags=tags,
        summary=dict(summary.additional_properties) if summary else {},
    )


def locate_snapshot(name: str, metadata: TableMetadata, reference: str) -> Snapshot:
    """The retained snapshot that an id, a time or a tag means.

    Raises:
        NotFound: no such snapshot is kept; names the oldest that is.
        Invalid: the reference is none of these.
    """
    by_id = {snapshot.snapshot_id: snapshot for snapshot in metadata.snapshots}
    chosen = choose_snapshot(
        name, parse_reference(reference), by_id.keys(), list_history(metadata), list_tags(metadata)
    )
    return by_id[chosen]


def list_history(metadata: TableMetadata) -> list[Known]:
    """Which retained snapshot became current when, oldest first."""
    by_id = {snapshot.snapshot_id: snapshot for snapshot in metadata.snapshots}
    return [
        Known(entry.snapshot_id, entry.timestamp_ms, _follows_gap(by_id[entry.snapshot_id]))
        for entry in metadata.snapshot_log
        if entry.snapshot_id in by_id
    ]


def _follows_gap(snapshot: Snapshot) -> bool:
    # Expiry takes the parent's id from the snapshots whose parent it removes.
    return snapshot.parent_snapshot_id is None and (snapshot.sequence_number or 0) > 1


def _total(snapshot: Snapshot | None, name: str) -> int:
    if snapshot is None or snapshot.summary is None:
        return 0
    return int(snapshot.summary.get(name, "0") or 0)


def show_files(
    files: Iterable[tuple[str, int, int]], find_key: Callable[[str], str | None]
) -> list[wire.DataFile]:
    """Files as the wire has them: address, bytes, rows, key."""
    return [
        wire.DataFile(uri=uri, size=size, rows=rows, key=find_key(uri)) for uri, size, rows in files
    ]


def show_unchanged(name: str, metadata: TableMetadata, found: Ingest) -> wire.RegisterResponse:
    """What a register gets whose ingest the dataset holds already."""
    columns = from_schema(find_schema(metadata, found.schema_id))
    return wire.RegisterResponse(
        dataset=name,
        uuid=str(metadata.table_uuid),
        snapshot_id=str(found.snapshot_id),
        fingerprint=fingerprint_columns(columns),
        status="unchanged",
        record=show_record(found),
        superseded=found.superseded,
        columns=show_columns(columns),
    )


def show_record(found: Ingest) -> wire.IngestRecord | None:
    """The caller's account of an ingest, as it was given."""
    return wire.IngestRecord.model_validate_json(found.record) if found.record else None
