"""Fixtures for all tiers."""

from __future__ import annotations

from pathlib import Path

import pytest

_FLEET = Path(__file__).parent / "fleet"


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, as the daemons do."""
    return "asyncio"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps the fleet tier to one worker: its tests have processes of their own to wait for."""
    for item in items:
        if _FLEET in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("fleet"))
