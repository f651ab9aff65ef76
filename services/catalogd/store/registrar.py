"""Registering objects: one write to one dataset, in one commit, exactly once.

Everything here blocks and belongs into the pool. Writes to one dataset should come one at a
time (`Catalogue` sees to it); when another process is faster, the pointer's compare-and-swap
says so, and the write is planned anew on what is there then.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from uuid import UUID, uuid4

from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata, new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER

from services.catalogd.core.collecting import name_object
from services.catalogd.core.ingests import (
    Order,
    derive_ingest_id,
    digest_write,
    is_same_replace,
)
from services.catalogd.core.schema import (
    assign_ids,
    compare_columns,
    fingerprint_columns,
    plan_columns,
)
from services.catalogd.core.types import Columns
from services.catalogd.store.catalog import discard_written
from services.catalogd.store.changes import INGEST_ID, TABLE_PROPERTIES, Changes
from services.catalogd.store.iceberg import from_schema, read_ids, to_schema
from services.catalogd.store.ingestlog import Ingest
from services.catalogd.store.parquet import ParquetFile, make_data_file, read_parquet
from services.catalogd.store.pointers import Pointer
from services.catalogd.store.questions import missing_files
from services.catalogd.store.tools import Tools
from services.catalogd.store.views import describe_table, show_unchanged
from shared.errors import Conflict, Unprocessable
from shared.wire.catalogd import RegisterResponse
from shared.wire.storaged import ObjectInfo


class Registrar:
    """The only writer of datasets."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def read_objects(self, infos: Sequence[ObjectInfo]) -> list[ParquetFile]:
        """Footers of objects.

        Raises:
            Unprocessable: one is no Parquet file, or does not fit a table.
        """
        return [read_parquet(self._tools.catalog.open_io(info.uri), info) for info in infos]

    def register(
        self, order: Order, files: Sequence[ParquetFile], patience_s: float
    ) -> RegisterResponse:
        """Makes files part of a dataset.

        Args:
            order: what is asked.
            files: from `read_objects`.
            patience_s: how long to try while other processes write to the dataset.

        Raises:
            Conflict: the columns do not fit, or the dataset's identity is another by now.
            Unprocessable: the files differ, or there is nothing to make a dataset of.
            Unavailable: other writers were faster all the time.
            InsufficientStorage: the disk is full or broken; nothing was changed.
        """
        check_alike(files)
        started = time.monotonic()
        answer = self._tools.commits.run(
            order.name, lambda: self._try_once(order, files), patience_s
        )
        self._tools.figures.observe(answer.status, time.monotonic() - started)
        return answer

    def _try_once(self, order: Order, files: Sequence[ParquetFile]) -> RegisterResponse:
        pointer = self._tools.pointers.read_pointer(order.name)
        location = pointer.location if pointer else None
        metadata = self._tools.catalog.load_metadata(location) if location else None
        identity = self._identify(order, pointer, metadata)
        ingest_id, found = self._find_same(order, identity, metadata)
        if found is not None and metadata is not None:
            return show_unchanged(order.name, metadata, found)
        require_base(order, metadata)
        if metadata is None or location is None:
            table = self._stage_new(order, identity, files)
        else:
            require_plain(order.name, metadata)
            table = self._tools.catalog.open_table(order.name, location)
        changes = Changes(table)
        if files:
            given = files[0].columns
            present = from_schema(table.metadata.schema())
            planned = plan_columns(order.name, present, given, order.mode, order.evolve)
            changes.set_columns(planned)
        filled = [file for file in files if file.rows]
        idle = order.mode != "replace" and not filled and not order.removes
        if idle and metadata and not changes.updates:
            # Nothing to add: the ingest alone is noted, for a retry to find.
            snapshot = metadata.current_snapshot_id or 0
            ingest = self._make_ingest(order, ingest_id, snapshot, metadata)
            places = [name_object(key) for key in order.places()]
            self._tools.catalog.note_ingest(table, ingest, places, order.since)
            after = metadata
        else:
            after, ingest = self._commit(order, ingest_id, changes, table, filled)
        return _answer_changed(order, after, ingest, created=metadata is None)

    def _identify(
        self, order: Order, pointer: Pointer | None, metadata: TableMetadata | None
    ) -> str:
        """The dataset's uuid, reserved now when the name is new."""
        identity = str(metadata.table_uuid) if metadata else pointer.uuid if pointer else None
        if order.uuid is not None and order.uuid != identity:
            raise Conflict(
                f"Dataset {order.name} was deleted since this write began; nothing was changed. "
                "Begin it again: the dataset has a new identity.",
                details={"dataset": order.name, "expected_uuid": order.uuid, "uuid": identity},
            )
        return identity or self._tools.pointers.reserve_uuid(order.name, str(uuid4()))

    def _find_same(
        self, order: Order, identity: str, metadata: TableMetadata | None
    ) -> tuple[str, Ingest | None]:
        """The write's id, and the write itself when the dataset has it already."""
        if order.ingest_id is not None:
            return order.ingest_id, self._tools.pointers.find_ingest(identity, order.ingest_id)
        digest = digest_write(identity, order.mode, order.objects, order.removes)
        base = metadata.current_snapshot_id if metadata else None
        if order.mode == "replace" and base is not None:
            latest = self._tools.pointers.find_replace_of(identity, base)
            if latest is not None and is_same_replace(latest, digest):
                return latest, self._tools.pointers.find_ingest(identity, latest)
        ingest_id = derive_ingest_id(digest, order.mode, base)
        return ingest_id, self._tools.pointers.find_ingest(identity, ingest_id)

    def _stage_new(self, order: Order, identity: str, files: Sequence[ParquetFile]) -> Table:
        if not files:
            raise Unprocessable(
                f"There is no dataset {order.name} yet, and no object to take its columns from. "
                "Send at least one object; a Parquet file without rows will do."
            )
        columns: Columns = files[0].columns
        metadata = new_table_metadata(
            to_schema(columns, assign_ids(columns, {}, 0)),
            UNPARTITIONED_PARTITION_SPEC,
            UNSORTED_SORT_ORDER,
            # By identity, so that a dataset made anew shares nothing with the old one.
            f"{self._tools.catalog.warehouse}/{identity}",
            dict(TABLE_PROPERTIES),
            UUID(identity),
        )
        return self._tools.catalog.stage_table(order.name, metadata)

    def _commit(
        self,
        order: Order,
        ingest_id: str,
        changes: Changes,
        table: Table,
        files: Sequence[ParquetFile],
    ) -> tuple[TableMetadata, Ingest]:
        planned = changes.table_metadata
        columns, ids = from_schema(planned.schema()), read_ids(planned)
        try:
            snapshot = changes.add_snapshot(
                [make_data_file(file, columns, ids) for file in files],
                mode=order.mode,
                removes=order.removes,
                summary={INGEST_ID: ingest_id},
                now_ms=self._tools.now_ms(),
            )
            changes.expire_snapshots(self._tools.keep)
        except BaseException:
            discard_written(table.io)
            raise
        ingest = self._make_ingest(order, ingest_id, snapshot, planned)
        places = [name_object(key) for key in order.places()]
        return (
            self._tools.catalog.commit_ingest(table, changes.updates, ingest, places, order.since),
            ingest,
        )

    def _make_ingest(
        self, order: Order, ingest_id: str, snapshot_id: int, metadata: TableMetadata
    ) -> Ingest:
        return Ingest(
            ingest_id=ingest_id,
            mode=order.mode,
            snapshot_id=snapshot_id,
            schema_id=metadata.current_schema_id,
            record=order.record.model_dump_json() if order.record else None,
            made_ms=self._tools.now_ms(),
        )


