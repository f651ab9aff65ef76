"""Rewrites an irregular file as a regular one, and lists what could not be made regular.

The regular file has the source's line number and line count before each row's fields, so
that whatever is found out later can name the line. Lines are accounted for: each is part of
the header, a row, a reject or a blank, and their sum must be the number of line ends
counted apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path

from services.ingestd.core.fields import Dialect, write_cells
from services.ingestd.core.layout import Layout
from services.ingestd.core.records import Kind, Record, RecordReader
from services.ingestd.worker.meter import METER
from services.ingestd.worker.text import TextFile
from shared.errors import Internal

# Stands around fields where the source has no quotes, so any character may be in them.
STAND_IN_QUOTE = b"\x1e"
_BUFFER = 4096


@dataclass(frozen=True, slots=True)
class Normalised:
    """A regular file.

    Attributes:
        path: where it lies.
        dialect: how it is written.
        rows: how many it has.
        rejects_path: JSON lines of what was left out, by line number.
        rejects: how many lines were left out.
        lenient: rows whose quotes were read in a way the writer may not have meant.
        blanks: empty lines passed over.
        longest: bytes of the longest row.
    """

    path: Path
    dialect: Dialect
    rows: int
    rejects_path: Path
    rejects: int
    lenient: int
    blanks: int
    longest: int


def normalise(
    text: TextFile, layout: Layout, folder: Path, limit: int, *, check_text: bool
) -> Normalised:
    """Rewrites `text` into `folder`.

    Args:
        layout: how it is to be read.
        limit: longest record in bytes.
        check_text: whether there are lines that are not UTF-8, to be kept as rejects.

    Raises:
        RecordTooLong: a line is over the limit.
        Internal: lines are missing from the account, so the result cannot be trusted.
    """
    counted = CountedBlocks(text.blocks(), layout.dialect.newline)
    reader = RecordReader(
        counted,
        layout.dialect,
        layout.width,
        pad_from=layout.pad_from,
        limit=limit,
        check_text=check_text,
    )
    quote = layout.dialect.quote or STAND_IN_QUOTE
    dialect = Dialect(layout.dialect.delimiter, quote, quote)
    rows_path, rejects_path = folder / "rows.csv", folder / "rejects.jsonl"
    with rows_path.open("wb") as rows_file, rejects_path.open("wb") as rejects_file:
        writer = Writer(rows_file, rejects_file, dialect, layout.dialect.quote)
        METER.follow(text.size, lambda: counted.bytes, lambda: writer.rows, lambda: writer.rejects)
        for line in layout.preamble:
            writer.write_reject(line, 1, "preamble", "stands above the header")
        reader.skip_lines(layout.skipped_lines)
        writer.write_all(reader)
    seen = min(layout.skipped_lines, counted.lines) + writer.lines
    if seen != counted.lines:
        raise Internal(
            f"{counted.lines - seen} of {counted.lines} lines are not accounted for, so nothing "
            "was stored. This is a fault of ingestd; please report it with the file's shape."
        )
    return Normalised(
        path=rows_path,
        dialect=dialect,
        rows=writer.rows,
        rejects_path=rejects_path,
        rejects=writer.rejects,
        lenient=writer.lenient,
        blanks=writer.blanks,
        longest=writer.longest,
    )


class CountedBlocks:
    """Passes blocks on and counts the physical lines in them by their line ends alone."""

    def __init__(self, blocks: Iterable[bytes], newline: bytes) -> None:
        self._blocks = blocks
        self._newline = newline
        self._last = newline
        self._ends = 0
        self.bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            self._ends += block.count(self._newline)
            self.bytes += len(block)
            self._last = block[-1:] or self._last
            yield block

    @property
    def lines(self) -> int:
        """Lines so far; the last one needs no line end."""
        return self._ends + (self._last != self._newline)


class Writer:
    """Writes rows and rejects, and counts what it was given."""

    def __init__(
        self, rows: BufferedWriter, rejects: BufferedWriter, dialect: Dialect, quote: bytes
    ) -> None:
        self._rows = rows
        self._rejects = rejects
        self._delimiter = dialect.delimiter
        self._quote = dialect.quote
        # Without quotes in the source, a row that holds the stand-in is written anew.
        self._stand_in = b"" if quote else STAND_IN_QUOTE
        self.lines = self.rows = self.rejects = 0
        self.lenient = self.blanks = self.longest = 0

    def write_all(self, records: Iterable[Record]) -> None:
        """Writes every record."""
        pending: list[bytes] = []
        delimiter = self._delimiter
        one = delimiter + b"1" + delimiter
        for record in records:
            kind = record.kind
            self.lines += record.span
            if kind is Kind.PLAIN and not (self._stand_in and self._stand_in in record.raw):
                row = record.raw
                pending.append(b"%d%s%s\n" % (record.line, one, row))
            elif kind is Kind.BLANK:
                self.blanks += 1
                continue
            elif kind is Kind.REJECT:
                self.write_reject(record.line, record.span, record.reason, record.message)
                continue
            else:
                cells = record.cells
                if cells is None:
                    cells = [cell or None for cell in record.raw.split(delimiter)]
                self.lenient += record.lenient
                row = write_cells(cells, delimiter, self._quote)
                span = b"%d" % max(record.span, 1)
                pending.append(delimiter.join((b"%d" % record.line, span, row)) + b"\n")
            self.rows += 1
            if len(row) > self.longest:
                self.longest = len(row)
            if len(pending) >= _BUFFER or len(row) > 65536:
                self._rows.writelines(pending)
                pending.clear()
        self._rows.writelines(pending)

    def write_reject(self, line: int, span: int, reason: str, message: str) -> None:
        """Lists lines that are no row."""
        self.rejects += 1
        entry = [line, span, None, reason, message]
        self._rejects.write(json.dumps(entry).encode() + b"\n")
