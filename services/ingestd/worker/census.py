"""The census of a file, taken in a thread while DuckDB reads the same file."""

from __future__ import annotations

import threading
from collections.abc import Callable

from services.ingestd.core.census import Census, Counts
from services.ingestd.core.fields import Dialect
from services.ingestd.worker.meter import METER
from services.ingestd.worker.text import TextFile


class CensusThread:
    """Counts in the background; numpy and DuckDB both let go of the interpreter.

    Args:
        text: the file.
        dialect: its delimiter and quote, a byte each.
        on_irregular: called once, in the thread, when the file turns out irregular.
    """

    def __init__(self, text: TextFile, dialect: Dialect, on_irregular: Callable[[], None]) -> None:
        self._text = text
        self._dialect = dialect
        self._on_irregular = on_irregular
        self._counts: Counts | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="census")
        self._thread.start()

    def join(self) -> Counts:
        """The counts, when all is read."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        assert self._counts is not None
        return self._counts

    def _run(self) -> None:
        try:
            self._counts = count_file(self._text, self._dialect, self._on_irregular)
        except BaseException as error:
            self._failure = error


def count_file(
    text: TextFile, dialect: Dialect, on_irregular: Callable[[], None] | None = None
) -> Counts:
    """The census of a whole file."""
    census = Census(dialect.delimiter[:1], dialect.quote)
    METER.follow(text.size, lambda: census.counts.size, lambda: census.counts.records)
    told = on_irregular is None
    for block in text.blocks():
        census.feed(block)
        counts = census.counts
        if not told and on_irregular and is_hopeless(counts):
            told = True
            on_irregular()
    return census.finish()


def is_hopeless(counts: Counts) -> bool:
    """Whether what is counted so far shows already that the file is irregular."""
    return bool(counts.stray_quotes or counts.nuls or not counts.is_utf8)
