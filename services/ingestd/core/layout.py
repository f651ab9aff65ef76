"""Where a file's header and rows are, and how many columns it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.ingestd.core.dialect import Given, common_width, sniff_dialect
from services.ingestd.core.fields import Cells, Dialect
from services.ingestd.core.header import clean_name, is_header, name_columns
from services.ingestd.core.ladder import profile_values
from shared.errors import Unprocessable

# Lines above the header that are looked at for a title.
_PREAMBLE = 20
# Rows that a header is held against.
_HEADER_ROWS = 100


@dataclass(frozen=True, slots=True)
class Layout:
    """How the whole file is to be read.

    Attributes:
        dialect: how it is written.
        names: of the columns, in order.
        has_header: whether a record before the rows names the columns.
        skipped_lines: physical lines before the first row: blanks, preamble and header.
        preamble: the lines (from 1) above the header that are no rows.
        pad_from: a row with at least so many fields is filled up with NULLs.
        warnings: what was found odd.
    """

    dialect: Dialect
    names: tuple[str, ...]
    has_header: bool
    skipped_lines: int = 0
    header_line: int = 0
    preamble: tuple[int, ...] = ()
    pad_from: int | None = None
    warnings: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.names)

    @property
    def is_regular(self) -> bool:
        """Whether a plain CSV reader finds the rows: header first, nothing else before them."""
        lines = 1 if self.has_header else 0
        return (
            not self.preamble
            and self.pad_from is None
            and self.dialect.newline == b"\n"
            and self.dialect.escape == self.dialect.quote
            and not self.dialect.skip_space
            and self.skipped_lines == lines
        )


@dataclass(frozen=True, slots=True)
class Located:
    """A record of the sample with the lines it takes."""

    cells: Cells
    line: int
    span: int


def find_layout(
    sample: bytes,
    given: Given,
    header: bool | None,
    known: Sequence[str] = (),
    *,
    complete: bool = True,
    most: int = 20_000,
) -> Layout | None:
    """The layout of a file, None when the sample holds no record.

    Args:
        sample: whole lines from the beginning, without a byte order mark.
        given: what the caller said of the dialect.
        header: whether there is a header, None to find out.
        known: names of the table that exists: a record of them is a header, and rows of
            their number without a header are theirs by position.
        complete: whether the sample is the whole file.
        most: columns that a file may have.

    Raises:
        Unprocessable: it has more.
    """
    reading = sniff_dialect(sample, given, complete=complete)
    records = [
        Located(record.cells, record.line, record.span)
        for record in reading.records
        if record.cells
    ]
    if not records:
        return None
    if max(reading.width, len(records[0].cells)) > most:
        raise Unprocessable(
            f"The file has {max(reading.width, len(records[0].cells))} columns; at most {most} "
            "are taken. Is the delimiter right?",
            details={"limit": most},
        )
    first, preamble = _skip_preamble(records, reading.width)
    rows = records[first + 1 :]
    head = records[first]
    has_header = header
    if has_header is None:
        has_header = _has_header(head, rows, reading.width, known)
    warnings: list[str] = []
    width, pad_from = _choose_width(head, rows, has_header)
    if not has_header:
        names = [f"column_{index + 1}" for index in range(width)]
        named_how = "the columns are numbered"
        if len(known) == width:
            names = list(known)
            named_how = "the columns are the table's in their order"
        if header is None:
            warnings.append(
                f"The first line looks like a row, so it is kept as one and {named_how}. "
                "Pass header=true if it is a header."
            )
        skipped = head.line - 1
        header_line = 0
    else:
        names, renamed = name_columns([decode_cell(cell) for cell in head.cells], width)
        warnings += renamed
        skipped = head.line - 1 + head.span
        header_line = head.line
        named = _trimmed(head.cells)
        if named < width:
            warnings.append(
                f"The header has {named} names and the rows have {width} fields; those without "
                "a name are numbered."
            )
        if pad_from is not None:
            warnings.append(
                f"The header has {width} names and most rows have {pad_from} fields; "
                "the missing ones are NULL."
            )
    return Layout(
        dialect=reading.dialect,
        names=tuple(names),
        has_header=has_header,
        skipped_lines=skipped,
        header_line=header_line,
        preamble=preamble,
        pad_from=pad_from,
        warnings=tuple(warnings),
    )


def decode_cell(cell: bytes | None) -> str | None:
    """A cell's text; damaged bytes show as marks."""
    return None if cell is None else cell.decode("utf-8", "replace")


