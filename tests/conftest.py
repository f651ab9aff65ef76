"""Fixtures for all tiers."""

from __future__ import annotations

import gc
from collections.abc import Generator
from pathlib import Path

import pytest

from scripts.seaweed import Seaweed
from tests.support.postgres import Postgres

# Collecting thousands of tests only ever adds objects; what is there at its end stays.
gc.disable()

_FLEET = Path(__file__).parent / "fleet"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, as the daemons do.

    Each has a loop of its own but where a fixture of its module is async: then they share one.
    """
    return "asyncio"


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Generator[Seaweed]:
    """A real S3 server; every test takes a prefix of its own in it."""
    with Seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Generator[Postgres]:
    """A real PostgreSQL; every test makes a database of its own in it."""
    with Postgres() as server:
        yield server


def pytest_collection_finish() -> None:
    """Has the garbage collector look at what tests make, and not at the tests over and over."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps the fleet tier to one worker: its tests have processes of their own to wait for.

    So with those that need the S3 server or PostgreSQL, of which one is enough.
    """
    for item in items:
        if item.get_closest_marker("xdist_group"):
            continue
        if _FLEET in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("fleet"))
        elif "s3" in item.nodeid.rpartition("::")[2] or "seaweed" in getattr(
            item, "fixturenames", ()
        ):
            item.add_marker(pytest.mark.xdist_group("s3"))
        elif "postgres" in item.nodeid:
            item.add_marker(pytest.mark.xdist_group("postgres"))
