"""What an upsert asks of a worker once its rows are converted, as plain JSON.

Three steps, each for some files of the table:
- survey: from footers alone, which files may hold one of the keys, and where in them the key
  columns lie;
- match: from the key columns alone, which rows the upsert replaces;
- rewrite: the other rows of the files that hold any, as new files.
And at last `count`: how many of the upsert's rows replaced something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from services.ingestd.core.job import Limits

Step = Literal["survey", "match", "rewrite", "count"]
# Last bytes of a Parquet file: the length of its footer and a mark.
TAIL = 8
_MARK = b"PAR1"


@dataclass(frozen=True, slots=True)
class Merge:
    """One step.

    Attributes:
        step: which.
        folder: an empty folder for what is made; the caller removes it.
        ingest_id: goes into the Parquet files.
        key: the columns that make a row's key, as the table names them.
        columns: name and type of the table's columns.
        parts: Parquet files of the upsert's rows, each key in them once.
        files: Parquet files of the table. For `survey` and `match` they hold only what the
            step reads, and gaps for the rest. For `count`: what `match` gave.
        limits: bounds.
    """

    step: Step
    folder: str
    ingest_id: str
    key: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    parts: tuple[str, ...]
    files: tuple[str, ...]
    limits: Limits

    def to_json(self) -> dict[str, Any]:
        """Plain data; the member `step` tells it from a conversion."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Merge:
        """The step that `to_json` described."""
        plain: dict[str, Any] = {
            **values,
            "key": tuple(values["key"]),
            "columns": tuple((name, kind) for name, kind in values["columns"]),
            "parts": tuple(values["parts"]),
            "files": tuple(values["files"]),
            "limits": Limits(**values["limits"]),
        }
        return Merge(**plain)


def find_names(key: Sequence[str], columns: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The key's columns as the table spells them."""
    spelled = {name.casefold(): name for name, _ in columns}
    return tuple(spelled[name.casefold()] for name in key)


def footer_length(tail: bytes) -> int | None:
    """Bytes of a Parquet file's footer with its tail, None if it is no such file."""
    if len(tail) < TAIL or tail[-4:] != _MARK:
        return None
    return int.from_bytes(tail[-8:-4], "little") + TAIL


def join_ranges(ranges: list[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Ranges of (start, length), in order; those less than `gap` bytes apart become one."""
    joined: list[tuple[int, int]] = []
    for start, length in sorted(ranges):
        if joined and start <= joined[-1][0] + joined[-1][1] + gap:
            first, held = joined[-1]
            joined[-1] = (first, max(held, start + length - first))
        else:
            joined.append((start, length))
    return joined


def group_by_size(sizes: Mapping[str, int], most: int) -> list[tuple[str, ...]]:
    """Names in groups of at most `most` bytes together; a larger one is alone."""
    groups: list[tuple[str, ...]] = []
    held: list[str] = []
    total = 0
    for name, size in sizes.items():
        if held and total + size > most:
            groups.append(tuple(held))
            held, total = [], 0
        held.append(name)
        total += size
    return [*groups, tuple(held)] if held else groups
