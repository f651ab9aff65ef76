"""Collection's blocking half: what the datasets name, and what lies in the warehouse."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from cachetools import LRUCache
from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestFile
from pyiceberg.table.metadata import TableMetadata
from sqlalchemy import select

from services.catalogd.core.collecting import Digests, Place, digest_address
from services.catalogd.store.catalog import DatasetCatalog
from services.catalogd.store.failures import guarded
from services.catalogd.store.fileio import local_path
from services.catalogd.store.pointers import Pointers
from services.catalogd.store.tables import INGESTS
from shared.errors import Unavailable

# Addresses in manifests that are kept between rounds, at eight bytes each.
CACHED_ADDRESSES = 500_000
_TRIES = 10


@dataclass(frozen=True, slots=True)
class Live:
    """What the datasets named at a moment.

    Attributes:
        digests: of every address.
        locations: the metadata file of each dataset by name.
    """

    digests: Digests
    locations: dict[str, str]


class Collector:
    """Finds out what is needed."""

    def __init__(self, pointers: Pointers, catalog: DatasetCatalog) -> None:
        self._pointers = pointers
        self._catalog = catalog
        self._cache: LRUCache[str, tuple[int, ...]] = LRUCache(
            CACHED_ADDRESSES, getsizeof=lambda digests: len(digests) + 1
        )

    def scan(self, known: Live | None = None) -> Live:
        """Every address that a retained snapshot of any dataset names.

        Args:
            known: an earlier scan; then only what datasets name that have changed since.

        Raises:
            Exception: something could not be read; then nothing may be removed.
        """
        digests = Digests()
        locations: dict[str, str] = {}
        for pointer in self._pointers.list_pointers():
            location = pointer.location or ""
            if known is None or known.locations.get(pointer.name) != location:
                location = self._add_dataset(pointer.name, location, digests)
            locations[pointer.name] = location
        digests.seal()
        return Live(digests, locations)

    def _add_dataset(self, name: str, location: str, digests: Digests) -> str:
        for _ in range(_TRIES):
            try:
                metadata = self._catalog.load_metadata(location)
                found = [d for part in self._list_metadata(location, metadata) for d in part]
            except FileNotFoundError:
                # A commit has removed what it took the place of.
                pointer = self._pointers.read_pointer(name)
                if pointer is None or pointer.location is None:
                    return ""
                if pointer.location == location:
                    raise
                location = pointer.location
                continue
            digests.add(found)
            return location
        raise Unavailable(f"Dataset {name} changes too often to be looked through.")

    def _list_metadata(self, location: str, metadata: TableMetadata) -> Iterator[tuple[int, ...]]:
        yield tuple(
            map(
                digest_address,
                [
                    location,
                    *(entry.metadata_file for entry in metadata.metadata_log),
                    *(file.statistics_path for file in metadata.statistics),
                    *(snapshot.manifest_list for snapshot in metadata.snapshots),
                ],
            )
        )
        io = self._catalog.open_io(metadata.location)
        seen: set[str] = set()
        for snapshot in metadata.snapshots:
            for manifest in snapshot.manifests(io):
                if manifest.manifest_path in seen:
                    continue
                seen.add(manifest.manifest_path)
                found = self._cache.get(manifest.manifest_path)
                if found is None:
                    found = digest_manifest(io, manifest)
                    if len(found) < CACHED_ADDRESSES:
                        self._cache[manifest.manifest_path] = found
                yield found

    def list_metadata_files(self, warehouse: str, uuids: Iterable[str]) -> Iterator[Place]:
        """Files of metadata on local disk, of datasets with these identities."""
        root = local_path(warehouse)
        for uuid in sorted(uuids):
            for folder, _, names in os.walk(os.path.join(root, uuid)):
                for name in names:
                    path = os.path.join(folder, name)
                    with suppress(FileNotFoundError):
                        status = os.stat(path)
                        yield Place(path, path, int(status.st_mtime * 1000), status.st_size, uuid)

    def list_rejects(self, uuids: Iterable[str]) -> set[str]:
        """Keys of the objects that hold rejected rows of ingests that are known."""
        keys: set[str] = set()
        with guarded(), self._pointers.engine.connect() as connection:
            for uuid in uuids:
                query = select(INGESTS.c.record).where(
                    INGESTS.c.dataset_uuid == uuid, INGESTS.c.record.contains('"rejects"')
                )
                for (record,) in connection.execute(query):
                    key = json.loads(record)["rejects"]["object"]
                    if key is not None:
                        keys.add(key)
        return keys

    def remove_files(self, places: Iterable[Place]) -> int:
        """Removes files of metadata; gives how many were there."""
        removed = 0
        for place in places:
            with suppress(FileNotFoundError):
                os.unlink(place.name)
                removed += 1
        return removed

    def remove_folders(self, warehouse: str, uuids: Iterable[str]) -> None:
        """Removes the empty folders of datasets that are no more."""
        root = local_path(warehouse)
        for uuid in uuids:
            with suppress(OSError):  # not empty, or not there
                os.rmdir(os.path.join(root, uuid, "metadata"))
            with suppress(OSError):
                os.rmdir(os.path.join(root, uuid))


def digest_manifest(io: FileIO, manifest: ManifestFile) -> tuple[int, ...]:
    """Digests of a manifest's own address and of the files it holds."""
    held = (entry.data_file.file_path for entry in manifest.fetch_manifest_entry(io))
    return (digest_address(manifest.manifest_path), *map(digest_address, held))
