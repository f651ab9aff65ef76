"""The catalogue's database: where each dataset's metadata is, and which ingests it holds.

Beside pyiceberg's two tables (laid out as every JDBC catalogue has them, so that other
Iceberg clients read ours by the same address) there are two of our own, and one SQL
transaction changes them together: a commit moves the pointer, by compare-and-swap, and
notes the ingest that caused it. Either both are there afterwards or neither.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    and_,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateTable

from services.catalogd.store.database import for_writing, lock_schema, open_engine
from services.catalogd.store.failures import guarded
from services.catalogd.store.ingestlog import (
    Ingest,
    find_ingest,
    find_position,
    find_replace_of,
    note_ingest,
)
from services.catalogd.store.marks import create_collection, read_epoch, require_kept
from services.catalogd.store.tables import (
    CATALOG,
    DATASETS,
    DROPPED,
    INGESTS,
    NAMESPACE,
    NAMESPACES,
    SCHEMA,
    TABLES,
)
from shared.errors import NotFound, Unavailable

# A name can be reserved or deleted by another between two looks; more often in a row it is not.
_TRIES = 10


class Superseded(Exception):
    """Another commit, or a deletion, came first; read again and try again."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """What the database knows of a name.

    Attributes:
        name: the dataset's.
        uuid: its identity; None when another Iceberg client wrote last, and the metadata
            has to tell.
        location: its metadata file; None while the name is only reserved.
        description: the wire's `Dataset` as JSON; None together with the uuid.
    """

    name: str
    uuid: str | None
    location: str | None
    description: str | None


class Pointers:
    """The database behind an SQLAlchemy address.

    Args:
        uri: for example `sqlite:////var/lib/lakehouse/catalogue.db`.
    """

    def __init__(self, uri: str | URL) -> None:
        self.engine = open_engine(uri)
        self.uri = self.engine.url
        self.writer = for_writing(self.engine)

    def create_tables(self) -> None:
        """Makes what is missing; harmless when several processes do so at once."""
        with guarded(), self.writer.begin() as connection:
            lock_schema(connection)
            for table in SCHEMA.sorted_tables:
                connection.execute(CreateTable(table, if_not_exists=True))
            found = select(NAMESPACES.c.namespace).where(
                NAMESPACES.c.catalog_name == CATALOG, NAMESPACES.c.namespace == NAMESPACE
            )
            if connection.execute(found).first() is None:
                row = (CATALOG, NAMESPACE, "exists", "true")
                connection.execute(insert(NAMESPACES).values(row))
            create_collection(connection)

    def check_writable(self) -> None:
        """Takes the write lock and gives it back.

        Raises:
            LakehouseError: the database cannot be written.
        """
        with guarded(), self.writer.begin() as connection:
            connection.execute(delete(TABLES).where(_is_table("")))
            connection.execute(delete(DATASETS).where(DATASETS.c.name == ""))
            connection.execute(delete(INGESTS).where(INGESTS.c.dataset_uuid == ""))

    def count_datasets(self) -> int:
        """How many datasets there are."""
        query = select(func.count()).select_from(TABLES).where(_in_namespace())
        with guarded(), self.engine.connect() as connection:
            return connection.execute(query).scalar_one()

    def list_pointers(self) -> list[Pointer]:
        """All datasets by name, without names that are only reserved."""
        with guarded(), self.engine.connect() as connection:
            rows = connection.execute(_JOINED.where(_in_namespace()))
            found = [_pointer(row.table_name, row) for row in rows]
        # Not by the database: each sorts as it was set up to.
        return sorted(found, key=lambda pointer: pointer.name)

    def read_pointer(self, name: str) -> Pointer | None:
        """One name, or None when it is neither a dataset nor reserved."""
        with guarded(), self.engine.connect() as connection:
            return _read_pointer(connection, name)

    def reserve_uuid(self, name: str, fresh: str) -> str:
        """The uuid of a name: the one it has, else `fresh`, which it has from now on."""
        query = select(DATASETS.c.uuid).where(DATASETS.c.name == name)
        with guarded():
            for _ in range(_TRIES):
                with self.engine.connect() as connection:
                    found = connection.execute(query).scalar_one_or_none()
                if found is not None:
                    return found
                # Who fails here was overtaken, and at the next look the name has an identity,
                # or again none.
                with suppress(IntegrityError), self.writer.begin() as connection:
                    connection.execute(insert(DATASETS).values(name=name, uuid=fresh))
                    return fresh
        raise Unavailable(f"Dataset {name} comes and goes. Send the same request again.")

    def find_ingest(self, uuid: str, ingest_id: str) -> Ingest | None:
        """The write of this id that the dataset holds."""
        with guarded(), self.engine.connect() as connection:
            return find_ingest(connection, uuid, ingest_id)

    def find_replace_of(self, uuid: str, snapshot_id: int) -> str | None:
        """Id of the replace that made a snapshot, if one did."""
        with guarded(), self.engine.connect() as connection:
            return find_replace_of(connection, uuid, snapshot_id)

    def find_position(self, uuid: str, lineage: Sequence[int], made_ms: int) -> int:
        """The number of the last write that a snapshot holds; see `ingestlog.find_position`."""
        with guarded(), self.engine.connect() as connection:
            return find_position(connection, uuid, lineage, made_ms)

    def read_epoch(self) -> int:
        """How often collected files were noted as gone; see `swap` and `marks`."""
        with guarded(), self.engine.connect() as connection:
            return read_epoch(connection)

    def swap(
        self,
        *,
        name: str,
        uuid: str,
        previous: str | None,
        location: str,
        description: str,
        ingest: Ingest | None,
        claim: bool,
        places: Collection[str] = (),
        since: int = 0,
    ) -> None:
        """Moves a dataset's pointer and notes the ingest, in one durable transaction.

        Args:
            previous: where the pointer must be now; None when there must be none yet.
            location: where it goes; the same as `previous` to note an ingest alone.
            claim: take the name for this uuid, whatever was reserved for it before.
            places: files that the dataset names from now on; see `marks`.
            since: the epoch before they were looked for.

        Raises:
            Collected: some of them are being removed, or were since.
            Superseded: the pointer is elsewhere, or the name's identity is another.
            AlreadyIngested: the dataset has an ingest of this id.
        """
        with guarded(), self.writer.begin() as connection:
            require_kept(connection, places, since)
            _move_pointer(connection, name, previous, location)
            _describe(connection, name, uuid, location, description, claim)
            if ingest is not None:
                note_ingest(connection, uuid, ingest)

    def drop(self, name: str, now_ms: int) -> Pointer | None:
        """Removes a dataset with its ingests and its identity; None when there is none.

        The identity is remembered, so that what was stored under it can be collected.
        """
        with guarded(), self.writer.begin() as connection:
            # Locked in the order in which commits do, or each could wait for the other.
            connection.execute(select(TABLES.c.table_name).where(_is_table(name)).with_for_update())
            pointer = _read_pointer(connection, name)
            if pointer is None or pointer.location is None:
                return None
            ours = select(DATASETS.c.uuid).where(DATASETS.c.name == name).scalar_subquery()
            connection.execute(delete(INGESTS).where(INGESTS.c.dataset_uuid == ours))
            known = select(DATASETS.c.uuid, literal(now_ms)).where(DATASETS.c.name == name)
            connection.execute(insert(DROPPED).from_select(["uuid", "dropped_ms"], known))
            connection.execute(delete(DATASETS).where(DATASETS.c.name == name))
            connection.execute(delete(TABLES).where(_is_table(name)))
            return pointer

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()


_JOINED = select(
    TABLES.c.table_name,
    TABLES.c.metadata_location.label("location"),
    DATASETS.c.uuid,
    DATASETS.c.metadata_location.label("described"),
    DATASETS.c.description,
).select_from(TABLES.outerjoin(DATASETS, DATASETS.c.name == TABLES.c.table_name))


def _in_namespace() -> Any:
    return and_(TABLES.c.catalog_name == CATALOG, TABLES.c.table_namespace == NAMESPACE)


def _is_table(name: str) -> Any:
    return and_(_in_namespace(), TABLES.c.table_name == name)


def _pointer(name: str, row: Any) -> Pointer:
    if row.described != row.location:
        return Pointer(name, None, row.location, None)
    return Pointer(name, row.uuid, row.location, row.description)


def _read_pointer(connection: Connection, name: str) -> Pointer | None:
    row = connection.execute(_JOINED.where(_is_table(name))).first()
    if row is not None:
        return _pointer(name, row)
    query = select(DATASETS.c.uuid).where(DATASETS.c.name == name)
    reserved = connection.execute(query).scalar_one_or_none()
    return None if reserved is None else Pointer(name, reserved, None, None)


def _move_pointer(connection: Connection, name: str, previous: str | None, location: str) -> None:
    if previous is None:
        row = {
            "catalog_name": CATALOG,
            "table_namespace": NAMESPACE,
            "table_name": name,
            "metadata_location": location,
            "iceberg_type": "TABLE",
        }
        try:
            connection.execute(insert(TABLES).values(row))
        except IntegrityError:
            raise Superseded from None
        return
    moved = {"metadata_location": location}
    if location != previous:
        moved["previous_metadata_location"] = previous
    found = connection.execute(
        update(TABLES).where(_is_table(name), TABLES.c.metadata_location == previous).values(moved)
    )
    if found.rowcount != 1:
        raise Superseded


def _describe(
    connection: Connection, name: str, uuid: str, location: str, description: str, claim: bool
) -> None:
    values = {"uuid": uuid, "metadata_location": location, "description": description}
    row = update(DATASETS).where(DATASETS.c.name == name).values(values)
    if not claim:
        row = row.where(DATASETS.c.uuid == uuid)
    if connection.execute(row).rowcount == 1:
        return
    if not claim:
        raise Superseded
    try:
        connection.execute(insert(DATASETS).values(name=name, **values))
    except IntegrityError:
        # Reserved by another process since the update found nothing.
        raise Superseded from None


def require_dataset(name: str, pointer: Pointer | None) -> Pointer:
    """The pointer of a dataset that is there.

    Raises:
        NotFound: there is none; a name that is only reserved does not count.
    """
    if pointer is None or pointer.location is None:
        raise NotFound(
            f"There is no dataset {name}. GET /catalog/datasets lists those there are.",
            details={"dataset": name},
        )
    return pointer
