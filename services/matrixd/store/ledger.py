"""What is durable of the corpora: specs, states, and which rows their indexes hold.

One SQLite file, every commit synced. `rows` holds what the index was told and confirmed;
`found` is the latest reading of the source, with the content of what must still be embedded.
A build is the difference of the two, so it goes on after a crash from where it stopped.

All of it blocks, and one thread calls it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from services.matrixd.core.corpora import State
from services.matrixd.core.documents import Document
from shared.errors import InsufficientStorage, Unavailable
from shared.wire.matrixd import CorpusSpec

FILE = "corpora.sqlite"
LAYOUT = 1
_SCHEMA = """
create table corpora (
    uid text primary key, name text not null, spec text not null, state text not null,
    gone integer not null default 0);
create unique index names on corpora (name) where gone = 0;
create table rows (
    uid text, id text, hash text not null, items integer not null, primary key (uid, id)
) without rowid;
create table found (
    uid text, id text, seq integer not null, content text, hash text not null,
    primary key (uid, id)) without rowid;
create index pending on found (uid, seq) where content is not null;
"""


class Kept(NamedTuple):
    """A corpus as it was kept; `gone` ones are being deleted."""

    uid: str
    spec: CorpusSpec
    state: State
    gone: bool


class Pending(NamedTuple):
    """A document to embed; `items` are those that the index holds of it now."""

    seq: int
    id: str
    hash: str
    text: str
    metadata: dict[str, Any]
    items: int


class Ledger:
    """The file. `open` makes it; every method is one transaction."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._db: sqlite3.Connection | None = None

    def open(self) -> list[Kept]:
        """Opens or makes the file and gives the corpora in it, by name.

        Raises:
            Unavailable: the file is damaged.
        """
        try:
            return self._open()
        except (sqlite3.DatabaseError, ValidationError) as error:
            self.close()
            raise Unavailable(
                f"{FILE} in matrixd's data directory cannot be read ({error}). Restore it from a "
                "backup, or move it away and make the corpora again."
            ) from error

    def _open(self) -> list[Kept]:
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._db = db
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = full")
        db.execute("pragma temp_store = memory")
        if db.execute("pragma user_version").fetchone()[0] != LAYOUT:
            db.executescript(f"begin; {_SCHEMA} pragma user_version = {LAYOUT}; commit;")
        return [
            Kept(
                uid,
                CorpusSpec.model_validate_json(spec),
                State.model_validate_json(state),
                bool(gone),
            )
            for uid, spec, state, gone in db.execute(
                "select uid, spec, state, gone from corpora order by name, uid"
            )
        ]

    def close(self) -> None:
        """Closes the file; calling it twice is harmless."""
        if self._db is not None:
            self._db.close()
            self._db = None

    # --- corpora

    def keep(self, uid: str, spec: CorpusSpec, state: State) -> None:
        """Writes a corpus, new or changed."""
        with self._write() as db:
            db.execute(
                "insert into corpora (uid, name, spec, state) values (?, ?, ?, ?) "
                "on conflict (uid) do update set spec = excluded.spec, state = excluded.state",
                (
                    uid,
                    spec.name,
                    spec.model_dump_json(exclude_unset=True),
                    state.model_dump_json(),
                ),
            )

    def mark_gone(self, uid: str) -> None:
        """From now on the corpus does not exist; what is left of it follows."""
        with self._write() as db:
            db.execute("update corpora set gone = 1 where uid = ?", (uid,))

    def forget(self, uid: str) -> None:
        """Removes the last of a deleted corpus."""
        with self._write() as db:
            for table in ("found", "rows", "corpora"):
                db.execute(f"delete from {table} where uid = ?", (uid,))

    # --- a reading of the source

    def begin_reading(self, uid: str) -> None:
        """Drops what an earlier reading left."""
        with self._write() as db:
            db.execute("delete from found where uid = ?", (uid,))

    def note_found(self, uid: str, first: int, documents: Sequence[Document]) -> list[str]:
        """Notes documents that the source has; gives the ids that it had before in this reading.

        The content is kept of those that the index does not hold as they are.
        """
        repeated: list[str] = []
        with self._write() as db:
            for seq, one in enumerate(documents, start=first):
                held = db.execute(
                    "select 1 from rows where uid = ? and id = ? and hash = ?",
                    (uid, one.id, one.hash),
                ).fetchone()
                content = None if held else json.dumps([one.text, one.metadata])
                done = db.execute(
                    "insert into found (uid, id, seq, content, hash) values (?, ?, ?, ?, ?) "
                    "on conflict do nothing",
                    (uid, one.id, seq, content, one.hash),
                )
                if not done.rowcount:
                    repeated.append(one.id)
        return repeated

    def count_found(self, uid: str) -> tuple[int, int]:
        """Documents in the latest reading, and how many of them wait to be embedded."""
        found, waiting = self._read(
            "select count(*), count(content) from found where uid = ?", (uid,)
        ).fetchone()
        return int(found), int(waiting)

    # --- what the index holds

    def next_pending(self, uid: str, after: int, limit: int) -> list[Pending]:
        """The next documents to embed, in the order in which they were read."""
        found = self._read(
            "select found.seq, found.id, found.hash, found.content, coalesce(rows.items, 0) "
            "from found left join rows on rows.uid = found.uid and rows.id = found.id "
            "where found.uid = ? and found.seq > ? and found.content is not null "
            "order by found.seq limit ?",
            (uid, after, limit),
        )
        return [
            Pending(seq, name, digest, *json.loads(content), items)
            for seq, name, digest, content, items in found
        ]

    def note_written(self, uid: str, written: Iterable[tuple[str, str, int]]) -> None:
        """The index holds these now: id, hash, and number of items."""
        with self._write() as db:
            for name, digest, items in written:
                db.execute(
                    "insert into rows (uid, id, hash, items) values (?, ?, ?, ?) "
                    "on conflict (uid, id) do update set hash = excluded.hash, "
                    "items = excluded.items",
                    (uid, name, digest, items),
                )
                db.execute(
                    "update found set content = null where uid = ? and id = ? and hash = ?",
                    (uid, name, digest),
                )

    def find_vanished(self, uid: str, limit: int) -> list[tuple[str, int]]:
        """Documents that the index holds and the source no longer has, with their items."""
        return self._read(
            "select id, items from rows where uid = ?1 and not exists "
            "(select 1 from found where found.uid = ?1 and found.id = rows.id) limit ?2",
            (uid, limit),
        ).fetchall()

    def note_deleted(self, uid: str, names: Iterable[str]) -> None:
        """The index no longer holds these."""
        with self._write() as db:
            db.executemany("delete from rows where uid = ? and id = ?", ((uid, n) for n in names))

    def count_held(self, uid: str) -> tuple[int, int]:
        """Documents and items that the index holds."""
        documents, items = self._read(
            "select count(*), coalesce(sum(items), 0) from rows where uid = ?", (uid,)
        ).fetchone()
        return int(documents), int(items)

    def held_ids(self, uid: str) -> list[tuple[str, int]]:
        """Every document that the index holds, with its number of items, by id."""
        return self._read("select id, items from rows where uid = ? order by id", (uid,)).fetchall()

    def forget_rows(self, uid: str) -> None:
        """The index holds nothing (any more)."""
        with self._write() as db:
            db.execute("delete from rows where uid = ?", (uid,))

    def _opened(self) -> sqlite3.Connection:
        assert self._db is not None, "the ledger is not open"
        return self._db

    def _read(self, sql: str, values: Sequence[Any]) -> sqlite3.Cursor:
        return self._opened().execute(sql, values)

    def _write(self) -> _Transaction:
        return _Transaction(self._opened())


class _Transaction:
    """Begin, then commit or roll back; a full disk is told as such."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> sqlite3.Connection:
        self._db.execute("begin immediate")
        return self._db

    def __exit__(self, kind: type[BaseException] | None, error: object, _: object) -> None:
        try:
            self._db.execute("rollback" if kind else "commit")
        except sqlite3.OperationalError as failure:
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise _no_room(failure) from None
        if isinstance(error, sqlite3.OperationalError):
            raise _no_room(error) from None


def _no_room(error: sqlite3.Error) -> InsufficientStorage:
    return InsufficientStorage(
        f"The corpora cannot be written down ({error}). Make room on the disk, then try again."
    )
