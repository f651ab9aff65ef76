"""How an index comes back: the newest intact snapshot, then what the journal holds after it.

The journal numbers its records from 1 in each directory. When a directory was lost and the
index came back from storage alone, `base_seq` maps the new journal's numbers to go on from
the snapshot's, and `first_seq` says from which record on that mapping holds.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict

from services.vectord.core.records import Assembler, Write
from services.vectord.store.files import Damaged, write_file
from services.vectord.store.graph import Graph
from services.vectord.store.index import VectorIndex
from services.vectord.store.snapshot import list_snapshots, read_snapshot
from services.vectord.store.table import Table
from shared.journal import Journal, Report
from shared.wire.vectord import IndexSpec

DEFINITION = "index.json"
JOURNAL = "journal"
SNAPSHOTS = "snapshots"
# Records applied at once when the journal is read.
_GROUP = 64


class Definition(BaseModel):
    """What `index.json` holds. `stored` is the label of the newest snapshot confirmed stored."""

    model_config = ConfigDict(frozen=True)

    uid: str
    spec: IndexSpec
    created_at: str
    base_seq: int = 0
    first_seq: int = 1
    stored: str | None = None

    def write(self, folder: Path) -> None:
        """Puts it in place durably."""
        write_file(folder / DEFINITION, self.model_dump_json().encode())


def read_definition(folder: Path) -> Definition:
    """The definition in an index's folder.

    Raises:
        Damaged: it cannot be read.
    """
    try:
        return Definition.model_validate(orjson.loads((folder / DEFINITION).read_bytes()))
    except (OSError, ValueError):
        raise Damaged(f"{DEFINITION} is missing or damaged") from None


@dataclass
class Restored:
    """Rows and graph of the snapshot that was found, or none; and what was wrong with others."""

    label: str | None = None
    seq: int = 0
    table: Table | None = None
    graph: Graph | None = None
    problems: list[str] = field(default_factory=list[str])


def restore(folder: Path, labels: list[str]) -> Restored:
    """The first intact one of the local snapshots `labels`; damaged ones are removed."""
    found = Restored()
    for label in labels:
        try:
            manifest, table, graph, problems = read_snapshot(folder / label)
        except (Damaged, ValueError, KeyError, TypeError) as error:
            found.problems.append(f"the local snapshot {label} cannot be used: {error}")
            shutil.rmtree(folder / label, ignore_errors=True)
            continue
        found.problems += problems
        found.label, found.seq, found.table, found.graph = label, manifest.seq, table, graph
        break
    return found


def local_labels(folder: Path) -> list[str]:
    """The local snapshots of an index, newest first."""
    return list_snapshots(folder / SNAPSHOTS)


def align(definition: Definition, journal: Journal, seq: int) -> Definition:
    """The definition under which the journal's next record follows record `seq`."""
    if definition.base_seq + journal.last_seq >= seq:
        return definition
    return definition.model_copy(
        update={"base_seq": seq - journal.last_seq, "first_seq": journal.last_seq + 1}
    )


def first_readable(definition: Definition, journal: Journal) -> int:
    """The oldest record, as the index counts them, that the journal can still give."""
    return definition.base_seq + max(definition.first_seq, journal.stats().first_seq)


def replay(
    definition: Definition, journal: Journal, found: Restored, stats: Report
) -> tuple[VectorIndex, Assembler]:
    """The index of a snapshot with the journal's later records applied."""
    index = VectorIndex(definition.spec, found.table, found.graph, found.seq)
    assembler = Assembler()
    base = definition.base_seq
    pending: list[tuple[int, Write]] = []
    start = max(definition.first_seq, found.seq - base + 1)
    for record in journal.replay(start, report=stats):
        if record.seq < start:
            continue
        for seq, write in assembler.take(record.seq, record.payload):
            pending.append((base + seq, write))
        if len(pending) >= _GROUP:
            index.apply(pending)
            pending = []
    index.apply(pending)
    return index, assembler
