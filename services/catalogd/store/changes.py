"""One write to a table, staged: its columns, its files, and the snapshots it retires.

Built on pyiceberg's transaction and snapshot producers, with three differences: the staged
metadata is computed once per change instead of at every look, and without copying every
snapshot each time (that was 80 % of a commit); a replace is one snapshot instead of a delete
and an append; and the new snapshot's time is always later than the one before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import cast
from uuid import uuid4

from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    write_manifest_list,
)
from pyiceberg.table import Table, TableProperties, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.update import (
    AddSchemaUpdate,
    AddSnapshotUpdate,
    RemoveSnapshotRefUpdate,
    RemoveSnapshotsUpdate,
    SetCurrentSchemaUpdate,
    SetPropertiesUpdate,
    SetSnapshotRefUpdate,
    TableUpdate,
    _apply_table_update,
    _TableMetadataUpdateContext,
    _update_table_metadata_log,
)
from pyiceberg.table.update.snapshot import _MergeAppendFiles, _SnapshotProducer
from pyiceberg.typedef import EMPTY_DICT

from services.catalogd.core.schema import Mode, assign_ids
from services.catalogd.core.snapshots import choose_expired
from services.catalogd.core.types import Columns
from services.catalogd.store.iceberg import from_schema, read_ids, render_name_mapping, to_schema
from services.catalogd.store.questions import missing_files

# Properties of every table made here. Small manifests are merged, so that their number stays
# small; only so far that a merge rewrites a bounded number of entries; and superseded
# metadata files go at once.
TABLE_PROPERTIES = {
    TableProperties.MANIFEST_MERGE_ENABLED: "true",
    TableProperties.MANIFEST_MIN_MERGE_COUNT: "10",
    TableProperties.MANIFEST_TARGET_SIZE_BYTES: str(48 * 1024),
    TableProperties.METADATA_DELETE_AFTER_COMMIT_ENABLED: "true",
    TableProperties.METADATA_PREVIOUS_VERSIONS_MAX: "5",
}

# Where a snapshot's summary says which ingest made it.
INGEST_ID = "lakehouse.ingest-id"


class Changes(Transaction):
    """Changes to one table, to be committed together by `DatasetCatalog.commit_ingest`."""

    def __init__(self, table: Table) -> None:
        super().__init__(table, autocommit=False)
        self._staged: tuple[tuple[TableUpdate, ...], TableMetadata] = ((), table.metadata)

    @property
    def table_metadata(self) -> TableMetadata:
        # The tuple of updates is replaced by every change and never altered.
        if self._staged[0] is not self._updates:
            staged = apply_updates(self._table.metadata, self._updates)
            self._staged = (self._updates, staged)
        return self._staged[1]

    def set_columns(self, columns: Columns) -> None:
        """Makes these the table's columns; a name keeps the field id it ever had."""
        metadata = self.table_metadata
        known = read_ids(metadata)
        ids = assign_ids(columns, known, max([metadata.last_column_id, *known.values()]))
        updates: list[TableUpdate] = []
        if from_schema(metadata.schema()) != columns:
            schema = to_schema(columns, ids, max(s.schema_id for s in metadata.schemas) + 1)
            same = next((s for s in metadata.schemas if s.fields == schema.fields), None)
            if same is None:
                updates.append(AddSchemaUpdate(schema=schema))
            schema_id = schema.schema_id if same is None else same.schema_id
            updates.append(SetCurrentSchemaUpdate(schema_id=schema_id))
        mapping = render_name_mapping({**known, **ids})
        if metadata.properties.get(TableProperties.DEFAULT_NAME_MAPPING) != mapping:
            named = {TableProperties.DEFAULT_NAME_MAPPING: mapping}
            updates.append(SetPropertiesUpdate(updates=named))
        self._stage(tuple(updates))

    def add_snapshot(
        self,
        files: Iterable[DataFile],
        *,
        mode: Mode,
        now_ms: int,
        removes: Collection[str] = (),
        summary: Mapping[str, str] = EMPTY_DICT,
        same_rows: bool = False,
    ) -> int:
        """Stages one snapshot: the files beside the present ones, or in the place of some or all.

        Writes the manifests. Gives the snapshot's id.

        Args:
            removes: addresses of the files that a rewrite takes out.
            summary: what the snapshot says of itself, beside its figures.
            same_rows: the table has the rows it had, in other files.

        Raises:
            Conflict: one of them is not in the current snapshot.
        """
        present = self.table_metadata.current_snapshot() is not None
        takes = present and (mode == "replace" or bool(removes))
        kind = _ReplaceFiles if mode == "replace" else _RewriteFiles if removes else _AppendFiles
        producer = kind(
            operation=Operation.OVERWRITE if takes else Operation.APPEND,
            transaction=self,
            io=self._table.io,
            snapshot_properties=dict(summary),
        )
        if isinstance(producer, _RewriteFiles):
            producer.plan(self._table.name()[-1], frozenset(removes))
        for file in files:
            producer.append_data_file(file)
        updates, requirements = producer._commit()
        # Two commits in one millisecond, or a clock set back, must still have an order in time.
        ms = max(now_ms, self.table_metadata.last_updated_ms + 1) if present else now_ms
        updates = tuple(_at_time(update, ms) for update in updates)
        if same_rows:
            updates = tuple(map(_as_replace, updates))
        self._stage(updates, requirements)
        return producer.snapshot_id

    def restore_snapshot(self, old: Snapshot, *, summary: Mapping[str, str], now_ms: int) -> int:
        """Stages a snapshot that holds what an earlier one holds, with its columns.

        It names the same manifests, so it costs the same whatever the table's size. Gives the
        snapshot's id.
        """
        base = self.table_metadata
        if old.schema_id is not None and old.schema_id != base.current_schema_id:
            self._stage((SetCurrentSchemaUpdate(schema_id=old.schema_id),))
        io = self._table.io
        snapshot_id = base.new_snapshot_id()
        sequence_number = base.next_sequence_number()
        place = self._table.location_provider().new_metadata_location(
            f"snap-{snapshot_id}-0-{uuid4()}.avro"
        )
        with write_manifest_list(
            format_version=base.format_version,
            output_file=io.new_output(place),
            snapshot_id=snapshot_id,
            parent_snapshot_id=base.current_snapshot_id,
            sequence_number=sequence_number,
            avro_compression="deflate",
        ) as writer:
            writer.add_manifests(old.manifests(io))
        totals = {
            name: value
            for name, value in (old.summary.additional_properties if old.summary else {}).items()
            if name.startswith("total-")
        }
        snapshot = Snapshot(
            snapshot_id=snapshot_id,
            parent_snapshot_id=base.current_snapshot_id,
            manifest_list=place,
            sequence_number=sequence_number,
            timestamp_ms=max(now_ms, base.last_updated_ms + 1),
            summary=Summary(Operation.OVERWRITE, **totals, **summary),
            schema_id=self.table_metadata.current_schema_id,
        )
        moved = SetSnapshotRefUpdate(
            snapshot_id=snapshot_id, ref_name=MAIN_BRANCH, type=SnapshotRefType.BRANCH
        )
        self._stage((AddSnapshotUpdate(snapshot=snapshot), moved))
        return snapshot_id

    def set_tag(self, tag: str, snapshot_id: int) -> None:
        """Stages a name for a snapshot."""
        kind = SnapshotRefType.TAG
        named = SetSnapshotRefUpdate(snapshot_id=snapshot_id, ref_name=tag, type=kind)
        self._stage((named,))

    def remove_tag(self, tag: str) -> None:
        """Stages the removal of a name."""
        self._stage((RemoveSnapshotRefUpdate(ref_name=tag),))

    def expire_snapshots(self, keep: int) -> int:
        """Stages the removal of all but the last `keep` snapshots and those that refs name.

        Gives how many go.
        """
        metadata = self.table_metadata
        protected = {ref.snapshot_id for ref in metadata.refs.values()}
        ordered = [snapshot.snapshot_id for snapshot in order_snapshots(metadata)]
        expired = choose_expired(ordered, protected, keep)
        if expired:
            self._stage((RemoveSnapshotsUpdate(snapshot_ids=expired),))
        return len(expired)

    @property
    def updates(self) -> tuple[TableUpdate, ...]:
        """Everything staged, in order."""
        return self._updates


