"""Whether a file's first record is a header, and the column names that come of it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from services.ingestd.core.ladder import Profile, choose_type, profile_values

# The longest column name kept, in characters.
MAX_NAME = 255
# What people write where a value is missing; says nothing about headers.
_MISSING = frozenset({"na", "n/a", "nan", "null", "none", "-", "--", "?", ".", "nil", "#n/a"})
_DIGITS = re.compile(r"[0-9]+")
_LETTERS = re.compile(r"[^\W\d_]+")
_BLANKS = re.compile(r"\s+")
_YEAR = re.compile(r"(?:19|20)[0-9]{2}")

Rows = Sequence[Sequence[str | None]]


def is_header(first: Sequence[str | None], rows: Rows) -> bool:
    """Whether `first` names the columns of `rows` and is no row itself.

    A cell speaks for a header when it is text over a column of numbers, dates or codes of
    one form; it speaks against one when it is itself such a value. Without either sign a
    record whose cells do not come again is a header, as most files have one. In doubt a row
    stays a row, so that none is lost; a run of years over other numbers is the exception.
    """
    if not any(first):
        return False
    speaks_for = speaks_against = 0
    recurring = False
    for index, cell in enumerate(first):
        column = [row[index] for row in rows if index < len(row)]
        present = [value for value in column if value]
        if not cell or not present:
            continue
        own, profile = profile_values([cell]), profile_values(present)
        if _is_typed(profile):
            if _is_typed(own):
                speaks_against += 1
            elif cell.strip().lower() not in _MISSING:
                speaks_for += 1
        elif _is_typed(own):
            speaks_against += 1
        elif (shape := _common_shape(present)) is not None:
            if _shape_of(cell) == shape:
                speaks_against += 1
            else:
                speaks_for += 1
        elif len(present) > 1 and cell in present:
            recurring = True
    if speaks_for > speaks_against:
        return True
    if speaks_against:
        return _are_year_headings(first, rows)
    return not recurring


def _is_typed(profile: Profile) -> bool:
    """Whether nearly all values have a type (a few missing-value words do no harm)."""
    if not profile.values:
        return False
    typed = max(
        *profile.booleans,
        profile.decimals,
        profile.doubles,
        profile.dates,
        profile.timestamps,
        profile.timestamptzs,
    )
    return choose_type(profile) != "VARCHAR" or typed >= 0.9 * profile.values


def _shape_of(value: str) -> str:
    """`W-0012` and `X-77` are both `a-9`."""
    return _BLANKS.sub(" ", _LETTERS.sub("a", _DIGITS.sub("9", value)))


def _common_shape(values: Sequence[str]) -> str | None:
    """The shape that nearly all values share, if it has digits or marks (a code, not words)."""
    seen: dict[str, int] = {}
    for value in values:
        shape = _shape_of(value)
        seen[shape] = seen.get(shape, 0) + 1
    shape, count = max(seen.items(), key=lambda item: item[1])
    if count < 0.9 * len(values) or not set(shape) - set("a _"):
        return None
    return shape


def _are_year_headings(first: Sequence[str | None], rows: Rows) -> bool:
    """Whether the cells are words and a run of years, as over a pivoted table."""
    years = [int(cell) for cell in first if cell and _YEAR.fullmatch(cell)]
    words = [cell for cell in first if cell and not profile_values([cell]).is_numeric]
    if len(years) < 2 or not words or len(years) + len(words) != len(first):
        return False
    steps = {later - earlier for earlier, later in itertools.pairwise(years)}
    if steps not in ({1}, {-1}):
        return False
    below = [value for row in rows for value in row[: len(first)] if value]
    return not any(_YEAR.fullmatch(value) for value in below)


def name_columns(cells: Sequence[str | None], width: int) -> tuple[list[str], list[str]]:
    """Usable, distinct column names from a header's cells, and warnings of what was changed.

    Names stay as given but for surrounding blanks, byte order marks and control characters.
    SQL does not tell upper from lower case, so names that differ in nothing else are
    numbered (`name`, `name_2`); a missing name becomes `column_N`.
    """
    warnings: list[str] = []
    names: list[str] = []
    # Names given once keep their spelling, so numbers are chosen around all of them.
    taken: set[str] = set()
    numbers: dict[str, int] = {}
    cleaned = [clean_name(cells[index] if index < len(cells) else None) for index in range(width)]
    given = {name.casefold() for name in cleaned if name}
    for index, name in enumerate(cleaned):
        chosen = name or f"column_{index + 1}"
        base = chosen
        # A number is only ever added, never taken from a name that another column has.
        made = not name
        while chosen.casefold() in taken or (made and chosen.casefold() in given):
            made = True
            number = numbers.get(base.casefold(), 1) + 1
            numbers[base.casefold()] = number
            chosen = f"{base[: MAX_NAME - 12]}_{number}"
        if not name and index < len(cells):
            warnings.append(f"Column {index + 1} has no name and is called {chosen!r}.")
        elif name and chosen != name:
            warnings.append(
                f"The name {name!r} occurs more than once (upper and lower case are alike); "
                f"column {index + 1} is called {chosen!r}."
            )
        taken.add(chosen.casefold())
        names.append(chosen)
    return names, warnings


def clean_name(cell: str | None) -> str:
    """A header's cell without what no name should carry; empty when nothing is left."""
    if not cell:
        return ""
    printable = "".join(
        " " if character < " " or "\x7f" <= character <= "\x9f" else character
        for character in cell.replace("\ufeff", "")
    )
    return printable.strip()[:MAX_NAME].strip()
