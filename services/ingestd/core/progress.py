"""How far an ingest is, and what of it is told to those who follow it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# A worker's own stages by what callers know them as; others are `converting`.
_STAGES = {
    "open": "sampling",
    "sniff": "sampling",
    "census": "reading",
    "encoding": "reading",
    "normalise": "reading",
    "read": "reading",
    "survey": "matching",
    "match": "matching",
    "rewrite": "rewriting",
    "count": "rewriting",
}
# Changes of stage that are kept for those who come back; an ingest has a dozen.
_KEPT = 64
# Stages that begin when the pass over the file is over, however far it was last told to be.
_AFTERWARDS = frozenset({"storing", "registering", "done"})
_FIGURES = frozenset({"bytes_read", "bytes_total", "rows", "rejects", "files_done", "files_total"})


@dataclass(slots=True)
class Progress:
    """Figures of one ingest.

    Attributes:
        stage: what is being done.
        bytes_read, bytes_total: of the stage's pass over the file; None where nobody knows.
        rows: rows read so far, in the end rows stored.
        rejects: rows left out so far.
        parts_stored, parts_total: Parquet files.
        files_done, files_total: of several files, how many are converted; None for one file.
        note: why it waits, None if it does not.
    """

    stage: str = "queued"
    bytes_read: int = 0
    bytes_total: int | None = None
    rows: int = 0
    rejects: int = 0
    parts_stored: int = 0
    parts_total: int | None = None
    files_done: int = 0
    files_total: int | None = None
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


class Track:
    """The progress of one ingest with a number for each change.

    Whoever was away gets the stages that it missed and then how things stand: figures that
    were overtaken are worth nothing.
    """

    def __init__(self) -> None:
        self.now = Progress()
        self.version = 0
        self._stages: deque[tuple[int, dict[str, Any]]] = deque(maxlen=_KEPT)
        self.enter("queued")

    def enter(self, stage: str, **figures: Any) -> None:
        """Begins a stage."""
        self.now.stage = stage
        self.now.note = None
        if stage in _AFTERWARDS and self.now.bytes_total is not None:
            self.now.bytes_read = self.now.bytes_total
        self.update(**figures)
        self._stages.append((self.version, self.now.to_json()))

    def update(self, **figures: Any) -> None:
        """Changes figures."""
        for name, value in figures.items():
            setattr(self.now, name, value)
        self.version += 1

    def hear(self, event: Mapping[str, Any]) -> None:
        """Takes what a worker tells."""
        if event["event"] == "stage":
            stage = _STAGES.get(event["name"], "converting")
            if stage != self.now.stage:
                self.enter(stage, bytes_read=0)
        elif event["event"] == "progress":
            self.update(**{name: event[name] for name in _FIGURES & event.keys()})

    def since(self, version: int) -> list[tuple[int, dict[str, Any]]]:
        """The stages begun after a version, and how things stand if that is later still."""
        found = [(number, figures) for number, figures in self._stages if number > version]
        if self.version > max(version, found[-1][0] if found else 0):
            found.append((self.version, self.now.to_json()))
        return found