def _at_time(update: TableUpdate, ms: int) -> TableUpdate:
    if not isinstance(update, AddSnapshotUpdate):
        return update
    return AddSnapshotUpdate(snapshot=update.snapshot.model_copy(update={"timestamp_ms": ms}))


def _as_replace(update: TableUpdate) -> TableUpdate:
    # pyiceberg counts figures for other operations only; they are the same for this one.
    if not isinstance(update, AddSnapshotUpdate) or update.snapshot.summary is None:
        return update
    told = Summary(Operation.REPLACE, **update.snapshot.summary.additional_properties)
    return AddSnapshotUpdate(snapshot=update.snapshot.model_copy(update={"summary": told}))


class _AppendFiles(_MergeAppendFiles):
    """A snapshot of the new files beside the present ones."""

    def _process_manifests(self, manifests: list[ManifestFile]) -> list[ManifestFile]:
        merged = super()._process_manifests(manifests)
        kept = {manifest.manifest_path for manifest in merged}
        for manifest in manifests:
            # A manifest of this very commit that went into a larger one is nobody's.
            if (
                manifest.added_snapshot_id == self._snapshot_id
                and manifest.manifest_path not in kept
            ):
                self._io.delete(manifest.manifest_path)
        return merged


class _ReplaceFiles(_SnapshotProducer["_ReplaceFiles"]):
    """A snapshot of the new files alone; every present one is marked deleted in it."""

    def _validate_concurrency(self) -> None:
        """Nothing to check: the commit is against exactly the metadata it was planned on."""

    def _existing_manifests(self) -> list[ManifestFile]:
        return []

    def _deleted_entries(self) -> list[ManifestEntry]:
        snapshot = self._transaction.table_metadata.current_snapshot()
        live = [
            entry
            for manifest in (snapshot.manifests(self._io) if snapshot else ())
            if manifest.content == ManifestContent.DATA
            for entry in self.fetch_manifest_entry(manifest)
            if entry.data_file.content == DataFileContent.DATA
        ]
        self._deleted_data_files = every_file(live)
        return [mark_entry(entry, ManifestEntryStatus.DELETED, self._snapshot_id) for entry in live]


