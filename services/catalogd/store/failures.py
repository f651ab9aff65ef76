"""What the failures of the catalogue's database mean to whoever sent the request.

Answers tell nothing of where the database is; the log has the server's own words, which never
hold a password.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from shared.errors import InsufficientStorage, LakehouseError, Unavailable

logger = logging.getLogger("lakehouse.catalogd.database")

_AGAIN = "Send the same request again."

# By SQLSTATE or its class, https://www.postgresql.org/docs/current/errcodes-appendix.html:
# what is wrong, and after how many seconds to come again.
_STATES: dict[str, tuple[str, int]] = {
    "23": (f"Another writer of the catalogue was faster. {_AGAIN}", 1),
    "25006": (
        "The catalogue's database takes no writes: it is a standby, or set to read only. Point "
        "catalogd.database_uri at the primary.",
        5,
    ),
    "3D000": (
        "The catalogue's database does not exist on its server. Create it, or correct "
        "catalogd.database_uri.",
        5,
    ),
    "28": (
        "The catalogue's database refuses catalogd's login. Correct user and password in "
        "catalogd.database_uri, or the server's pg_hba.conf.",
        5,
    ),
    "40": (f"The catalogue's database undid this in favour of another write. {_AGAIN}", 1),
    "42501": (
        "The catalogue's role lacks a right in its database. Make it the owner of the database.",
        5,
    ),
    "42P01": ("The catalogue's tables are gone from its database. Restart catalogd.", 5),
    "53300": (
        "The catalogue's server has no connection left. Raise its max_connections, or run fewer "
        "catalogd.",
        2,
    ),
    "55P03": (f"The catalogue's database is busy. {_AGAIN}", 1),
    "57P": (f"The catalogue's database is being stopped or started. {_AGAIN}", 2),
}
# libpq gives no SQLSTATE for a connection that was not made, only the server's words. One that
# speaks another language than English is not understood, and does not answer.
_WORDS = {
    "authentication failed": "28",
    "no password supplied": "28",
    "no pg_hba.conf entry": "28",
    "permission denied for database": "42501",
    "remaining connection slots": "53300",
    "too many clients": "53300",
    "too many connections": "53300",
    "the database system is": "57P",
    # Only now: others speak of a role and a database too.
    'role "': "28",
    'database "': "3D000",
}


@contextmanager
def guarded() -> Generator[None]:
    """Turns the database's failures into the taxonomy; our own signals pass."""
    try:
        yield
    except SQLAlchemyError as error:
        raise explain_database(error) from error


def explain_database(error: SQLAlchemyError) -> LakehouseError:
    """The error class for a failure of the database: full, busy or broken."""
    cause = getattr(error, "orig", None)
    if isinstance(cause, sqlite3.Error):
        return _explain_sqlite(getattr(cause, "sqlite_errorcode", 0) & 0xFF)
    return _explain_postgres(cause)


def _explain_sqlite(code: int) -> LakehouseError:
    if code == sqlite3.SQLITE_FULL:
        return _full()
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY):
        return InsufficientStorage(
            "The catalogue's database cannot be written. Check its disk, then send the same "
            "request again."
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return _unavailable(*_STATES["55P03"])
    if code == sqlite3.SQLITE_CONSTRAINT:
        return _unavailable(*_STATES["23"])
    return _no_answer()


def _explain_postgres(cause: BaseException | None) -> LakehouseError:
    text = str(cause or "")
    state = getattr(cause, "sqlstate", None) or next(
        (state for words, state in _WORDS.items() if words in text), ""
    )
    if cause is not None:
        # One line: the library's own text has several, and hints.
        logger.warning("The database said: %s", " ".join(text.split())[:500])
    if state == "53100":
        return _full()
    for known in (state, state[:3], state[:2]):
        if known in _STATES:
            return _unavailable(*_STATES[known])
    return _no_answer()


def _full() -> LakehouseError:
    return InsufficientStorage(
        "The catalogue's disk is full; nothing was changed. Free space, then send the same "
        "request again."
    )


def _no_answer() -> LakehouseError:
    return _unavailable(
        "The catalogue's database does not answer. Check that it runs, then send the same "
        "request again.",
        5,
    )


def _unavailable(message: str, after_s: int) -> LakehouseError:
    return Unavailable(message, headers={"Retry-After": str(after_s)})
