"""Files that no dataset names, as the catalogue's database knows them.

See `marks` for how a commit is kept from naming one that is being removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import and_, delete, insert, select, update

from services.catalogd.store.failures import guarded
from services.catalogd.store.marks import COLLECTION, lock_collection
from services.catalogd.store.pointers import Pointers
from services.catalogd.store.tables import DATASETS, DROPPED, LEASES, ORPHANS, TAKING

# Places in one statement: databases take a limited number of values.
_AT_ONCE = 500


class Orphans:
    """Orphans of one catalogue, over its database."""

    def __init__(self, pointers: Pointers) -> None:
        self._engine = pointers.engine
        self._writer = pointers.writer

    def take_lease(self, name: str, holder: str, now_ms: int, until_ms: int) -> bool:
        """Makes the lease this holder's until then, if nobody else has it now."""
        free = (LEASES.c.until_ms <= now_ms) | (LEASES.c.holder == holder)
        moved = update(LEASES).where(LEASES.c.name == name, free)
        with guarded(), self._writer.begin() as connection:
            values = {"holder": holder, "until_ms": until_ms}
            return connection.execute(moved.values(values)).rowcount == 1

    def drop_leases(self, holder: str | None = None) -> None:
        """Frees the leases of a holder, or all."""
        freed = update(LEASES).values(until_ms=0)
        if holder is not None:
            freed = freed.where(LEASES.c.holder == holder)
        with guarded(), self._writer.begin() as connection:
            connection.execute(freed)

    def list_uuids(self) -> tuple[set[str], set[str]]:
        """Identities that this catalogue reserved, and those of datasets deleted since."""
        with guarded(), self._engine.connect() as connection:
            dropped = set(connection.execute(select(DROPPED.c.uuid)).scalars())
            reserved = set(connection.execute(select(DATASETS.c.uuid)).scalars())
            return reserved, dropped - reserved

    def has_dropped(self) -> bool:
        """Whether a dataset was ever deleted here."""
        with guarded(), self._engine.connect() as connection:
            return connection.execute(select(DROPPED.c.uuid).limit(1)).first() is not None

    def note_seen(
        self, places: Iterable[str], now_ms: int, *, forget: bool = True
    ) -> dict[str, int]:
        """Remembers orphans, and gives since when each is known to be one.

        Args:
            forget: those are all there are, so that others that were orphans are none any more.
        """
        wanted = set(places)
        since: dict[str, int] = {}
        with guarded(), self._writer.begin() as connection:
            rows = connection.execute(
                select(ORPHANS.c.place, ORPHANS.c.seen_ms, ORPHANS.c.taken)
            ).all()
            gone: list[str] = []
            again: list[str] = []
            for place, seen_ms, taken in rows:
                if place in wanted:
                    # One that was removed and stored again begins anew.
                    since[place] = now_ms if taken else seen_ms
                    if taken:
                        again.append(place)
                elif forget and not taken:
                    gone.append(place)
            for part in _parts(gone):
                connection.execute(delete(ORPHANS).where(ORPHANS.c.place.in_(part)))
            for part in _parts(again):
                seen = update(ORPHANS).where(ORPHANS.c.place.in_(part))
                connection.execute(seen.values(seen_ms=now_ms))
            fresh = [
                {"place": place, "seen_ms": now_ms, "taken": 0} for place in wanted - since.keys()
            ]
            if fresh:
                connection.execute(insert(ORPHANS), fresh)
        return {**dict.fromkeys(wanted, now_ms), **since}

    def begin_taking(self, places: Sequence[str], now_ms: int) -> None:
        """Marks files as being removed; on return every commit sees it."""
        with guarded(), self._writer.begin() as connection:
            lock_collection(connection, exclusive=True)
            for part in _parts(places):
                marked = update(ORPHANS).where(ORPHANS.c.place.in_(part))
                connection.execute(marked.values(taken=TAKING, seen_ms=now_ms))

    def spare(self, places: Sequence[str]) -> None:
        """Takes marks back: a dataset names these after all."""
        with guarded(), self._writer.begin() as connection:
            for part in _parts(places):
                connection.execute(delete(ORPHANS).where(ORPHANS.c.place.in_(part)))

    def end_taking(self) -> None:
        """Notes that everything marked is gone, under a new epoch."""
        with guarded(), self._writer.begin() as connection:
            lock_collection(connection, exclusive=True)
            marked = connection.execute(
                select(ORPHANS.c.place).where(ORPHANS.c.taken == TAKING).limit(1)
            ).first()
            if marked is None:
                return
            ours = LEASES.c.name == COLLECTION
            connection.execute(update(LEASES).where(ours).values(epoch=LEASES.c.epoch + 1))
            epoch = select(LEASES.c.epoch).where(ours).scalar_subquery()
            done = update(ORPHANS).where(ORPHANS.c.taken == TAKING)
            connection.execute(done.values(taken=epoch))

    def forget_taken(self, before_ms: int) -> None:
        """Forgets what was removed before then: no commit that began earlier is still under way."""
        old = and_(ORPHANS.c.taken > 0, ORPHANS.c.taken < TAKING, ORPHANS.c.seen_ms < before_ms)
        with guarded(), self._writer.begin() as connection:
            connection.execute(delete(ORPHANS).where(old))

    def count(self) -> int:
        """Files that wait for their grace to be over, or for their turn."""
        with guarded(), self._engine.connect() as connection:
            found = select(ORPHANS.c.place).where(ORPHANS.c.taken == 0)
            return len(connection.execute(found).all())


def _parts(places: Sequence[str]) -> Iterable[Sequence[str]]:
    for start in range(0, len(places), _AT_ONCE):
        yield places[start : start + _AT_ONCE]