class _RewriteFiles(_AppendFiles):
    """A snapshot of the new files beside the present ones without some of them."""

    def plan(self, dataset: str, removes: Collection[str]) -> None:
        """Finds the files to take out.

        Raises:
            Conflict: one is not in the current snapshot.
        """
        self._kept: list[ManifestFile] = []
        self._thinned: list[list[ManifestEntry]] = []
        self._gone: list[ManifestEntry] = []
        snapshot = self._transaction.table_metadata.current_snapshot()
        for manifest in snapshot.manifests(self._io) if snapshot else ():
            if manifest.content != ManifestContent.DATA:
                self._kept.append(manifest)
                continue
            live = self.fetch_manifest_entry(manifest)
            gone = [entry for entry in live if entry.data_file.file_path in removes]
            self._gone += gone
            if not gone:
                if live:
                    self._kept.append(manifest)
            elif len(gone) < len(live):
                names = {entry.data_file.file_path for entry in gone}
                self._thinned.append([e for e in live if e.data_file.file_path not in names])
        found = {entry.data_file.file_path for entry in self._gone}
        if missing := sorted(set(removes) - found):
            raise missing_files(dataset, missing)

    def _existing_manifests(self) -> list[ManifestFile]:
        thinned: list[ManifestFile] = []
        for entries in self._thinned:
            spec = self._transaction.table_metadata.spec()
            with self.new_manifest_writer(spec) as writer:
                for entry in entries:
                    writer.existing(entry)
            thinned.append(writer.to_manifest_file())
        return thinned + self._kept

    def _deleted_entries(self) -> list[ManifestEntry]:
        self._deleted_data_files = every_file(self._gone)
        return [
            mark_entry(entry, ManifestEntryStatus.DELETED, self._snapshot_id)
            for entry in self._gone
        ]


def every_file(entries: Iterable[ManifestEntry]) -> set[DataFile]:
    """Their files, one as often as it is there: the summary's totals count each.

    pyiceberg declares a set, in which an object that two ingests named would count once.
    """
    return cast("set[DataFile]", [entry.data_file for entry in entries])


def mark_entry(
    entry: ManifestEntry, status: ManifestEntryStatus, snapshot_id: int
) -> ManifestEntry:
    """The entry of the same file with another status, from this snapshot on."""
    return ManifestEntry.from_args(
        status=status,
        snapshot_id=snapshot_id,
        sequence_number=entry.sequence_number,
        file_sequence_number=entry.file_sequence_number,
        data_file=entry.data_file,
    )


def apply_updates(
    base: TableMetadata, updates: tuple[TableUpdate, ...], location: str | None = None
) -> TableMetadata:
    """What pyiceberg's `update_table_metadata` gives, without its deep copy.

    Metadata is frozen, so that versions may share what did not change. `location` is where
    `base` lies, for the log of previous files.
    """
    context = _TableMetadataUpdateContext()
    metadata = base
    for update in updates:
        metadata = _apply_table_update(update, metadata, context)
    if location is not None and context.has_changes():
        metadata = _update_table_metadata_log(metadata, location, base.last_updated_ms)
    return metadata


def list_tags(metadata: TableMetadata) -> dict[str, int]:
    """Names of snapshots, and which they name."""
    return {
        name: ref.snapshot_id
        for name, ref in metadata.refs.items()
        if ref.snapshot_ref_type == SnapshotRefType.TAG
    }


def order_snapshots(metadata: TableMetadata) -> list[Snapshot]:
    """All retained snapshots, oldest first."""
    return sorted(metadata.snapshots, key=lambda snapshot: snapshot.sequence_number or 0)
