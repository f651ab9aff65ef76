"""Counts a file's records without parsing it, as a check on whoever parses it.

A record ends at a line end outside quotes, and a place is outside quotes after an even
number of them; both are found by vector operations on whole blocks. Along the way it is
seen whether the file is regular enough for a plain CSV reader to be trusted with it:
quotes only at the edges of fields, one kind of line end, valid UTF-8.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LF, _CR = 10, 13
# A quoted field over more lines than this may be two stray quotes; the careful reader looks.
MAX_QUOTED_LINES = 4

Bytes = NDArray[np.uint8]
Positions = NDArray[np.int64]


@dataclass(slots=True)
class Counts:
    """What a file holds.

    Attributes:
        size: bytes read.
        records: records that are not blank, the header among them.
        blanks: empty lines outside quotes.
        line_ends: line ends outside quotes.
        crlf: those of them that are `\\r\\n`.
        returns: carriage returns outside quotes.
        nuls: NUL bytes.
        stray_quotes: quotes that are not at the edge of a field.
        quoted_empties: whether some field is two quotes and nothing else.
        longest: bytes of the longest record.
        quoted_lines: most line ends within one quoted field.
        open_quote: whether the file ends within quotes.
        is_utf8: whether all of it is valid.
    """

    size: int = 0
    records: int = 0
    blanks: int = 0
    line_ends: int = 0
    crlf: int = 0
    returns: int = 0
    nuls: int = 0
    stray_quotes: int = 0
    quoted_empties: bool = False
    longest: int = 0
    quoted_lines: int = 0
    open_quote: bool = False
    is_utf8: bool = True

    @property
    def is_regular(self) -> bool:
        """Whether a plain CSV reader sees the records as they are meant."""
        return (
            self.is_utf8
            # DuckDB 1.5.5 drops surplus fields of nothing but NULs without a word.
            and not self.nuls
            and not self.stray_quotes
            and not self.open_quote
            and self.quoted_lines <= MAX_QUOTED_LINES
            and self.returns == self.crlf
            and self.crlf in (0, self.line_ends)
        )


class Census:
    """Counts block by block; memory does not grow with the file.

    Args:
        delimiter: one byte.
        quote: one byte, doubled inside quoted fields; empty for none.
    """

    def __init__(self, delimiter: bytes, quote: bytes) -> None:
        self.counts = Counts()
        self._quote = quote
        edges = np.zeros(256, np.bool_)
        edges[list(delimiter + quote + b"\n")] = True
        self._before_opening = edges
        self._after_closing = edges.copy()
        self._after_closing[_CR] = True
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        # State between blocks: within quotes or not, the last byte, whether it closed a
        # quote, and what there is so far of the record and the quoted field under way.
        self._inside = False
        self._last = b"\n"
        self._closed = False
        self._record_bytes = 0
        self._field_lines = 0

    def feed(self, block: bytes) -> None:
        """Counts the next block of the file, of any size."""
        if not block:
            return
        counts = self.counts
        counts.size += len(block)
        if b"\0" in block:
            counts.nuls += block.count(b"\0")
        self._check_text(block)
        if self._closed and not self._after_closing[block[0]]:
            counts.stray_quotes += 1
        data: Bytes = np.frombuffer(block, np.uint8)
        ends: Positions = np.flatnonzero(data == _LF)
        quotes: Positions | None = None
        if self._quote and (self._inside or self._quote in block):
            quotes = np.flatnonzero(data == self._quote[0])
            before = np.searchsorted(quotes, ends) + int(self._inside)
            within = (before & 1) == 1
            self._check_quotes(data, quotes)
            self._count_quoted_lines(before[within], len(quotes))
            ends = ends[~within]
        if b"\r" in block or self._last == b"\r":
            self._count_returns(data, ends, quotes)
        else:
            self._count_records(ends, None, len(block))
        if quotes is not None:
            self._inside = bool((len(quotes) + int(self._inside)) & 1)
        self._last = block[-1:]
        self._closed = self._last == self._quote and not self._inside

    def finish(self) -> Counts:
        """The counts, after the last block."""
        counts = self.counts
        try:
            self._decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            counts.is_utf8 = False
        counts.open_quote = self._inside
        if self._record_bytes:
            counts.records += 1
            counts.longest = max(counts.longest, self._record_bytes)
        return counts

    def _check_text(self, block: bytes) -> None:
        if not self.counts.is_utf8:
            return
        try:
            # The decoder keeps a character that a block's end cuts in two.
            if not block.isascii() or self._decoder.getstate()[0]:
                self._decoder.decode(block)
        except UnicodeDecodeError:
            self.counts.is_utf8 = False

    def _count_records(self, ends: Positions, crlf: NDArray[np.bool_] | None, size: int) -> None:
        """Counts the records that end in this block. `ends` are line ends outside quotes."""
        counts = self.counts
        if not len(ends):
            self._record_bytes += size
            return
        # Bytes of each record before its line feed.
        lengths = np.diff(ends, prepend=-1) - 1
        lengths[0] += self._record_bytes
        blank = lengths == 0
        if crlf is not None:
            blank |= (lengths == 1) & crlf
            counts.crlf += int(np.count_nonzero(crlf))
        blanks = int(np.count_nonzero(blank))
        counts.line_ends += len(ends)
        counts.blanks += blanks
        counts.records += len(ends) - blanks
        counts.longest = max(counts.longest, int(lengths.max()))
        self._record_bytes = size - 1 - int(ends[-1])

    def _count_returns(self, data: Bytes, ends: Positions, quotes: Positions | None) -> None:
        """Counts records where there are carriage returns as well."""
        returns: Positions = np.flatnonzero(data == _CR)
        if quotes is not None:
            within = ((np.searchsorted(quotes, returns) + int(self._inside)) & 1) == 1
            returns = returns[~within]
        self.counts.returns += len(returns)
        crlf = data[ends - 1] == _CR
        if len(ends) and ends[0] == 0:
            crlf[0] = self._last == b"\r"
        self._count_records(ends, crlf, len(data))

    def _check_quotes(self, data: Bytes, quotes: Positions) -> None:
        """Whether each quote stands at the edge of a field, or doubled within one."""
        counts = self.counts
        first = int(self._inside)
        opening, closing = quotes[first::2], quotes[1 - first :: 2]
        good = self._before_opening[data[opening - 1]]
        if len(opening) and opening[0] == 0:
            good[0] = self._before_opening[self._last[0]]
        counts.stray_quotes += len(good) - int(np.count_nonzero(good))
        if len(closing) and closing[-1] == len(data) - 1:
            closing = closing[:-1]  # the next block's first byte tells
        after = data[closing + 1]
        good = self._after_closing[after]
        counts.stray_quotes += len(good) - int(np.count_nonzero(good))
        if not counts.quoted_empties:
            pairs = closing[first:]
            opened = opening[: len(pairs)]
            empty = (pairs - opened == 1) & (after[first:] != self._quote[0])
            counts.quoted_empties = bool(
                np.any(data[opened[empty] - 1] != self._quote[0]) if len(opened) else False
            )

    def _count_quoted_lines(self, owners: Positions, quotes: int) -> None:
        """Finds the quoted field with most line ends.

        `owners` tells of each line end within quotes which quote opened its field; the
        number is 1 for a field that was open when the block began.
        """
        total = quotes + int(self._inside)
        if not len(owners):
            if quotes:
                self._field_lines = 0
            return
        fields, lines = np.unique(owners, return_counts=True)
        if self._inside and fields[0] == 1:
            lines[0] += self._field_lines
        self.counts.quoted_lines = max(self.counts.quoted_lines, int(lines.max()))
        self._field_lines = int(lines[-1]) if fields[-1] == total and total & 1 else 0
