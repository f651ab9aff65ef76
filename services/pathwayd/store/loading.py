"""Memory out of the log: the newest good checkpoint, then the records behind it."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from typing import NamedTuple

from services.pathwayd.core.records import Change, decode_change
from services.pathwayd.store.checkpoint import read_memory
from services.pathwayd.store.memory import Memory
from shared.config import PathwaydSection
from shared.journal import Journal, Report

logger = logging.getLogger("lakehouse.pathwayd")


class Loaded(NamedTuple):
    """A memory as it was found.

    `checkpoint_seq` is 0 when all of the log was read; `unknown` counts records that are
    intact and of no known kind; `problems` are for people.
    """

    memory: Memory
    checkpoint_seq: int
    report: Report
    unknown: int
    problems: list[str]


class _Reading:
    def __init__(self, journal: Journal, start: int, report: Report) -> None:
        self.unknown = 0
        self._records = journal.replay(start, report=report)

    def __iter__(self) -> Iterator[tuple[int, Change]]:
        for record in self._records:
            try:
                change = decode_change(record.payload)
            except (KeyError, ValueError, TypeError):
                self.unknown += 1
                continue
            yield record.seq, change


def load_memory(journal: Journal, section: PathwaydSection) -> Loaded:
    """Everything that the log says.

    Raises:
        Unavailable: the disk fails to read.
    """
    # Nothing of what is made here is garbage, and looking for some takes longer than making it.
    gc.disable()
    try:
        return _load(journal, section)
    finally:
        gc.enable()
        gc.freeze()


def _load(journal: Journal, section: PathwaydSection) -> Loaded:
    problems: list[str] = []
    memory = None
    start = 0
    checkpoint = journal.latest_checkpoint()
    if checkpoint is not None and checkpoint.seq <= journal.last_seq:
        try:
            memory = read_memory(
                checkpoint.chunks(), section.idempotency_keys, section.max_text_chars
            )
            check_reach(memory, journal.last_seq)
            start = checkpoint.seq
        except (ValueError, KeyError, TypeError, IndexError) as error:
            memory = None
            problems.append("the checkpoint could not be used; all of the log was read")
            logger.error("The checkpoint at %d could not be used: %s", checkpoint.seq, error)
    if memory is None:
        memory = Memory(section.idempotency_keys, section.max_text_chars)
    report = Report()
    reading = _Reading(journal, start + 1, report)
    memory.load(reading)
    return Loaded(memory, start, report, reading.unknown, problems)


def check_reach(memory: Memory, last_seq: int) -> None:
    """Passes when a checkpoint holds nothing from behind the end of the log.

    It may hold more than it says, and the end may be damaged. New records would then have
    numbers that traces in it have passed already, and would change nothing.

    Raises:
        ValueError: it does.
    """
    if any(trace.seq > last_seq for trace in memory.state.traces.values()):
        raise ValueError("a checkpoint from behind the end of the log")


def count_unknown(journal: Journal, report: Report) -> Iterator[bool]:
    """Reads the whole log; gives for each record whether it is of no known kind."""
    for record in journal.replay(1, report=report):
        yield record.payload.get("op") not in ("add", "update", "retire", "vectors")


def read_slice(records: Iterator[bool], count: int) -> int | None:
    """Of the next `count` records those of no known kind; None at the end."""
    unknown = 0
    for number, is_unknown in enumerate(records, start=1):
        unknown += is_unknown
        if number == count:
            return unknown
    return None
