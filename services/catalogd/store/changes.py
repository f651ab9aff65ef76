"""One write to a table, staged: its columns, its files, and the snapshots it retires.

Built on pyiceberg's transaction and snapshot producers, with three differences: the staged
metadata is computed once per change instead of at every look, and without copying every
snapshot each time (that was 80 % of a commit); a replace is one snapshot instead of a delete
and an append; and the new snapshot's time is always later than the one before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import cast

from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
)
from pyiceberg.table import Table, TableProperties, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation, Snapshot
from pyiceberg.table.update import (
    AddSchemaUpdate,
    AddSnapshotUpdate,
    RemoveSnapshotsUpdate,
    SetCurrentSchemaUpdate,
    SetPropertiesUpdate,
    TableUpdate,
    _apply_table_update,
    _TableMetadataUpdateContext,
    _update_table_metadata_log,
)
from pyiceberg.table.update.snapshot import _MergeAppendFiles, _SnapshotProducer

from services.catalogd.core.schema import Mode, assign_ids
from services.catalogd.core.snapshots import choose_expired
from services.catalogd.core.types import Columns
from services.catalogd.store.iceberg import from_schema, read_ids, render_name_mapping, to_schema
from shared.errors import Conflict

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
        ingest_id: str,
        now_ms: int,
        removes: Collection[str] = (),
    ) -> int:
        """Stages one snapshot: the files beside the present ones, or in the place of some or all.

        Writes the manifests. Gives the snapshot's id.

        Args:
            removes: addresses of the files that a rewrite takes out.

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
            snapshot_properties={INGEST_ID: ingest_id},
        )
        if isinstance(producer, _RewriteFiles):
            producer.plan(self._table.name()[-1], frozenset(removes))
        for file in files:
            producer.append_data_file(file)
        updates, requirements = producer._commit()
        # Two commits in one millisecond, or a clock set back, must still have an order in time.
        ms = max(now_ms, self.table_metadata.last_updated_ms + 1) if present else now_ms
        self._stage(tuple(_at_time(update, ms) for update in updates), requirements)
        return producer.snapshot_id

    def expire_snapshots(self, keep: int) -> None:
        """Stages the removal of all but the last `keep` snapshots and those that refs name."""
        metadata = self.table_metadata
        protected = {ref.snapshot_id for ref in metadata.refs.values()}
        ordered = [snapshot.snapshot_id for snapshot in order_snapshots(metadata)]
        expired = choose_expired(ordered, protected, keep)
        if expired:
            self._stage((RemoveSnapshotsUpdate(snapshot_ids=expired),))

    @property
    def updates(self) -> tuple[TableUpdate, ...]:
        """Everything staged, in order."""
        return self._updates


def _at_time(update: TableUpdate, ms: int) -> TableUpdate:
    if not isinstance(update, AddSnapshotUpdate):
        return update
    return AddSnapshotUpdate(snapshot=update.snapshot.model_copy(update={"timestamp_ms": ms}))


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


def missing_files(dataset: str, missing: Collection[str]) -> Conflict:
    """What a rewrite hears whose files are not there (any more)."""
    shown = sorted(missing)
    more = f" and {len(shown) - 1} more" if len(shown) > 1 else ""
    return Conflict(
        f"Dataset {dataset} does not hold {shown[0]!r}{more} now: another write took it out. "
        "Nothing was changed; ask for its files, and plan the write anew.",
        details={"dataset": dataset, "missing": shown[:20], "missing_count": len(shown)},
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


def order_snapshots(metadata: TableMetadata) -> list[Snapshot]:
    """All retained snapshots, oldest first."""
    return sorted(metadata.snapshots, key=lambda snapshot: snapshot.sequence_number or 0)
