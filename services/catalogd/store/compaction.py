"""Compaction's blocking half: which files are merged, whether they may be, and the commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyiceberg.manifest import FileFormat, ManifestContent
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata

from services.catalogd.core.bins import FULL, plan_groups
from services.catalogd.core.collecting import name_object
from services.catalogd.core.schema import fingerprint_columns, merge_columns
from services.catalogd.core.types import Columns
from services.catalogd.store.catalog import discard_written
from services.catalogd.store.changes import Changes
from services.catalogd.store.iceberg import from_schema, read_ids
from services.catalogd.store.ingestlog import COMPACT, OWN, Ingest
from services.catalogd.store.parquet import ParquetFile, make_data_file, read_parquet
from services.catalogd.store.pointers import require_dataset
from services.catalogd.store.registrar import require_plain
from services.catalogd.store.tools import Tools
from shared.errors import Conflict, Internal, LakehouseError
from shared.wire.storaged import ObjectInfo

# What a compaction's snapshot says of itself.
SUMMARY = {"lakehouse.compaction": "true"}


@dataclass(frozen=True, slots=True)
class OldFile:
    """A file of the current snapshot."""

    uri: str
    size: int
    rows: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a compaction of a dataset is to merge.

    Attributes:
        files: how many the dataset has.
        snapshot_id: the current one, as the wire has it.
        more: there is more to merge than the budget allowed.
    """

    uuid: str
    snapshot_id: str
    columns: Columns
    files: int
    groups: tuple[tuple[OldFile, ...], ...]
    more: bool


class Compactor:
    """Plans and commits compactions."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def plan(self, name: str, target: int, *, least: int, tiered: bool, budget: int) -> Plan:
        """What there is to merge; see `plan_groups`.

        Raises:
            NotFound: there is no such dataset.
            Unprocessable: another engine made it partitioned, or of another format.
        """
        metadata = self._open(name).metadata
        require_plain(name, metadata)
        snapshot = metadata.current_snapshot()
        files = self._list_files(metadata)
        sizes = [file.size for file in files]
        chosen = plan_groups(sizes, target, least=least, tiered=tiered, budget=budget)
        spare = sum(size < target * FULL for size in sizes) - sum(map(len, chosen))
        left = plan_groups(sizes, target, least=least, tiered=tiered, budget=1 << 62)
        return Plan(
            uuid=str(metadata.table_uuid),
            snapshot_id=str(snapshot.snapshot_id) if snapshot else "",
            columns=from_schema(metadata.schema()),
            files=len(files),
            groups=tuple(tuple(files[n] for n in group) for group in chosen),
            more=spare > 0 and len(left) > len(chosen),
        )

    def find_problem(self, file: OldFile, columns: Columns) -> str | None:
        """Why a file cannot be merged into these columns, or None when it can.

        What catalogd cannot read as it is, such as files with field ids of another engine's,
        stays as it is.
        """
        try:
            found = self.read_file(file.uri.partition("://")[2], file.uri, file.size)
        except LakehouseError as error:
            return error.message
        merged = merge_columns(columns, found.columns)
        if merged.blocked or fingerprint_columns(merged.columns) != fingerprint_columns(columns):
            return f"{file.uri} has columns that the dataset has not"
        return None if found.rows == file.rows else f"{file.uri} has changed since it was stored"

    def read_file(self, key: str, uri: str, size: int) -> ParquetFile:
        """A file's footer, under the name that messages use."""
        info = ObjectInfo(key=key, etag="", size=size, uri=uri, last_modified="")
        return read_parquet(self._tools.catalog.open_io(uri), info)

    def commit(
        self,
        name: str,
        plan: Plan,
        removes: Sequence[OldFile],
        files: Sequence[ParquetFile],
        since: int,
        patience_s: float,
    ) -> str:
        """Puts the new files in the place of the old ones; gives the snapshot's id.

        Args:
            since: the epoch of collection before the new files were stored.

        Raises:
            Conflict: an old file is not in the current snapshot any more, or the dataset is
                another by now; nothing was changed.
        """
        before, after = sum(file.rows for file in removes), sum(file.rows for file in files)
        if before != after:
            raise Internal(f"A merge of {before} rows gave {after}; nothing was changed.")

        def attempt() -> str:
            return self._commit(name, plan, removes, files, since)

        return self._tools.commits.run(name, attempt, patience_s)

    def _commit(
        self,
        name: str,
        plan: Plan,
        removes: Sequence[OldFile],
        files: Sequence[ParquetFile],
        since: int,
    ) -> str:
        table = self._open(name)
        columns, ids = from_schema(table.metadata.schema()), read_ids(table.metadata)
        fits = all(
            fingerprint_columns(merge_columns(columns, file.columns).columns)
            == fingerprint_columns(columns)
            for file in files
        )
        if str(table.metadata.table_uuid) != plan.uuid or not fits:
            raise Conflict(f"Dataset {name} became another while its files were merged.")
        changes = Changes(table)
        try:
            snapshot_id = changes.add_snapshot(
                [make_data_file(file, columns, ids) for file in files],
                mode="rewrite",
                removes=[file.uri for file in removes],
                summary=SUMMARY,
                same_rows=True,
                now_ms=self._tools.now_ms(),
            )
            changes.expire_snapshots(self._tools.keep)
        except BaseException:
            discard_written(table.io)
            raise
        ingest = Ingest(
            ingest_id=f"{OWN}{COMPACT}-{snapshot_id}",
            mode=COMPACT,
            snapshot_id=snapshot_id,
            schema_id=changes.table_metadata.current_schema_id,
            record=None,
            made_ms=self._tools.now_ms(),
        )
        places = [name_object(file.key) for file in files]
        self._tools.catalog.commit_ingest(table, changes.updates, ingest, places, since)
        return str(snapshot_id)

    def _open(self, name: str) -> Table:
        pointer = require_dataset(name, self._tools.pointers.read_pointer(name))
        return self._tools.catalog.open_table(name, pointer.location or "")

    def _list_files(self, metadata: TableMetadata) -> list[OldFile]:
        """Files of the current snapshot in the order of their commits."""
        snapshot = metadata.current_snapshot()
        io = self._tools.catalog.open_io(metadata.location)
        found: list[tuple[int, OldFile]] = []
        for manifest in snapshot.manifests(io) if snapshot else ():
            if manifest.content != ManifestContent.DATA:
                return []  # row-level deletes are by address: such files must stay
            for entry in manifest.fetch_manifest_entry(io):
                file = entry.data_file
                if file.file_format != FileFormat.PARQUET:
                    return []
                old = OldFile(file.file_path, file.file_size_in_bytes, file.record_count)
                found.append((entry.sequence_number or 0, old))
        found.sort(key=lambda one: one[0])
        return [old for _, old in found]
