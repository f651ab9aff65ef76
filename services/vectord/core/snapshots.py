"""Snapshots of an index: what their manifests say, where they lie, and when one is due."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict

from shared.wire.vectord import IndexSpec

FORMAT = 1
PREFIX = "_vectors/"
MANIFEST = "manifest.json"
# Files are stored in pieces of this many bytes, below the cap of any prefix.
PIECE_BYTES = 200 * 1024 * 1024
# So many snapshots are kept, so that one of them may be damaged.
KEPT = 2

_LABEL = re.compile(r"\d{20}-\d{12}")


class FileEntry(BaseModel):
    """One file of a snapshot: its size in bytes and the SHA-256 of its content."""

    model_config = ConfigDict(frozen=True)

    size: int
    sha256: str


class Manifest(BaseModel):
    """One snapshot: the index's state after journal record `seq`.

    `rows` counts rows of the table, dead ones included; `graph_rows` of them are in the graph.
    """

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    uid: str
    spec: IndexSpec
    created_at: str
    seq: int
    rows: int
    live: int
    graph_rows: int
    files: dict[str, FileEntry]

    @property
    def label(self) -> str:
        """The snapshot's name; names sort by age."""
        return label_of(self.seq, self.graph_rows)


def label_of(seq: int, graph_rows: int) -> str:
    """The name of the snapshot of this state."""
    return f"{seq:020d}-{graph_rows:012d}"


def is_label(name: str) -> bool:
    """Whether a folder's name is a snapshot's."""
    return _LABEL.fullmatch(name) is not None


def index_prefix(name: str, uid: str) -> str:
    """Where an index lies in storage. The uid tells it from an earlier one of its name."""
    return f"{PREFIX}{name}/{uid}/"


def piece_keys(prefix: str, label: str, name: str, size: int) -> list[tuple[str, int, int]]:
    """The objects of one file as (key, first byte, length); at least one."""
    count = max(1, -(-size // PIECE_BYTES))
    return [
        (
            f"{prefix}{label}/{name}.{number:04d}",
            number * PIECE_BYTES,
            min(PIECE_BYTES, size - number * PIECE_BYTES),
        )
        for number in range(count)
    ]


def parse_key(key: str) -> tuple[str, str, str, str] | None:
    """(index, uid, label, file) of an object below `_vectors/`; None for anything else."""
    parts = key.removeprefix(PREFIX).split("/")
    if len(parts) != 4 or not key.startswith(PREFIX) or not is_label(parts[2]):
        return None
    return parts[0], parts[1], parts[2], parts[3]


def is_due(
    *, stored: str | None, current: str, since_s: float, interval_s: float, last_took_s: float
) -> bool:
    """Whether a snapshot should be taken now.

    The first one at once; later ones when something changed, but so rarely that they take
    a twentieth of the time at most.
    """
    if stored is None:
        return True
    return stored != current and since_s >= max(interval_s, 20 * last_took_s)


def parse_manifest(found: dict[str, Any] | bytes) -> Manifest:
    """A manifest as read.

    Raises:
        ValueError: it is damaged or of a format this build does not know.
    """
    read = Manifest.model_validate_json if isinstance(found, bytes) else Manifest.model_validate
    manifest = read(found)  # pyright: ignore[reportArgumentType]
    if manifest.format != FORMAT:
        raise ValueError(f"snapshot format {manifest.format} is not known")
    return manifest
