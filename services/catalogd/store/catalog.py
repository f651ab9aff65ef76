"""pyiceberg's `SqlCatalog`, committing through our database: pointer and ingest together.

A commit writes its metadata file durably, then moves the pointer by compare-and-swap in the
transaction that notes the ingest. Dying in between leaves files that nothing names.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from cachetools import LRUCache
from pyiceberg.catalog import URI, WAREHOUSE_LOCATION, Catalog, MetastoreCatalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.io import FileIO, load_file_io
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, SortOrder
from pyiceberg.table.update import TableRequirement, TableUpdate
from pyiceberg.typedef import EMPTY_DICT, Identifier, Properties

from services.catalogd.store.changes import apply_updates
from services.catalogd.store.failures import guarded
from services.catalogd.store.fileio import DurableFileIO
from services.catalogd.store.ingestlog import AlreadyIngested, Ingest
from services.catalogd.store.marks import Collected
from services.catalogd.store.objectio import ObjectBridge, ObjectFileIO
from services.catalogd.store.pointers import Pointers, Superseded
from services.catalogd.store.tables import CATALOG, NAMESPACE

# Parsed metadata kept in memory; a file of that name never changes. Tables at 100 snapshots
# take about half a MiB each.
CACHED_TABLES = 32

# What the wire says about a dataset, made from its metadata.
Describe = Callable[[str, TableMetadata], str]


class DatasetCatalog(SqlCatalog):
    """The catalogue of all datasets.

    Args:
        pointers: the database.
        warehouse: address under which the tables' metadata lies.
        describe: gives the description that is kept beside the pointer.
        bridge: to the fleet's bucket, where it has one.
    """

    def __init__(
        self,
        pointers: Pointers,
        warehouse: str,
        describe: Describe,
        bridge: ObjectBridge | None = None,
    ) -> None:
        # Not SqlCatalog's own: that one opens a second engine without our settings.
        properties = {URI: str(pointers.uri), WAREHOUSE_LOCATION: warehouse}
        MetastoreCatalog.__init__(self, CATALOG, **properties)
        self.engine = pointers.engine
        with guarded():
            self._init_catalog()
        self.warehouse = warehouse.rstrip("/")
        self._pointers = pointers
        self._describe = describe
        self._bridge = bridge
        self._cache: LRUCache[str, TableMetadata] = LRUCache(CACHED_TABLES)
        self._cache_lock = threading.Lock()

    def load_metadata(self, location: str) -> TableMetadata:
        """The metadata in a file, parsed once.

        Raises:
            FileNotFoundError: the file was collected; the pointer has moved since.
        """
        with self._cache_lock:
            found = self._cache.get(location)
        if found is None:
            io = self._load_file_io(location=location)
            found = FromInputFile.table_metadata(io.new_input(location))
            self._remember(location, found)
        return found

    def _remember(self, location: str, metadata: TableMetadata) -> None:
        with self._cache_lock:
            self._cache[location] = metadata

    def open_table(self, name: str, location: str) -> Table:
        """The table whose metadata is in a file, with a FileIO of its own."""
        metadata = self.load_metadata(location)
        io = self._load_file_io(metadata.properties, location)
        return Table((NAMESPACE, name), metadata, location, io, self)

    def stage_table(self, name: str, metadata: TableMetadata) -> Table:
        """A table that does not exist yet; the first commit makes it."""
        io = self._load_file_io(metadata.properties, metadata.location)
        return Table((NAMESPACE, name), metadata, "", io, self)

    def load_table(self, identifier: str | Identifier) -> Table:
        name = Catalog.table_name_from(identifier)
        pointer = None
        if Catalog.namespace_from(identifier) == (NAMESPACE,):
            pointer = self._pointers.read_pointer(name)
        if pointer is None or pointer.location is None:
            raise NoSuchTableError(f"Table does not exist: {identifier}")
        return self.open_table(name, pointer.location)

    def create_table(
        self,
        identifier: str | Identifier,
        schema: Any,
        location: str | None = None,
        partition_spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC,
        sort_order: SortOrder = UNSORTED_SORT_ORDER,
        properties: Properties = EMPTY_DICT,
    ) -> Table:
        transaction = self.create_table_transaction(
            identifier, schema, location, partition_spec, sort_order, properties
        )
        return transaction.commit_transaction()

    def drop_table(self, identifier: str | Identifier) -> None:
        now_ms = time.time_ns() // 1_000_000
        if self._pointers.drop(Catalog.table_name_from(identifier), now_ms) is None:
            raise NoSuchTableError(f"Table does not exist: {identifier}")

    def commit_table(
        self,
        table: Table,
        requirements: tuple[TableRequirement, ...],
        updates: tuple[TableUpdate, ...],
    ) -> CommitTableResponse:
        """The commit of other Iceberg clients: against what the catalogue holds now."""
        name = Catalog.table_name_from(table.name())
        try:
            current: Table | None = self.load_table(table.name())
        except NoSuchTableError:
            current = None
        staged = self._update_and_stage_table(current, table.name(), requirements, updates)
        if current and staged.metadata == current.metadata:
            return CommitTableResponse(
                metadata=current.metadata, metadata_location=current.metadata_location
            )
        previous = current.metadata_location if current else None
        try:
            self._publish(previous, staged, None)
        except Superseded:
            if previous is None:
                raise TableAlreadyExistsError(f"Table {name} already exists") from None
            raise CommitFailedException(f"Table {name} was updated meanwhile") from None
        return CommitTableResponse(
            metadata=staged.metadata, metadata_location=staged.metadata_location
        )

    def commit_ingest(
        self,
        table: Table,
        updates: tuple[TableUpdate, ...],
        ingest: Ingest | None,
        places: Collection[str] = (),
        since: int = 0,
    ) -> TableMetadata:
        """Applies updates to exactly the metadata that they were planned on.

        Args:
            table: from `open_table` or `stage_table`; its FileIO wrote the manifests.
            updates: what changes.
            ingest: what caused it, noted in the same transaction.
            places: objects that the table names from now on, as `core.collecting` does.
            since: the epoch before they were looked for; see `marks`.

        Raises:
            Collected: one of the files is being removed as nobody's, or was; likewise.
            Superseded: the dataset changed or was deleted meanwhile; what was written is gone.
            AlreadyIngested: it has an ingest of this id; likewise.
        """
        previous = table.metadata_location or None
        metadata = apply_updates(table.metadata, updates, previous)
        version = self._parse_metadata_version(previous) + 1 if previous else 0
        location = table.location_provider().new_table_metadata_file_location(version)
        staged = Table(table.name(), metadata, location, table.io, self)
        self._publish(previous, staged, ingest, places, since)
        if previous:
            # Failing here only leaves an orphan to collect: pyiceberg logs it and goes on.
            self._delete_old_metadata(table.io, table.metadata, metadata)
        return metadata

    def note_ingest(
        self, table: Table, ingest: Ingest, places: Collection[str] = (), since: int = 0
    ) -> None:
        """Notes an ingest that changed nothing in the table, as `commit_ingest` would."""
        description = self._describe(Catalog.table_name_from(table.name()), table.metadata)
        self._swap(table, table.metadata_location, description, ingest, places, since)

    def _publish(
        self,
        previous: str | None,
        staged: Table,
        ingest: Ingest | None,
        places: Collection[str] = (),
        since: int = 0,
    ) -> None:
        name = Catalog.table_name_from(staged.name())
        metadata, location = staged.metadata, staged.metadata_location
        try:
            self._write_metadata(metadata, staged.io, location)
            if isinstance(staged.io, DurableFileIO):
                staged.io.sync_directories()
            description = self._describe(name, metadata)
        except BaseException:
            discard_written(staged.io)
            raise
        named = (*places, *list_written(staged.io))
        self._swap(staged, previous, description, ingest, named, since)
        self._remember(location, metadata)

    def _swap(
        self,
        table: Table,
        previous: str | None,
        description: str,
        ingest: Ingest | None,
        places: Collection[str] = (),
        since: int = 0,
    ) -> None:
        try:
            self._pointers.swap(
                name=Catalog.table_name_from(table.name()),
                uuid=str(table.metadata.table_uuid),
                previous=previous,
                location=table.metadata_location,
                description=description,
                ingest=ingest,
                # A new dataset must have the identity reserved for it; a table that is there
                # has its own, whatever was reserved.
                claim=previous is not None or ingest is None,
                places=places,
                since=since,
            )
        except (Superseded, AlreadyIngested, Collected):
            # Only these tell for certain that the pointer does not name what was written.
            discard_written(table.io)
            raise

    def open_io(self, location: str) -> FileIO:
        """Reads and writes what lies at such addresses."""
        return self._load_file_io(location=location)

    def _load_file_io(
        self, properties: Properties = EMPTY_DICT, location: str | None = None
    ) -> FileIO:
        address = location or self.warehouse
        if address.startswith(("file:", "/")):
            return DurableFileIO(dict(properties))
        if self._bridge is not None and address.startswith(self._bridge.address):
            return ObjectFileIO(self._bridge, dict(properties))
        return load_file_io({**self.properties, **properties}, address)


def list_written(io: FileIO) -> list[str]:
    """Places of the files that a commit wrote."""
    return io.list_places() if isinstance(io, DurableFileIO | ObjectFileIO) else []


def discard_written(io: FileIO) -> None:
    """Removes what a commit that did not happen wrote."""
    if isinstance(io, DurableFileIO | ObjectFileIO):
        io.discard()
