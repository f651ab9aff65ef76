"""Addresses of the catalogue's database: what they become, and what is said of bad ones."""

from __future__ import annotations

import pytest

from services.catalogd.store.database import open_engine, read_address
from shared.config import ConfigError


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
