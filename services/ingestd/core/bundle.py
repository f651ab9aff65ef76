"""Several files as one ingest: what is asked of a worker, and how their columns become one table.

The files are taken in their order, each held against the dataset's columns and those that the
files before it brought. A column that no value of any file so far gives a type to is open: the
first file that fills it does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from services.ingestd.core.checks import decimal_of
from services.ingestd.core.job import Job, Limits, Outcome, Part
from services.ingestd.core.options import Options, options_from
from services.ingestd.core.shapes import SHORT_PRECISION
from shared.errors import LakehouseError

# The type of an open column, in place of one.
OPEN = ""
# Relations that one statement joins: each is a plan of its own.
_MOST_SHAPES = 64
# Files of the same bytes that are named.
_MOST_SAID = 10
# Columns of a table, name and type each.
Columns = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One of the files: what callers know it by, where it lies, its bytes."""

    name: str
    source: str
    size: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """Several files to convert to one table.

    Attributes:
        files: in the order in which they are taken.
        folder, ingest_id, options, table, limits: as of `Job`.
    """

    files: tuple[BundleFile, ...]
    folder: str
    ingest_id: str
    options: Options
    table: Columns | None
    limits: Limits

    def to_json(self) -> dict[str, Any]:
        """Plain data; the member `files` tells it from a conversion of one file."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> Bundle:
        """The bundle that `to_json` described."""
        table = values["table"]
        return Bundle(
            files=tuple(BundleFile(**one) for one in values["files"]),
            folder=values["folder"],
            ingest_id=values["ingest_id"],
            options=options_from(values["options"]),
            table=None if table is None else tuple((name, kind) for name, kind in table),
            limits=Limits(**values["limits"]),
        )

    def job(self, number: int, folder: str, table: Columns | None, shared: str = "") -> Job:
        """The conversion of one of the files.

        Args:
            number: its place.
            folder: for what is made of it.
            table: the columns that it is held against.
            shared: as of `Job`.
        """
        options = self.options
        if table is not None and self._takes_any:
            # The first file's schema took the table's place; what comes joins it.
            options = replace(options, mode="append")
        return Job(
            source=self.files[number].source,
            folder=folder,
            ingest_id=self.ingest_id,
            options=options,
            table=table,
            limits=self.limits,
            name=self.files[number].name,
            number=number,
            shared=shared,
        )

    def first_table(self) -> Columns | None:
        """What the first file is held against."""
        return None if self._takes_any else self.table

    @property
    def _takes_any(self) -> bool:
        return self.options.mode == "replace" and self.options.contract == "evolve"

    def describe(self, number: int) -> str:
        """A file as messages name it."""
        return f"File {number + 1} of {len(self.files)}, {self.files[number].name!r}"

    def blame(self, error: LakehouseError, number: int) -> LakehouseError:
        """The same refusal, naming the file that it is of."""
        said = f"{self.describe(number)}: {error.message}"
        if number and self.first_table() is None and error.status == 409:
            said += " The table's columns are here those of the files before it."
        details = {"file": self.files[number].name, "file_number": number + 1, **error.details}
        return type(error)(said, details=details, headers=error.headers)


def combine_digests(digests: Sequence[str]) -> str:
    """What names an input: one file's SHA-256 as it is, several by theirs in their order."""
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("\n".join(("lakehouse.files", *digests)).encode()).hexdigest()


def find_repeated(digests: Sequence[str], names: Sequence[str]) -> list[str]:
    """That files hold the same bytes, a sentence for each that comes again."""
    first: dict[str, int] = {}
    found: list[str] = []
    for number, digest in enumerate(digests):
        before = first.setdefault(digest, number)
        if before != number:
            found.append(
                f"File {number + 1}, {names[number]!r}, holds the same bytes as file {before + 1}, "
                f"{names[before]!r}; both were taken."
            )
    if len(found) > _MOST_SAID:
        more = len(found) - _MOST_SAID
        found = [*found[:_MOST_SAID], f"So do {more} more files."]
    return found


def grow_columns(outcome: Outcome) -> Columns:
    """What the next file is held against: a file's columns, those that are open marked so."""
    return tuple((name, OPEN if name in outcome.open else kind) for name, kind in outcome.columns)


def close_columns(columns: Columns) -> Columns:
    """The table's columns in the end: what nothing ever filled is text."""
    return tuple((name, kind or "VARCHAR") for name, kind in columns)


def join_numbers(expected: str, found: str) -> str | None:
    """A wider number type that may hold values of both; None where there is none.

    Only for columns that no dataset has yet. Whether it does hold them is then seen value by
    value, and a DECIMAL gets more digits if need be (`contract.widen`).
    """
    one, other = decimal_of(expected), decimal_of(found)
    if other and (expected == "BIGINT" or (one and one[1] < other[1])):
        precision = max(SHORT_PRECISION, other[0], one[0] if one else 0)
        return f"DECIMAL({precision},{other[1]})"
    if found == "DOUBLE" and (expected == "BIGINT" or one):
        return "DOUBLE"
    return None


def begin_again(table: Columns | None, found: Columns, wider: Mapping[str, str]) -> Columns:
    """What the first file is held against once columns are known to need a wider type.

    Args:
        table: what it was held against.
        found: the columns of all files up to the one that needs it.
        wider: the types; other columns that the table does not have are open.
    """
    given = dict(table or ())
    return tuple((name, given.get(name, wider.get(name, OPEN))) for name, _ in found)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part as it was converted, with the columns that it has."""

    part: Part
    columns: Columns


def group_pieces(pieces: Iterable[Piece], columns: Columns, limits: Limits) -> list[list[Piece]]:
    """Neighbours that are written as one part; a part that is large and right is left alone.

    Many small files would otherwise be many small parts, each a file to open for every query.
    """
    groups: list[list[Piece]] = []
    held: list[Piece] = []
    size = shapes = 0

    def flush() -> None:
        nonlocal size, shapes
        if held:
            groups.append(list(held))
        held.clear()
        size = shapes = 0

    for piece in pieces:
        if piece.columns == columns and piece.part.size >= limits.part_bytes // 4:
            flush()
            groups.append([piece])
            continue
        new_shape = not held or held[-1].columns != piece.columns
        if size + piece.part.size > limits.part_bytes // 2 or shapes + new_shape > _MOST_SHAPES:
            flush()
            new_shape = True
        held.append(piece)
        size += piece.part.size
        shapes += new_shape
    flush()
    return groups
