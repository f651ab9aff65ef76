"""What was left out of a conversion, in order, and the answer when that is everything."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from pathlib import Path

from services.ingestd.worker.sidecar import Entry, read_entries
from services.ingestd.worker.table import Table
from shared.errors import Unprocessable


def merge_entries(rejects: Path, table: Table) -> Iterator[Entry]:
    """All that was left out, in order of lines: what is no row, and what does not fit."""
    return heapq.merge(read_entries(rejects), table.entries(), key=lambda entry: entry[0])


def refuse_all(rejects: int, entries: Iterator[Entry]) -> Unprocessable:
    """The answer to a file without a single usable row."""
    first = list(itertools.islice(entries, 5))
    if not first:
        return Unprocessable("The file has a header and no rows. There is nothing to ingest.")
    return Unprocessable(
        f"None of the {rejects} rows can be used; line {first[0][0]} {first[0][4]}. Nothing was "
        "stored. Are delimiter, quote, header and dataset the right ones?",
        details={
            "rows_in": rejects,
            "rejects": [
                {"line": line, "column": column, "reason": reason, "message": message}
                for line, _, column, reason, message in first
            ],
        },
    )