def _skip_preamble(records: list[Located], width: int) -> tuple[int, tuple[int, ...]]:
    """Index of the first record that can be a header or a row, and the lines above it."""
    for index, record in enumerate(records[:_PREAMBLE]):
        if not _is_title(record, records[index + 1 :][:_PREAMBLE], width):
            skipped = records[:index]
            lines = [line for one in skipped for line in range(one.line, one.line + one.span)]
            return index, tuple(lines)
    return 0, ()


def _is_title(record: Located, below: list[Located], width: int) -> bool:
    """Whether a record is a heading above the table.

    It has far too few fields, or too few and others like it or a blank line before what looks
    like a header; or it is one text alone, perhaps with others, before a record that is full.
    """
    cells = record.cells
    filled = _trimmed(cells)
    if len(cells) < width:
        if 2 * filled <= width:
            return True
        if not below or width < 3:
            return False
        apart = below[0].line > record.line + record.span
        return len(below[0].cells) < width or (apart and _are_untyped(below[0].cells, width))
    if width < 3 or filled != 1:
        return False
    full = next((one for one in below if _trimmed(one.cells) != 1), None)
    if full is None or _trimmed(full.cells) < width:
        return False
    profile = profile_values([decode_cell(cells[0])])
    return not (profile.is_numeric or profile.is_temporal)


def _are_untyped(cells: Cells, width: int) -> bool:
    """Whether a record of full width holds no number and no moment."""
    if _trimmed(cells) < width:
        return False
    profiles = [profile_values([decode_cell(cell)]) for cell in cells]
    return not any(one.is_numeric or one.is_temporal for one in profiles)


def _trimmed(cells: Cells) -> int:
    """How many fields there are without the empty ones at the end."""
    count = len(cells)
    while count and not cells[count - 1]:
        count -= 1
    return count


def _has_header(head: Located, rows: list[Located], width: int, known: Sequence[str]) -> bool:
    """Whether `head` names the columns of `rows`."""
    cells = [decode_cell(cell) for cell in head.cells]
    if known:
        names = {name.casefold() for name in known}
        matching = sum(clean_name(cell).casefold() in names for cell in cells)
        if 2 * matching > len(cells):
            return True
    fitting = [row.cells for row in rows if len(row.cells) == width][:_HEADER_ROWS]
    return is_header(cells, [[decode_cell(cell) for cell in row] for row in fitting])


def _choose_width(head: Located, rows: list[Located], has_header: bool) -> tuple[int, int | None]:
    """Number of columns, and from how many fields on a row is filled up."""
    # A lone carriage return may be a line end that is yet to be seen as one.
    whole = [row for row in rows if not any(cell and b"\r" in cell for cell in row.cells)]
    widths = [len(row.cells) for row in whole]
    if not has_header:
        return (common_width([len(head.cells), *widths]) if widths else len(head.cells)), None
    named = _trimmed(head.cells)
    if not widths:
        return max(named, 1), None
    width = common_width([named, *widths])
    common = common_width(widths)
    if common < named:
        # Rows end early; were there also rows of full width, the short ones are damage.
        return named, (common if widths.count(named) == 0 else None)
    if common > named:
        surplus = [row.cells[named:] for row in whole if len(row.cells) > named]
        if not any(cell for cells in surplus for cell in cells):
            return max(named, 1), None
        return common, None
    return width, None
