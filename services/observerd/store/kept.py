"""What is kept in a journal of its own: read at the start, refused from when it fails on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from shared.journal import Journal
from shared.pool import BlockingPool

# Calls that wait for the one thread: a caller more is told that there are too many.
_WAITING = 64


class Kept(ABC):
    """A journal, and one thread for what blocks.

    Args:
        name: of what is kept, for the thread.
        folder: of the journal.
        options: of the journal.
    """

    def __init__(self, name: str, folder: Path, **options: Any) -> None:
        self._journal = Journal(folder, **options)
        self._pool = BlockingPool(f"observerd-{name}", 1, _WAITING)

    async def open(self) -> None:
        """Reads what is kept."""
        await self._pool.run(self._journal.open)
        await self._pool.run(self._load)

    async def close(self) -> None:
        """Closes the journal."""
        await self._journal.aclose()
        self._pool.close()

    def check(self) -> str:
        """ "ok", or why nothing can be kept."""
        failure = self._journal.failure
        return "ok" if failure is None else failure.message

    @abstractmethod
    def _load(self) -> None:
        """Replays the journal into memory; called once, in the thread."""
