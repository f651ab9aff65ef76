"""Rows from the beginning of a file and from places spread over the rest of it."""

from __future__ import annotations

from services.ingestd.core.fields import Cells, split_plain
from services.ingestd.core.layout import Layout
from services.ingestd.core.records import Kind, RecordReader
from services.ingestd.worker.text import TextFile

# Rows taken from the beginning; each further place gives what its few KiB hold.
FIRST_ROWS = 300


def sample_rows(text: TextFile, head: bytes, layout: Layout) -> list[Cells]:
    """Rows of the right width, as cells.

    A place in the middle of a file may lie within a quoted field. What is read there is
    used only if nearly all of it has the width of a row, so that no wrong cell gets in.
    """
    rows, _ = _read(head, layout, layout.skipped_lines, FIRST_ROWS)
    for window in text.windows():
        found, odd = _read(window, layout, 0, FIRST_ROWS)
        # The last row may be cut where the window ends within quotes.
        if odd * 20 <= len(found):
            rows += found[:-1]
    return rows


def _read(data: bytes, layout: Layout, skip: int, most: int) -> tuple[list[Cells], int]:
    reader = RecordReader([data], layout.dialect, layout.width, pad_from=layout.pad_from)
    reader.skip_lines(skip)
    rows: list[Cells] = []
    odd = 0
    dialect = layout.dialect
    for record in reader:
        if record.kind is Kind.PLAIN:
            rows.append(split_plain(record.raw, dialect.delimiter, dialect.quote))
        elif record.kind is Kind.CELLS and record.cells is not None:
            rows.append(record.cells)
        elif record.kind is Kind.REJECT:
            odd += 1
        if len(rows) >= most:
            break
    return rows, odd
