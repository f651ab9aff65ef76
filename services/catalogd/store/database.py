"""Opening the catalogue's database: SQLite in a file, or a PostgreSQL server.

Both are set so that acknowledged means on disk. On SQLite (WAL, synchronous=FULL) a writer takes
the write lock when its transaction begins. On PostgreSQL writers lock the rows that they change,
under READ COMMITTED whatever the server's default is: who waited for a row sees it as the other
left it, and compares. What a read asks in several statements is of one moment on both.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry

from shared.config import ConfigError

# How long a writer waits for another's transaction. Seconds; they last milliseconds.
BUSY_S = 15.0
# How long a connection may take to be made, and how long a machine may be silent. Seconds.
CONNECT_S = 5
SILENT_S = 15
# A catalogd that stopped in the middle of a transaction, with its machine say, holds its locks
# no longer than this. Seconds.
IDLE_S = 60
# Connections that are kept; more are made while more threads ask.
KEPT = 8
# Marks an engine whose transactions write.
_WRITE = "lakehouse_write"
# What catalogd's processes lock while one of them makes tables: a number nobody else uses.
_SCHEMA_LOCK = 0x1A4E_4005

_EXAMPLE = "postgresql://USER:PASSWORD@HOST:5432/DATABASE"


def open_engine(uri: str | URL) -> Engine:
    """An engine for an SQLAlchemy address; connects when first used.

    Raises:
        ConfigError: no catalogue can be at such an address. Nothing of it is repeated.
    """
    url = read_address(uri)
    if url.get_backend_name() == "postgresql":
        return _open_postgres(url)
    engine = create_engine(url, connect_args={"timeout": BUSY_S})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def read_address(uri: str | URL) -> URL:
    """The address with its driver.

    Raises:
        ConfigError: it is none of SQLite or PostgreSQL.
    """
    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):
        # What the library says quotes the address, and a password with it.
        raise ConfigError(
            f"catalogd.database_uri: is no address. Write {_EXAMPLE}, with each character of the "
            "password that is no letter or digit as % and two hexadecimal digits."
        ) from None
    name = "postgresql" if url.drivername == "postgres" else url.drivername
    if name in ("postgresql", "postgresql+psycopg"):
        return url.set(drivername="postgresql+psycopg")
    if name in ("sqlite", "sqlite+pysqlite"):
        return url
    raise ConfigError(
        f"catalogd.database_uri: {name} is not supported. Write {_EXAMPLE} (driver is psycopg), "
        "or sqlite:////FILE."
    )


def for_writing(engine: Engine) -> Engine:
    """The same engine for transactions that write."""
    if engine.dialect.name == "postgresql":
        return engine.execution_options(isolation_level="READ COMMITTED")
    return engine.execution_options(**{_WRITE: True})


def lock_schema(connection: Connection) -> None:
    """Keeps other processes from making tables until the transaction ends."""
    if connection.dialect.name == "postgresql":
        # Two who make one table at once fail there, even where each asks whether it exists.
        connection.execute(select(func.pg_advisory_xact_lock(_SCHEMA_LOCK)))


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


def _open_postgres(url: URL) -> Engine:
    options: dict[str, Any] = {
        "application_name": "lakehouse-catalogd",
        "connect_timeout": CONNECT_S,
        "keepalives_idle": SILENT_S,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": SILENT_S * 1000,
    }
    engine = create_engine(
        url,
        # Reads; those who write take `for_writing`.
        isolation_level="REPEATABLE READ",
        # A connection that a restart of the server has cut is found out before it is used.
        pool_pre_ping=True,
        pool_size=KEPT,
        # The daemon's pools limit the threads, and none has more than one.
        max_overflow=-1,
        connect_args={name: options[name] for name in options.keys() - url.query.keys()},
    )
    event.listen(engine, "connect", _prepare_postgres)
    return engine


def _prepare_postgres(connection: Any, _: ConnectionPoolEntry) -> None:
    # Whoever set the server to acknowledge what is not on disk did not mean a catalogue.
    cursor = connection.cursor()
    cursor.execute(
        "SELECT set_config('lock_timeout', %s, false),"
        " set_config('idle_in_transaction_session_timeout', %s, false),"
        " set_config('synchronous_commit', replace(current_setting('synchronous_commit'),"
        " 'off', 'on'), false)",
        (f"{BUSY_S:.0f}s", f"{IDLE_S}s"),
    )
    cursor.close()
    connection.commit()
