"""Addresses of the catalogue's database, and what is said of bad ones and of its failures."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import DBAPIError

from services.catalogd.store.database import open_engine, read_address
from services.catalogd.store.failures import explain_database
from shared.config import ConfigError
from shared.errors import InsufficientStorage, LakehouseError, Unavailable


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_a_server_is_spoken_to_by_the_driver_that_is_locked(scheme: str) -> None:
    url = read_address(f"{scheme}://user:p%40ss%2Fw@host:5433/name?sslmode=require")
    assert url.drivername == "postgresql+psycopg"
    assert (url.username, url.password, url.host) == ("user", "p@ss/w", "host")
    assert (url.port, url.database) == (5433, "name")
    assert url.query == {"sslmode": "require"}
    assert "p@ss" not in repr(url)


@pytest.mark.parametrize(
    "uri",
    [
        "no address",
        "postgresql://user:hidden@host:port/name",
        "postgresql://user:p@ss:hidden/word@host/name",
    ],
)
def test_what_is_no_address_is_told_without_repeating_it(uri: str) -> None:
    with pytest.raises(ConfigError, match="database_uri: is no address") as caught:
        open_engine(uri)
    assert "hid" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "uri",
    [
        "mysql://user:hidden@host/name",
        "postgresql+asyncpg://user:hidden@host/name",
        "postgresql+psycopg2://user:hidden@host/name",
        "sqlite+aiosqlite:///name",
    ],
)
def test_other_databases_and_drivers_are_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"not supported\. Write postgresql://") as caught:
        open_engine(uri)
    assert "hidden" not in str(caught.value)
    assert uri.partition(":")[0] in str(caught.value)


def test_what_the_address_sets_itself_is_left_so() -> None:
    engine = open_engine("postgresql://u@h/d?connect_timeout=2&application_name=mine")
    _, arguments = engine.dialect.create_connect_args(engine.url)
    assert arguments["connect_timeout"] == "2"
    assert arguments["application_name"] == "mine"


class ServerError(Exception):
    """What a driver raises: the server's words and their SQLSTATE, where it has one."""

    def __init__(self, words: str, sqlstate: str | None) -> None:
        super().__init__(words)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("sqlstate", "words", "kind", "said"),
    [
        ("53100", "could not extend file", InsufficientStorage, "disk is full"),
        ("57P01", "terminating connection", Unavailable, "stopped or started"),
        ("40P01", "deadlock detected", Unavailable, "in favour of another"),
        ("40001", "could not serialize access", Unavailable, "in favour of another"),
        ("23505", "duplicate key value", Unavailable, "was faster"),
        ("55P03", "canceling statement due to lock timeout", Unavailable, "busy"),
        ("53300", "sorry, too many clients already", Unavailable, "no connection left"),
        ("XX000", "something unheard of", Unavailable, "does not answer"),
        (None, "FATAL: the database system is starting up", Unavailable, "stopped or started"),
        (None, 'FATAL: role "lakehouse" does not exist', Unavailable, "refuses catalogd's login"),
        (None, 'FATAL: no pg_hba.conf entry for host "::1"', Unavailable, "refuses catalogd"),
        (None, "FATAL: sorry, too many clients already", Unavailable, "no connection left"),
        (None, "connection timeout expired", Unavailable, "does not answer"),
    ],
)
def test_a_servers_failures_are_told_apart(
    caplog: pytest.LogCaptureFixture,
    sqlstate: str | None,
    words: str,
    kind: type[LakehouseError],
    said: str,
) -> None:
    error = DBAPIError("SELECT hidden", {"a": "hidden"}, ServerError(words, sqlstate))
    explained = explain_database(error)
    assert type(explained) is kind
    assert said in explained.message
    assert words not in explained.message
    assert words in caplog.text
    assert "hidden" not in caplog.text + explained.message
    assert kind is InsufficientStorage or int(explained.headers["Retry-After"]) >= 1
