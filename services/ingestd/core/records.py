"""Splits CSV bytes into records, and says of each line that is no record why not.

This is the careful reader: it is used on samples, and on whole files that the fast reader
cannot be trusted with (ragged rows, stray quotes, mixed line ends, damaged text). Every
physical line ends up in exactly one record, reject or blank, so lines can be accounted for.

What it makes of irregular input:

* A quote that opens a field and is closed properly may span lines.
* A quote inside a quoted field that is neither doubled nor followed by a delimiter is read
  as a character, when the row then has the right number of fields on one line.
* An unclosed quote, and a row of the wrong width that spans lines, cost one line: it is a
  reject, and reading goes on at the next one.
* Surplus fields that are empty are dropped; they hold nothing.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from services.ingestd.core.fields import (
    NEVER_CLOSED,
    Cells,
    Dialect,
    Scan,
    is_text,
    split_leniently,
    split_line,
)


class Kind(Enum):
    """What a run of lines is."""

    # A record whose bytes can be copied as they stand.
    PLAIN = "plain"
    # A record that had to be taken apart; `cells` holds its values.
    CELLS = "cells"
    # `reason` and `message` say why it is none.
    REJECT = "reject"
    BLANK = "blank"


class Record(NamedTuple):
    """One or more physical lines. `line` counts from 1; `span` is how many lines it took."""

    kind: Kind
    line: int
    span: int
    raw: bytes = b""
    cells: Cells | None = None
    reason: str = ""
    message: str = ""
    # The record was read in a way that its writer may not have meant (undoubled quotes).
    lenient: bool = False


class RecordTooLong(Exception):
    """A line or quoted field over the limit: the file is not what it is said to be."""

    def __init__(self, line: int, limit: int) -> None:
        super().__init__(f"line {line} is over {limit} bytes")
        self.line = line
        self.limit = limit


def compile_plain(dialect: Dialect, width: int) -> re.Pattern[bytes]:
    """A pattern that matches a line which is one well-formed record of `width` fields."""
    apart = re.escape(dialect.delimiter)
    # With backslash escapes no line that holds a quote or backslash is copied as it stands.
    barred = re.escape(dialect.quote + dialect.escape)
    if len(dialect.delimiter) == 1:
        bare = rb"[^%s%s\r]*+" % (apart, barred)
    else:
        bare = rb"(?:(?!%s)[^%s\r])*+" % (apart, barred)
    field = bare
    if dialect.quote and dialect.escape == dialect.quote:
        q = re.escape(dialect.quote)
        quoted = rb"%s[^%s]*+(?:%s%s[^%s]*+)*+%s" % (q, q, q, q, q, q)
        field = rb"(?:%s|%s)" % (quoted, bare)
    return re.compile(rb"%s(?:%s%s){%d}\r?" % (field, apart, field, width - 1))


class Lines:
    """Physical lines of a byte stream with their terminator cut off, and a way to go back.

    Args:
        blocks: pieces of the file in order.
        newline: what ends a line.
        limit: longest line accepted, in bytes.
    """

    def __init__(self, blocks: Iterable[bytes], newline: bytes, limit: int) -> None:
        self._source = self._split(iter(blocks), newline, limit)
        self._back: deque[bytes] = deque()
        self.limit = limit
        self.number = 0

    def next(self) -> bytes | None:
        """The next line, None at the end. `number` is then its number, from 1."""
        if self._back:
            self.number += 1
            return self._back.popleft()
        line = next(self._source, None)
        if line is not None:
            self.number += 1
        return line

    def push_back(self, lines: list[bytes]) -> None:
        """Gives lines back that were read ahead, in their order."""
        self._back.extendleft(reversed(lines))
        self.number -= len(lines)

    def _split(self, blocks: Iterator[bytes], newline: bytes, limit: int) -> Iterator[bytes]:
        held: list[bytes] = []
        size = 0
        for block in blocks:
            if newline not in block:
                held.append(block)
                size += len(block)
                if size > limit:
                    raise RecordTooLong(self.number + 1, limit)
                continue
            held.append(block)
            parts = b"".join(held).split(newline)
            held = [parts.pop()]
            size = len(held[0])
            for part in parts:
                if len(part) > limit:
                    raise RecordTooLong(self.number + 1, limit)
                yield part
        rest = b"".join(held)
        if rest:
            yield rest


class RecordReader:
    """Iterates over the records of a file.

    Args:
        blocks: pieces of the file in order, without a byte order mark.
        dialect: how it is written.
        width: how many fields a record has; None while that is being found out.
        pad_from: a record with at least so many fields is filled up with NULLs.
        limit: longest record accepted, in bytes.
        check_text: whether to reject lines that are not UTF-8.
    """

    def __init__(
        self,
        blocks: Iterable[bytes],
        dialect: Dialect,
        width: int | None,
        *,
        pad_from: int | None = None,
        limit: int = 64 * 1024 * 1024,
        check_text: bool = False,
    ) -> None:
        self.dialect = dialect
        self.width = width
        self.pad_from = pad_from if pad_from is not None else width
        self.lines = Lines(blocks, dialect.newline, limit)
        self.check_text = check_text
        self._plain = compile_plain(dialect, width) if width else None

    def skip_lines(self, count: int) -> None:
        """Passes over lines at the beginning (a header already read)."""
        for _ in range(count):
            self.lines.next()

    def __iter__(self) -> Iterator[Record]:
        lines = self.lines
        fullmatch = self._plain.fullmatch if self._plain else None
        check_text = self.check_text
        single = self.width == 1
        # Blank lines of a one-column file are NULLs, unless nothing follows them.
        blanks: list[int] = []
        while (line := lines.next()) is not None:
            if not line or line == b"\r" or line == b"\x1a":
                if single and line != b"\x1a":
                    blanks.append(lines.number)
                else:
                    yield Record(Kind.BLANK, lines.number, 1)
                continue
            if blanks:
                for number in blanks:
                    yield Record(Kind.CELLS, number, 1, cells=[None])
                blanks.clear()
            if check_text and not is_text(line):
                yield Record(
                    Kind.REJECT, lines.number, 1, line, None, "encoding", "is not valid UTF-8"
                )
            elif fullmatch is not None and fullmatch(line):
                raw = line[:-1] if line[-1] == 13 else line
                yield Record(Kind.PLAIN, lines.number, 1, raw)
            else:
                yield from self._read_irregular(line)
        for number in blanks:
            yield Record(Kind.BLANK, number, 1)

    def _read_irregular(self, line: bytes) -> Iterator[Record]:
        """What `line`, and perhaps those after it, are."""
        number = self.lines.number
        if self.width != 1 and not line.strip(b" \r"):
            yield Record(Kind.BLANK, number, 1)
            return
        cells, ahead, problem = self._split_record(line)
        if problem is None and cells is not None:
            fitted = self._fit(cells)
            if fitted is not None and not self._swallows_records(ahead):
                yield Record(Kind.CELLS, number, 1 + len(ahead), line, fitted)
                return
        # Not a record as it stands: only this line is judged, the others get their own turn.
        self.lines.push_back(ahead)
        lenient = split_leniently(line.removesuffix(b"\r"), self.dialect)
        fitted = self._fit(lenient) if lenient is not None and self.width else None
        if fitted is not None:
            yield Record(Kind.CELLS, number, 1, line, fitted, lenient=True)
            return
        if b"\r" in line.removesuffix(b"\r") and (parts := self._split_at_returns(line)):
            for index, part in enumerate(parts):
                # All but the first take no line of their own.
                yield Record(Kind.CELLS, number, 0 if index else 1, line, part)
            return
        if problem is not None:
            yield Record(Kind.REJECT, number, 1, line, cells, "quote", problem)
            return
        found = len(cells or ())
        if ahead:
            message = "opens a quote that is closed many lines on, over what look like other rows"
            if found != self.width:
                message = "has a quoted field that runs over line ends, and the wrong width"
            yield Record(Kind.REJECT, number, 1, line, cells, "quote", message)
            return
        reason = "too_few_fields" if found < (self.width or 0) else "too_many_fields"
        message = f"has {found} fields where {self.width} are expected"
        yield Record(Kind.REJECT, number, 1, line, cells, reason, message)

    def _fit(self, cells: Cells) -> Cells | None:
        """The cells in the right number: surplus NULLs cut off, missing ones filled in."""
        width = self.width
        if width is None or len(cells) == width:
            return cells
        if len(cells) > width:
            return cells[:width] if not any(cells[width:]) else None
        if self.pad_from is not None and len(cells) >= self.pad_from:
            return cells + [None] * (width - len(cells))
        return None

    def _swallows_records(self, ahead: list[bytes]) -> bool:
        """Whether a quoted field seems to have swallowed whole records.

        That is how two stray quotes far apart look. The lines between the first and the
        last must all be free of quotes and have the width of a record, of three fields at
        least, to be taken for records.
        """
        width = self.width
        inner = ahead[:-1]
        if width is None or width < 3 or not inner:
            return False
        quote, delimiter = self.dialect.quote, self.dialect.delimiter
        return all(quote not in one and one.count(delimiter) == width - 1 for one in inner)

    def _split_at_returns(self, line: bytes) -> list[Cells] | None:
        """The records of a line that holds lone carriage returns, if they are line ends."""
        found: list[Cells] = []
        for part in line.split(b"\r"):
            if not part:
                continue
            cells, problem = split_line(part, self.dialect)
            fitted = None if problem else self._fit(cells)
            if fitted is None:
                return None
            found.append(fitted)
        return found

    def _split_record(self, line: bytes) -> tuple[Cells | None, list[bytes], str | None]:
        """Takes a record apart, reading on while a quoted field is open.

        Returns:
            Its cells, the further lines it took, and what is wrong if it is no record.
        """
        scan = Scan(self.dialect)
        ahead: list[bytes] = []
        size = len(line)
        scan.feed(line)
        while scan.open:
            more = self.lines.next()
            if more is None or size + len(more) > self.lines.limit:
                if more is not None:
                    ahead.append(more)
                return scan.cells, ahead, NEVER_CLOSED
            size += len(more) + 1
            ahead.append(more)
            if self.check_text and not is_text(more):
                return scan.cells, ahead, "has a quoted field that runs into text not in UTF-8"
            scan.feed(more)
        return scan.cells, ahead, scan.problem
