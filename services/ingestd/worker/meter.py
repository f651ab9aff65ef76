"""How far the worker is, measured from beside it so that the work pays nothing for it.

Whoever reads a file says where its counters are; a thread looks at them a few times a second
and asks DuckDB how far its statement is. A worker does one job at a time, so it has one meter.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

logger = logging.getLogger("lakehouse.ingestd.worker")

# Between two looks. Seconds.
TICK_S = 0.25


class Queried(Protocol):
    """A DuckDB connection, as far as it tells of its progress."""

    def query_progress(self) -> float:
        """Percent of the statement under way; below 0 when it cannot tell."""
        ...


class Meter:
    """Figures of the job under way."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """A new job begins."""
        self._whole: Whole | None = None
        self._begin()

    def _begin(self) -> None:
        self._total: int | None = None
        self._read: Callable[[], int] | None = None
        self._rows: Callable[[], int] | None = None
        self._rejects: Callable[[], int] | None = None
        self._connection: Queried | None = None

    def begin_file(self, whole: Whole) -> None:
        """The next of several files begins; what is told from here on is of all of them."""
        if self._whole is not None:
            whole.told = self._whole.told
        self._begin()
        self._whole = whole

    def follow(
        self,
        total: int,
        read: Callable[[], int],
        rows: Callable[[], int] | None = None,
        rejects: Callable[[], int] | None = None,
    ) -> None:
        """A pass over a file begins.

        Args:
            total: its bytes.
            read: tells how many of them are read.
            rows, rejects: tell how many there were so far.
        """
        self._total, self._read = total, read
        self._rows = rows or self._rows
        self._rejects = rejects or self._rejects

    def follow_query(self, connection: Queried, total: int) -> None:
        """A statement begins that reads a file of so many bytes."""
        self._total, self._connection = total, connection

    def end_query(self) -> None:
        """The statement is over; the connection may be closed."""
        self._connection = None

    def look(self) -> dict[str, Any]:
        """The figures, as far as they are known."""
        found: dict[str, Any] = {}
        total, connection = self._total, self._connection
        if total is not None:
            read = self._read() if self._read is not None else 0
            if connection is not None:
                share = connection.query_progress()
                read = int(total * min(max(share, 0.0), 100.0) / 100)
            found |= {"bytes_read": min(read, total), "bytes_total": total}
        if self._rows is not None:
            found["rows"] = self._rows()
        if self._rejects is not None:
            found["rejects"] = self._rejects()
        whole = self._whole
        return found if whole is None else whole.add(found)


@dataclass(slots=True)
class Whole:
    """Where among several files the one under way stands.

    Attributes:
        size: its bytes; `before` and `total`: of the files before it, and of all.
        rows, rejects: of the files before it.
        number, files: its place, and how many there are.
        told: bytes that were told to be read: a file's second pass takes none of them back.
    """

    size: int
    before: int
    total: int
    rows: int
    rejects: int
    number: int
    files: int
    told: int = 0

    def add(self, found: dict[str, Any]) -> dict[str, Any]:
        """The figures of all files, given those of the one under way."""
        share = found["bytes_read"] / found["bytes_total"] if found.get("bytes_total") else 0.0
        self.told = max(self.told, self.before + int(self.size * share))
        return {
            "bytes_read": self.told,
            "bytes_total": self.total,
            "rows": self.rows + found.get("rows", 0),
            "rejects": self.rejects + found.get("rejects", 0),
            "files_done": self.number,
            "files_total": self.files,
        }


METER = Meter()


class Ticker:
    """Tells the meter's figures while a job runs, when they changed.

    Args:
        tell: gets them.
    """

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        self._tell = tell
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Ticker:
        METER.clear()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends it: nothing is told after the job's own last word."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        told: dict[str, Any] = {}
        while not self._ended.wait(TICK_S):
            try:
                found = METER.look()
            except Exception as error:
                # What is looked at may end in between, and nothing may come of a look.
                logger.debug("No figures: %s", error)
                continue
            if found and found != told:
                told = found
                self._tell(found)
