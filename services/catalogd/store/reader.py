"""Reading datasets: their columns, snapshots and files at any retained moment.

Metadata files, manifests and manifest lists never change under their names, so what was
parsed once is kept, within limits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import orjson
from cachetools import LRUCache
from pyiceberg.io import FileIO
from pyiceberg.manifest import FileFormat, ManifestContent, ManifestFile
from pyiceberg.table.metadata import TableMetadata

from services.catalogd.store.catalog import DatasetCatalog
from services.catalogd.store.iceberg import from_schema
from services.catalogd.store.ingestlog import Ingest
from services.catalogd.store.pointers import Pointer, Pointers, require_dataset
from services.catalogd.store.views import (
    describe_snapshots,
    describe_table,
    find_schema,
    locate_snapshot,
    show_columns,
    show_files,
    show_record,
    show_unchanged,
)
from shared.errors import Internal, Unprocessable
from shared.wire import catalogd as wire

# Data files kept in memory over all datasets, at about 300 bytes each.
CACHED_FILES = 50_000
# A pointer can move while its file is opened; more often in a row it does not.
_TRIES = 10

# Address, size in bytes, rows.
FileFacts = tuple[str, int, int]


class Reader:
    """What is in the datasets of one catalogue.

    Args:
        pointers: the catalogue's database.
        catalog: opens metadata.
        find_key: the object's key for a data file's address, where it is known.
    """

    def __init__(
        self,
        pointers: Pointers,
        catalog: DatasetCatalog,
        find_key: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._pointers = pointers
        self._catalog = catalog
        self._find_key = find_key
        self._files: LRUCache[str, list[FileFacts]] = LRUCache(
            CACHED_FILES, getsizeof=lambda files: len(files) + 1
        )
        self._files_lock = threading.Lock()

    def load(self, name: str) -> TableMetadata:
        """A dataset's metadata as it is now.

        Raises:
            NotFound: there is no such dataset.
        """
        return self._load(name)[1]

    def load_result(self, name: str) -> bytes:
        """A dataset's metadata and where its file lies: a LoadTableResult in JSON.

        It sets nothing for the reader: DuckDB takes an S3 endpoint that comes without keys for
        all that it may use, and no longer looks at its user's own.
        """
        location, metadata = self._load(name)
        return b"".join(
            (
                b'{"metadata-location":',
                orjson.dumps(location),
                b',"metadata":',
                metadata.model_dump_json(by_alias=True, exclude_none=True).encode(),
                b',"config":{}}',
            )
        )

    def _load(self, name: str) -> tuple[str, TableMetadata]:
        for _ in range(_TRIES):
            pointer = require_dataset(name, self._pointers.read_pointer(name))
            location = pointer.location or ""
            try:
                return location, self._catalog.load_metadata(location)
            except FileNotFoundError:
                continue
        raise Internal(f"The metadata of dataset {name} is missing. Restore it from a backup.")

    def describe(self, name: str) -> wire.Dataset:
        """A dataset whose kept description is out of date."""
        return describe_table(name, self.load(name))

    def list_snapshots(self, name: str) -> wire.Snapshots:
        """Every retained snapshot, oldest first."""
        return describe_snapshots(name, self.load(name))

    def read_uuid(self, pointer: Pointer) -> str:
        """The identity in a dataset's metadata, also after the dataset was dropped."""
        return str(self._catalog.load_metadata(pointer.location or "").table_uuid)

    def show_unchanged(self, name: str, found: Ingest) -> wire.RegisterResponse:
        """What a register gets whose ingest the dataset holds already."""
        return show_unchanged(name, self.load(name), found)

    def show_ingest(self, name: str, found: Ingest) -> wire.IngestFound:
        """An ingest with the columns that the dataset had after it."""
        metadata = self.load(name)
        return wire.IngestFound(
            dataset=name,
            ingest_id=found.ingest_id,
            snapshot_id=str(found.snapshot_id),
            record=show_record(found),
            superseded=found.superseded,
            columns=show_columns(from_schema(find_schema(metadata, found.schema_id))),
        )

    def list_files(self, name: str, at: str | None) -> wire.Files:
        """The files of one snapshot, and the columns they are read by.

        Args:
            name: the dataset.
            at: a snapshot id, a tag or an RFC 3339 time; the current snapshot when absent.

        Raises:
            NotFound: no such dataset or snapshot; names the oldest that is kept.
            Invalid: `at` is none of these.
            Unprocessable: the snapshot holds more than plain Parquet files.
        """
        for _ in range(_TRIES):
            metadata = self.load(name)
            # One that expired meanwhile, and was collected without grace: it is 404 by now.
            with suppress(FileNotFoundError):
                return self._list_files(name, metadata, at)
        raise Internal(f"A file of dataset {name}'s metadata is missing. Restore it from a backup.")

    def _list_files(self, name: str, metadata: TableMetadata, at: str | None) -> wire.Files:
        if at is not None:
            snapshot = locate_snapshot(name, metadata, at)
        else:
            snapshot = metadata.current_snapshot()
        files: list[FileFacts] = []
        schema = metadata.schema()
        if snapshot is not None:
            io = self._catalog.open_io(metadata.location)
            for manifest in snapshot.manifests(io):
                files += self._read_manifest(io, manifest)
            if at is not None:
                schema = find_schema(metadata, snapshot.schema_id)
        return wire.Files(
            dataset=name,
            uuid=str(metadata.table_uuid),
            snapshot_id=str(snapshot.snapshot_id) if snapshot is not None else "",
            files=show_files(files, self._find_key),
            columns=show_columns(from_schema(schema)),
        )

    def _read_manifest(self, io: FileIO, manifest: ManifestFile) -> list[FileFacts]:
        if manifest.content != ManifestContent.DATA:
            raise Unprocessable(
                "The dataset has row-level deletes, which another engine wrote; its files alone "
                "do not show its rows. Compact it with that engine, then try again."
            )
        with self._files_lock:
            found = self._files.get(manifest.manifest_path)
        if found is not None:
            return found
        found = []
        for entry in manifest.fetch_manifest_entry(io):
            file = entry.data_file
            if file.file_format != FileFormat.PARQUET:
                raise Unprocessable(
                    f"The dataset has {file.file_format.value} files, which another engine "
                    "wrote. Rewrite them as Parquet with that engine, then try again."
                )
            found.append((file.file_path, file.file_size_in_bytes, file.record_count))
        if len(found) < CACHED_FILES:
            with self._files_lock:
                self._files[manifest.manifest_path] = found
        return found
