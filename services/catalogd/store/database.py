"""Opening the catalogue's database, and what its failures mean.

SQLite is set so that acknowledged means on disk (WAL, synchronous=FULL), and a writer takes
the write lock when its transaction begins.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from shared.errors import InsufficientStorage, LakehouseError, Unavailable

# How long a writer waits for another's SQLite transaction. Seconds; they last milliseconds.
BUSY_S = 15.0
# Marks an engine whose transactions write.
_WRITE = "lakehouse_write"


def open_engine(uri: str | URL) -> Engine:
    """An engine for any SQLAlchemy address; connects when first used."""
    url = make_url(uri)
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_S})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def for_writing(engine: Engine) -> Engine:
    """The same engine for transactions that write."""
    return engine.execution_options(**{_WRITE: True})


def sqlite_uri(path: Path) -> URL:
    """The address of a database file, whatever characters its path has."""
    return URL.create("sqlite", database=str(path))


def _prepare_sqlite(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    # The driver's own transactions begin late and lazily; ours begin when we say so.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock at once: one that read first would fail when it comes to write.
    write = connection.get_execution_options().get(_WRITE)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def guarded() -> Generator[None]:
    """Turns the database's failures into the taxonomy; our own signals pass."""
    try:
        yield
    except IntegrityError:
        raise
    except SQLAlchemyError as error:
        raise explain_database(error) from error


def explain_database(error: SQLAlchemyError) -> LakehouseError:
    """The error class for a failure of the database: full, busy or broken."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return InsufficientStorage(
            "The catalogue's disk is full; nothing was changed. Free space, then send the same "
            "request again."
        )
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY):
        return InsufficientStorage(
            "The catalogue's database cannot be written. Check its disk, then send the same "
            "request again."
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable(
            "The catalogue's database is busy. Send the same request again.",
            headers={"Retry-After": "1"},
        )
    return Unavailable(
        "The catalogue's database does not answer. Check that it runs, then send the same "
        "request again.",
        headers={"Retry-After": "5"},
    )