def require_base(order: Order, metadata: TableMetadata | None) -> None:
    """Holds a write to the snapshot that it was planned on, where it names one.

    Raises:
        Conflict: the current snapshot is another, or the files to take out are of a dataset
            that is not there.
    """
    current = metadata.current_snapshot_id if metadata else None
    found = "" if current is None else str(current)
    if order.base is not None and order.base != found:
        raise Conflict(
            f"Dataset {order.name} has changed since this write was planned; nothing was changed. "
            "Plan it again on what is there now.",
            details={"dataset": order.name, "base_snapshot": order.base, "snapshot_id": found},
        )
    if order.removes and not found:
        raise missing_files(order.name, order.removes)


def check_alike(files: Sequence[ParquetFile]) -> None:
    """Holds the objects of one register to one schema.

    Raises:
        Unprocessable: one differs from the first; the details name each column.
    """
    wanted = fingerprint_columns(files[0].columns) if files else ""
    for file in files[1:]:
        if file.columns == files[0].columns or fingerprint_columns(file.columns) == wanted:
            continue
        difference = compare_columns(files[0].columns, file.columns)
        raise Unprocessable(
            f"The objects of one request must have the same columns. {file.key!r} "
            f"differs from {files[0].key!r}: {difference.describe()}.",
            details={
                "object": file.key,
                "added": difference.added,
                "missing": difference.missing,
                "changed": difference.changed,
            },
        )


def _answer_changed(
    order: Order, metadata: TableMetadata, ingest: Ingest, *, created: bool
) -> RegisterResponse:
    shown = describe_table(order.name, metadata)
    return RegisterResponse(
        dataset=order.name,
        uuid=shown.uuid,
        snapshot_id=str(ingest.snapshot_id),
        fingerprint=shown.fingerprint,
        status="created" if created else "updated",
        record=order.record,
        columns=shown.columns,
    )


def require_plain(name: str, metadata: TableMetadata) -> None:
    """Lets datasets pass that catalogd writes to.

    Raises:
        Unprocessable: another engine made it partitioned, or of another format version.
    """
    if metadata.format_version != 2 or not metadata.spec().is_unpartitioned():
        raise Unprocessable(
            f"Another engine made dataset {name} partitioned, or of a format version other than "
            "2. Write to it with that engine, or register under another name."
        )
