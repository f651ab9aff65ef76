"""Trying a commit until it stands: against other processes, and against a failing disk.

Everything here blocks and belongs into the pool.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from typing import TypeVar

from services.catalogd.core.collecting import OBJECT, is_data
from services.catalogd.store.figures import Figures
from services.catalogd.store.fileio import SyncFailed, disk_full, is_disk_full
from services.catalogd.store.ingestlog import AlreadyIngested
from services.catalogd.store.marks import Collected
from services.catalogd.store.pointers import Superseded
from shared.errors import Conflict, InsufficientStorage, Unavailable

# Waits between tries when other processes write to the same dataset. Seconds.
FIRST_WAIT_S = 0.005
LONGEST_WAIT_S = 0.25

T = TypeVar("T")


class Commits:
    """How commits of one catalogd are tried."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._broken = False

    def check_disk(self) -> None:
        """Raises InsufficientStorage once the disk has failed to make a write durable."""
        if self._broken:
            raise _read_only()

    def run(self, name: str, attempt: Callable[[], T], patience_s: float) -> T:
        """The result of the attempt that stood.

        Args:
            name: the dataset's.
            attempt: reads what is there, plans on it, and commits.
            patience_s: how long to try while other processes write to the dataset.

        Raises:
            Conflict: an object that the commit names is being removed as nobody's.
            Unavailable: other writers were faster all the time.
            InsufficientStorage: the disk is full or broken; nothing was changed.
        """
        self.check_disk()
        started = time.monotonic()
        for number in itertools.count():
            try:
                return attempt()
            except AlreadyIngested:
                continue
            except Collected as error:
                # Metadata of this attempt was collected from under it: the next writes anew.
                if objects := [place for place in error.places if is_data(place)]:
                    raise being_collected(objects) from error
            except (Superseded, FileNotFoundError):
                self._figures.conflicts.inc()
            except SyncFailed as error:
                self._broken = True
                raise _read_only() from error
            except OSError as error:
                if is_disk_full(error):
                    raise disk_full() from error
                raise
            if time.monotonic() - started > patience_s:
                break
            wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(number, 10))
            time.sleep(random.uniform(0, wait))
        raise Unavailable(
            f"Others write to dataset {name} without a pause; nothing was changed. "
            "Send the same request again.",
            headers={"Retry-After": "1"},
        )


def being_collected(places: list[str]) -> Conflict:
    """What a write hears whose objects lay unregistered for too long."""
    keys = [place.removeprefix(OBJECT) for place in places]
    return Conflict(
        f"Object {keys[0]!r} was never registered, and is being removed for that; nothing was "
        "changed. Store it again, then send the same request again.",
        details={"collected": keys[:20]},
    )


def _read_only() -> InsufficientStorage:
    return InsufficientStorage(
        "The disk of the catalogue's metadata failed to make a write durable, so the catalogue "
        "is read-only until it is restarted. Check the disk, then restart catalogd."
    )
