"""Segments on disk: their names, and the report of what reading them met.

A segment is a file `<seq of its first record, 20 digits>.jsonl`. Only the newest is ever
appended to. The name bounds what belongs into it: every seq from its own up to the next
segment's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from shared.journal.record import MAX_SEQ

_NAME = re.compile(r"(\d{20})\.jsonl")
# A report lists this many gaps and chain breaks; it counts them all.
LISTED = 1000


class Segment(NamedTuple):
    """One segment: the first seq it may hold, its file, and where the readable part ends."""

    first_seq: int
    path: Path
    size: int


@dataclass(slots=True)
class Report:
    """What reading met. All counts are of this reading alone.

    Attributes:
        records: intact records seen, whether or not they were asked for.
        damaged: runs of bytes that are no record (`damaged_bytes` long together).
        duplicates: intact records whose seq had been read already; the first one counts.
        torn: unfinished last lines; `torn_bytes` long.
        completed: last records that had only lost their newline.
        unsaved: damage that could not be copied to the quarantine (a full disk, say).
        missing: seqs that are in no intact record though later ones are.
        gaps: the missing seqs as (first, last), the first thousand of them.
        chain_breaks: records of a chained journal that do not follow the one before.
        broken_at: the seqs of those, the first thousand of them.
    """

    records: int = 0
    damaged: int = 0
    damaged_bytes: int = 0
    duplicates: int = 0
    torn: int = 0
    torn_bytes: int = 0
    completed: int = 0
    unsaved: int = 0
    missing: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    chain_breaks: int = 0
    broken_at: list[int] = field(default_factory=list[int])

    @property
    def clean(self) -> bool:
        """Whether every byte was an intact record in its place."""
        return not (
            self.damaged or self.duplicates or self.torn or self.missing or self.chain_breaks
        )

    def add_gap(self, first: int, last: int) -> None:
        """Counts the seqs from `first` to `last` as missing; nothing if there are none."""
        if last >= first:
            self.missing += last - first + 1
            if len(self.gaps) < LISTED:
                self.gaps.append((first, last))


def segment_path(directory: Path, first_seq: int) -> Path:
    """The file of the segment that starts at `first_seq`."""
    return directory / f"{first_seq:020d}.jsonl"


def list_segments(directory: Path) -> list[Segment]:
    """The segments of a journal, oldest first. Other files are none of them."""
    found = ((_NAME.fullmatch(path.name), path) for path in directory.iterdir())
    return sorted(
        Segment(int(match[1]), path, path.stat().st_size)
        for match, path in found
        if match and 0 < int(match[1]) <= MAX_SEQ
    )
