"""Fixtures for all tiers."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, as the daemons do."""
    return "asyncio"
