"""The catalogue in a real PostgreSQL: the tests of its store and routes, and what is its own.

The tests of catalogd in `tests/service` run a second time here, as they are, on a server in
place of SQLite.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest
from sqlalchemy import event
from sqlalchemy.pool import ConnectionPoolEntry, Pool

from tests.service import (
    test_catalogd_collection,
    test_catalogd_compaction,
    test_catalogd_concurrency,
    test_catalogd_rewrite,
    test_catalogd_several,
    test_catalogd_store,
    test_catalogd_versions,
    test_catalogd_writes,
)
from tests.support import catalogd as support
from tests.support.postgres import Postgres

pytestmark = pytest.mark.anyio

# Tests of SQLite itself, and long ones of what never asks the database.
ELSEWHERE = {
    "test_a_merge_that_takes_its_process_down_harms_nothing",
    "test_a_file_that_is_damaged_is_left_and_told",
    "test_sizes_decide",
    "test_it_runs_by_itself_and_then_rests",
    "test_columns_that_came_and_grew_are_kept",
    "test_everything_is_on_disk_before_the_pointer_moves",
    "test_a_full_database_changes_nothing",
    "test_a_database_that_is_no_database_is_told",
    "test_a_database_of_the_users_choice",
}


def borrow(*modules: ModuleType) -> None:
    """Makes the tests of other modules, and the fixtures they ask for, tests of this one."""
    here = globals()
    for module in modules:
        for name, value in vars(module).items():
            fixture = type(value).__name__ == "FixtureFunctionDefinition"
            if not (fixture or name.startswith("test_")) or name in ELSEWHERE:
                continue
            assert here.setdefault(name, value) is value, f"two tests are called {name}"


borrow(
    test_catalogd_collection,
    test_catalogd_compaction,
    test_catalogd_concurrency,
    test_catalogd_rewrite,
    test_catalogd_several,
    test_catalogd_store,
    test_catalogd_versions,
    test_catalogd_writes,
)


@pytest.fixture(autouse=True)
def on_postgres(
    monkeypatch: pytest.MonkeyPatch, postgres: Postgres, database: str
) -> Generator[None]:
    """Every folder has its database on the server, which is a schema."""
    made: dict[Path, str] = {}

    def choose(directory: Path) -> str:
        if directory not in made:
            made[directory] = postgres.make_schema(database)
        return made[directory]

    monkeypatch.setattr(support, "choose_database", choose)
    # Tests leave their stores to the garbage collector, which SQLite does not mind.
    opened: list[psycopg.Connection[Any]] = []

    def note(connection: psycopg.Connection[Any], _: ConnectionPoolEntry) -> None:
        opened.append(connection)

    event.listen(Pool, "connect", note)
    yield
    event.remove(Pool, "connect", note)
    for connection in opened:
        connection.close()


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    """A database for this module."""
    return postgres.make_database()
