"""What everything that writes to the catalogue works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services.catalogd.store.catalog import DatasetCatalog
from services.catalogd.store.commits import Commits
from services.catalogd.store.figures import Figures
from services.catalogd.store.pointers import Pointers


@dataclass(frozen=True, slots=True)
class Tools:
    """One catalogue, and how writes to it are made.

    Attributes:
        pointers: its database.
        catalog: commits to it.
        commits: how commits are tried.
        figures: where writes are counted.
        keep: snapshots that every dataset keeps.
        now_ms: the clock, in milliseconds since 1970.
    """

    pointers: Pointers
    catalog: DatasetCatalog
    commits: Commits
    figures: Figures
    keep: int
    now_ms: Callable[[], int]
