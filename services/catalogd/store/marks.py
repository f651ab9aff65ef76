"""How a commit is kept from naming a file that is being removed as nobody's.

Whoever collects marks a file (one transaction), looks once more whether a dataset names it,
removes it, and notes that it is gone under a new epoch (another). Whoever commits remembers the
epoch before it looked for its files, and in the transaction that moves the pointer asks for
marks on files it names: one that is being removed, or was since that epoch, and the commit does
not happen. Both lock the same row, so either the mark sees the commit or the commit the mark.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateIndex

from services.catalogd.store.tables import LEASES, ORPHANS

# Leases: on removing orphans, and on the other upkeep that runs by itself.
COLLECTION = "collection"
UPKEEP = "upkeep"


class Collected(Exception):
    """A commit names files that are being removed, or were since it began; nothing changed."""

    def __init__(self, places: Sequence[str]) -> None:
        super().__init__(", ".join(places))
        self.places = places


def create_collection(connection: Connection) -> None:
    """Makes the row that collection and commits lock, and what speeds up their question."""
    for index in ORPHANS.indexes:
        connection.execute(CreateIndex(index, if_not_exists=True))
    for name in (COLLECTION, UPKEEP):
        found = select(LEASES.c.name).where(LEASES.c.name == name)
        if connection.execute(found).first() is None:
            row = {"name": name, "holder": "", "until_ms": 0, "epoch": 0}
            try:
                with connection.begin_nested():
                    connection.execute(insert(LEASES).values(row))
            except IntegrityError:
                continue  # another process was faster


def read_epoch(connection: Connection) -> int:
    """The epoch now."""
    query = select(LEASES.c.epoch).where(LEASES.c.name == COLLECTION)
    return connection.execute(query).scalar_one()


def require_kept(connection: Connection, places: Collection[str], since: int) -> None:
    """Lets a commit name these files, in the transaction that moves its pointer.

    Raises:
        Collected: some are being removed, or were after epoch `since`.
    """
    if not places:
        return
    lock_collection(connection, exclusive=False)
    marked = connection.execute(select(ORPHANS.c.place).where(ORPHANS.c.taken > since)).scalars()
    if taken := sorted(set(marked).intersection(places)):
        raise Collected(taken)


def lock_collection(connection: Connection, *, exclusive: bool) -> None:
    """Keeps collecting and committing apart until the transaction ends."""
    # Commits share it. SQLite has one writer anyhow, and no such clause.
    row = select(LEASES.c.epoch).where(LEASES.c.name == COLLECTION)
    connection.execute(row.with_for_update(read=not exclusive)).first()
