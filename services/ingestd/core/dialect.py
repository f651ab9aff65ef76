"""Finds out how a file is written from a sample of it.

Every candidate takes the sample apart with the careful reader. The one wins under which
most records have the same number of fields, and the fields look like values: numbers and
words rather than text that another delimiter would divide further.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from itertools import dropwhile

from services.ingestd.core.fields import NEVER_CLOSED, Cells, Dialect
from services.ingestd.core.ladder import profile_values
from services.ingestd.core.records import Kind, Record, RecordReader

DELIMITERS = (b",", b";", b"\t", b"|")
# Looked for where none of those divides the records; text hardly holds the first three, and
# so much of the others that a header of names must speak for them.
_RARE = (b"\x1f", b"^", b"~")
_COMMON_IN_TEXT = (b":", b" ")
# Stands between fields where there is only one: no text holds it.
NO_DELIMITER = b"\x1f"
# Records looked at for each candidate.
_RECORDS = 200
# Lines without a delimiter above a table that are looked past.
_TITLES = 20
# Cells of a record that are looked at for what they are.
_CELLS = 100
_NAME = re.compile(r"[^\W\d][\w./#%-]*")


@dataclass(frozen=True, slots=True)
class Given:
    """What the caller said of the file; None is to be found out. An empty quote is none."""

    delimiter: bytes | None = None
    quote: bytes | None = None
    escape: bytes | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a dialect makes of a sample: records and damaged ones, and how well they fit."""

    dialect: Dialect
    records: tuple[Record, ...]
    width: int
    consistency: float
    score: float


def detect_newline(sample: bytes) -> bytes:
    """What ends a line: `\\r` only where there is no `\\n` at all."""
    return b"\r" if b"\r" in sample and b"\n" not in sample else b"\n"


def sniff_dialect(sample: bytes, given: Given | None = None, *, complete: bool = True) -> Reading:
    """The most plausible dialect and its reading of the sample.

    Args:
        sample: whole lines from the beginning of the file, without a byte order mark.
        given: what is known already.
        complete: whether the sample is the whole file.
    """
    given = given or Given()
    newline = detect_newline(sample)
    readings = [
        read_sample(sample, Dialect(delimiter, quote, escape, newline, skip_space), complete)
        for delimiter in _delimiters(sample, given)
        for quote in _quotes(sample, delimiter, given)
        for escape in _escapes(sample, quote, given)
        for skip_space in _skips(sample, delimiter, quote)
    ]
    # The first of equals wins: candidates come in order of how common they are.
    best = max(readings, key=lambda reading: reading.score)
    if given.delimiter is not None:
        return best
    divides = _divides(best)
    if not divides or len(best.records[0].cells or ()) != best.width:
        rare = _find_rare(sample, best.dialect, complete)
        if rare is not None:
            return rare
    if not divides:
        single = Dialect(NO_DELIMITER, best.dialect.quote, best.dialect.escape, newline)
        return read_sample(sample, single, complete)
    return _find_doubled(sample, best, complete) or best


def _find_rare(sample: bytes, dialect: Dialect, complete: bool) -> Reading | None:
    """The reading by a delimiter that few files have, if it makes a table beyond doubt."""
    for delimiter in (*_RARE, *_COMMON_IN_TEXT):
        if delimiter not in sample:
            continue
        reading = read_sample(sample, replace(dialect, delimiter=delimiter), complete)
        rows = [record.cells or [] for record in reading.records]
        if len(rows) < 3 or any(len(cells) != reading.width for cells in rows):
            continue
        if delimiter in _RARE and reading.width > 1:
            return reading
        # Times have colons and sentences have blanks, all of them alike perhaps.
        if reading.width > 2 and _are_names(rows[0]) and _has_values(rows[1:]):
            return reading
    return None


def _find_doubled(sample: bytes, reading: Reading, complete: bool) -> Reading | None:
    """The reading by the delimiter twice, if it never stands alone."""
    dialect = reading.dialect
    double = dialect.delimiter * 2
    rows = [record.cells or [] for record in reading.records]
    if any(len(cells) % 2 == 0 or any(cells[1::2]) for cells in rows):
        return None
    return read_sample(sample, replace(dialect, delimiter=double), complete)


def _has_values(rows: list[Cells]) -> bool:
    """Whether some column holds numbers or moments alone."""
    for column in zip(*rows, strict=False):
        texts = [cell.decode("utf-8", "replace") for cell in column if cell]
        profile = profile_values(texts)
        typed = max(profile.decimals, profile.doubles, profile.dates, profile.timestamps)
        if texts and typed == len(texts):
            return True
    return False


