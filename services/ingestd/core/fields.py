"""Takes single records of CSV apart into cells, and writes them in regular form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# What is wrong with a record whose quote has no partner before the end of the text.
NEVER_CLOSED = "has a quote that is never closed"

# NULL is None: an empty field without quotes. b"" is an empty field in quotes.
Cell = bytes | None
Cells = list[Cell]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a file is written.

    Attributes:
        delimiter: between fields; 1 to 4 bytes.
        quote: around fields that hold delimiters or line ends; empty for none.
        escape: the quote itself when quotes are doubled, or a backslash.
        newline: `\\n` (also for `\\r\\n`), or `\\r` for files of old Macs.
        skip_space: whether blanks between a delimiter and a quote mean nothing.
    """

    delimiter: bytes = b","
    quote: bytes = b'"'
    escape: bytes = b'"'
    newline: bytes = b"\n"
    skip_space: bool = False


class Scan:
    """Takes one record apart, a physical line at a time, by the letter of its dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.cells: Cells = []
        self.open = False
        self.problem: str | None = None
        self._pieces: list[bytes] = []

    def feed(self, line: bytes) -> None:
        """Reads a line: the first one, or the next while a quoted field is `open`."""
        quote, delimiter = self.dialect.quote, self.dialect.delimiter
        end = len(line)
        position = 0
        if self.open:
            self._pieces.append(self.dialect.newline)
            position = self._read_quoted(line, 0)
            if position < 0 or self.problem:
                return
            if position >= end:
                return
            position += len(delimiter)
        while True:
            start = position
            if self.dialect.skip_space and quote:
                while line[start : start + 1] in (b" ", b"\t"):
                    start += 1
                if line[start : start + 1] != quote:
                    start = position
            if quote and line.startswith(quote, start):
                position = self._read_quoted(line, start + 1)
                if position < 0 or self.problem or position >= end:
                    return
                position += len(delimiter)
                continue
            stop = self._find_delimiter(line, position)
            last = stop < 0
            value = line[position:] if last else line[position:stop]
            if last and value.endswith(b"\r"):
                value = value[:-1]
            self.cells.append(self._unescape(value) or None)
            if last:
                return
            position = stop + len(delimiter)

    def _find_delimiter(self, line: bytes, position: int) -> int:
        """Where the next delimiter stands that no backslash takes away; -1 for none."""
        delimiter, escape = self.dialect.delimiter, self.dialect.escape
        stop = line.find(delimiter, position)
        if escape == self.dialect.quote:
            return stop
        slash = line.find(escape, position)
        while 0 <= slash < stop:
            if stop <= slash + 1:
                stop = line.find(delimiter, slash + 1 + len(delimiter))
            slash = line.find(escape, slash + 2)
        return stop

    def _unescape(self, value: bytes) -> bytes:
        """The text of a field without quotes."""
        escape = self.dialect.escape
        if escape == self.dialect.quote or escape not in value:
            return value
        pieces: list[bytes] = []
        position = 0
        while (slash := value.find(escape, position)) >= 0:
            pieces.append(value[position:slash])
            pieces.append(self._resolve(value[slash + 1 : slash + 2]))
            position = slash + 2
        return b"".join((*pieces, value[position:]))

    def _resolve(self, after: bytes) -> bytes:
        """What a backslash and the byte after it stand for.

        Only what needs escaping loses its backslash; any other pair stays as it is.
        """
        dialect = self.dialect
        special = (dialect.quote, dialect.escape, dialect.delimiter[:1])
        return after if after in special else dialect.escape + after

    def _read_quoted(self, line: bytes, position: int) -> int:
        """Reads inside quotes from `position`; gives where the field's delimiter stands.

        Gives the line's length when the record ends there, and -1 when the field stays open.
        """
        quote, escape = self.dialect.quote, self.dialect.escape
        while True:
            close = line.find(quote, position)
            if escape != quote:
                slash = line.find(escape, position)
                if slash >= 0 and (close < 0 or slash < close):
                    self._pieces.append(line[position:slash])
                    self._pieces.append(self._resolve(line[slash + 1 : slash + 2]))
                    position = slash + 2
                    continue
            if close < 0:
                self._pieces.append(line[position:])
                self.open = True
                return -1
            self._pieces.append(line[position:close])
            if escape == quote and line.startswith(quote, close + 1):
                self._pieces.append(quote)
                position = close + 2
                continue
            break
        self.open = False
        self.cells.append(b"".join(self._pieces))
        self._pieces.clear()
        after = close + 1
        while line[after : after + 1] in (b" ", b"\t"):
            if line.startswith(self.dialect.delimiter, after):
                break
            after += 1
        if after >= len(line) or (after == len(line) - 1 and line.endswith(b"\r")):
            return len(line)
        if not line.startswith(self.dialect.delimiter, after):
            self.problem = "has text after a closing quote"
        return after


def split_line(line: bytes, dialect: Dialect) -> tuple[Cells, str | None]:
    """The cells of a record on one line, and what is wrong with it."""
    scan = Scan(dialect)
    scan.feed(line)
    return scan.cells, NEVER_CLOSED if scan.open else scan.problem


def split_leniently(line: bytes, dialect: Dialect) -> Cells | None:
    """The cells of a line whose quoted fields hold quotes that are not doubled.

    A quoted field then ends at the first quote that a delimiter or the end follows.
    None when a field stays open, or the dialect has no quotes.
    """
    quote, delimiter = dialect.quote, dialect.delimiter
    if not quote or quote not in line:
        return None
    cells: Cells = []
    position = 0
    while True:
        if line.startswith(quote, position):
            close = position
            while True:
                close = line.find(quote, close + 1)
                if close < 0:
                    return None
                if line.startswith(quote + quote, close) and close + 2 < len(line):
                    # A doubled quote, unless the second one is what ends the field.
                    close += 1
                    continue
                if close + 1 == len(line) or line.startswith(delimiter, close + 1):
                    break
            inner = line[position + 1 : close]
            cells.append(inner.replace(quote + quote, quote))
            position = close + 1
        else:
            stop = line.find(delimiter, position)
            value = line[position:] if stop < 0 else line[position:stop]
            cells.append(value or None)
            position = len(line) if stop < 0 else stop
        if position >= len(line):
            return cells
        position += len(delimiter)


def is_text(line: bytes) -> bool:
    """Whether the bytes are UTF-8."""
    if line.isascii():
        return True
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def write_cells(cells: Iterable[Cell], delimiter: bytes, quote: bytes) -> bytes:
    """One record in regular form, without a line end; NULL and "" stay apart."""
    special = (delimiter, quote, b"\n", b"\r")
    written: list[bytes] = []
    for cell in cells:
        if cell is None:
            written.append(b"")
        elif not cell or any(mark in cell for mark in special):
            written.append(quote + cell.replace(quote, quote + quote) + quote)
        else:
            written.append(cell)
    return delimiter.join(written)


def split_plain(line: bytes, delimiter: bytes, quote: bytes) -> Cells:
    """The cells of a well-formed record on one line."""
    if not quote or quote not in line:
        return [cell or None for cell in line.split(delimiter)]
    cells: Cells = []
    position = 0
    double = quote + quote
    while True:
        if line.startswith(quote, position):
            close = position + 1
            while True:
                close = line.index(quote, close)
                if not line.startswith(double, close):
                    break
                close += 2
            cells.append(line[position + 1 : close].replace(double, quote))
            position = close + 1
        else:
            stop = line.find(delimiter, position)
            if stop < 0:
                stop = len(line)
            cells.append(line[position:stop] or None)
            position = stop
        if position >= len(line):
            return cells
        position += len(delimiter)
