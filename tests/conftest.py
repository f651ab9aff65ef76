"""Fixtures for all tiers."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

from scripts.seaweed import Seaweed
from tests.support.postgres import Postgres

# Collecting thousands of tests only ever adds objects; what is there at its end stays.
gc.disable()

_FLEET = Path(__file__).parent / "fleet"
# Tests that go to a worker together, by tier: many where each takes a millisecond, few where one
# may take seconds, so that no worker is left with much to do at the end.
_HANDFUL = {"unit": 32, "repo": 64}


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
    """Says which tests go to a worker together.

    The fleet tier keeps to one: its tests have processes of their own to wait for. So with those
    that need the S3 server or PostgreSQL, of which one is enough. Others go a handful of
    neighbours at a time: handing out thousands one by one costs the scheduler, which looks at all
    of them each time, more than many of them take; and neighbours share their module's fixtures.
    """
    met: Counter[Path] = Counter()
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
        else:
            handful = _HANDFUL.get(item.path.parent.name, 8)
            name = f"{item.path.stem}.{met[item.path] // handful}"
            item.add_marker(pytest.mark.xdist_group(name))
            met[item.path] += 1