def read_sample(sample: bytes, dialect: Dialect, complete: bool) -> Reading:
    """What the dialect makes of the sample, with a score between 0 and about 1.

    A quoted field that runs past the end of an incomplete sample says nothing, and nor does
    what is in it.
    """
    records: list[Record] = []
    problems = 0
    for record in RecordReader([sample], dialect, None):
        if record.kind is Kind.REJECT:
            if record.message == NEVER_CLOSED and not complete and records:
                break
            problems += 1
        if record.cells:
            records.append(record)
        if len(records) >= _RECORDS:
            break
    whole = [one.cells or [] for one in records if one.kind is not Kind.REJECT]
    total = len(whole) + problems
    if not whole:
        return Reading(dialect, tuple(records), 1, 0.0, 0.0)
    width = common_width([len(cells) for cells in whole])
    first = whole[0]
    if width == 1 and _are_names(first):
        width = len(first)
    fitting = [cells for cells in whole if len(cells) == width]
    consistency = len(fitting) / total
    # A first record of another width is a sign that the delimiter is not one.
    head = 1.0 if len(first) == width else 0.8
    looks = _looks_of(fitting[:100], dialect)
    score = consistency * head * (0.5 + 0.5 * looks) if width > 1 else 0.1 * looks
    return Reading(dialect, tuple(records), width, consistency, score)


def common_width(widths: list[int]) -> int:
    """The most frequent width; of several the first record's, else the larger."""
    counts = Counter(widths)
    most = max(counts.values())
    if counts[widths[0]] == most:
        return widths[0]
    return max(width for width, count in counts.items() if count == most)


def _divides(reading: Reading) -> bool:
    """Whether the delimiter really divides the records, or is punctuation of one column."""
    if reading.width < 2:
        return False
    widths = [len(record.cells or ()) for record in reading.records]
    if widths[0] == 1:
        below = list(dropwhile(lambda width: width == 1, widths))
        titles = len(widths) - len(below)
        if reading.width > 2 and titles <= _TITLES and len(below) > max(titles, 2):
            # Lines of a title, then a table.
            return below.count(reading.width) >= 0.9 * len(below)
        return reading.consistency >= 0.9 or (len(set(widths[1:])) == 1 and len(widths) > 3)
    divided = sum(width > 1 for width in widths)
    return widths[0] == reading.width or divided >= 0.9 * len(widths)


def _are_names(cells: Cells) -> bool:
    """Whether the cells of a first record can only be names of several columns."""
    names = [cell.decode("utf-8", "replace") for cell in cells if cell]
    distinct = len({name.casefold() for name in names})
    return 1 < len(cells) == distinct and all(_NAME.fullmatch(name) for name in names)


def _looks_of(records: list[Cells], dialect: Dialect) -> float:
    """How much the fields look like values, from 0 to 1."""
    others = [one for one in DELIMITERS if one != dialect.delimiter]
    total = 0.0
    count = 0
    for cells in records:
        for cell in cells[:_CELLS]:
            count += 1
            if not cell:
                total += 0.9
                continue
            text = cell.decode("utf-8", "replace")
            profile = profile_values([text])
            if profile.is_numeric or profile.is_temporal or any(profile.booleans):
                total += 1.0
            elif any(other in cell for other in others) and not _is_comma_number(text):
                total += 0.3
            elif text[0] in " '\"" or text[-1] in "'\"":
                total += 0.4
            else:
                total += 0.8
    return total / count if count else 0.0


def _is_comma_number(text: str) -> bool:
    head, comma, tail = text.partition(",")
    return bool(comma) and head.lstrip("-").isdigit() and tail.isdigit()


def _delimiters(sample: bytes, given: Given) -> list[bytes]:
    if given.delimiter is not None:
        return [given.delimiter]
    return [one for one in DELIMITERS if one in sample] or [DELIMITERS[0]]


def _quotes(sample: bytes, delimiter: bytes, given: Given) -> list[bytes]:
    if given.quote is not None:
        return [given.quote]
    found = [b'"']
    single = b"'"
    opens = sample.startswith(single) or delimiter + single in sample or b"\n" + single in sample
    closes = single + delimiter in sample or single + b"\n" in sample or single + b"\r" in sample
    if opens and closes:
        found.append(single)
    return found


def _escapes(sample: bytes, quote: bytes, given: Given) -> list[bytes]:
    if given.escape is not None:
        return [given.escape]
    return [quote, b"\\"] if quote and b"\\" + quote in sample else [quote]


def _skips(sample: bytes, delimiter: bytes, quote: bytes) -> tuple[bool, ...]:
    return (False, True) if quote and delimiter + b" " + quote in sample else (False,)
