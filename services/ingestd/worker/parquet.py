"""Parquet files that others wrote: looked at with suspicion, then read as rows.

They are always written anew: what readers of a table get to see is what this daemon's
DuckDB wrote, and a footer that lies or harms goes no further than this process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.ingestd.core.casts import stored_type
from services.ingestd.core.checks import quote_text
from services.ingestd.core.header import clean_name, name_columns
from services.ingestd.core.sources import ColumnSource
from services.ingestd.worker.duck import Damaged, Session, column
from shared.errors import Unprocessable

MAGIC = b"PAR1"
_ENCRYPTED = b"PARE"
# The footer's length and the magic word.
_TAIL = 8


@dataclass(frozen=True, slots=True)
class ParquetRows:
    """The rows of a Parquet file: columns c0, c1, … in their own types.

    Attributes:
        path: where it lies.
        names: of its columns as they are written.
        types: of its columns, in DuckDB's words.
        rows: how many its footer says.
        size: bytes in all.
    """

    path: Path
    names: tuple[str, ...]
    types: tuple[str, ...]
    rows: int
    size: int

    def sql(self, *, frugal: bool) -> str:
        """A relation for FROM."""
        del frugal
        names = ", ".join(column(index) for index in range(len(self.names)))
        return (
            f"(SELECT number + 1 AS line, 1::BIGINT AS span, {names} FROM "
            f"{_read(self.path, numbered=True)} AS file({names}, number))"
        )

    def sources(self) -> list[ColumnSource]:
        """What it says of its columns."""
        return [ColumnSource(type=one, literal=True, own=stored_type(one)) for one in self.types]

    def raw(self) -> str:
        """An SQL expression for a row as JSON, under the file's own names."""
        names, _ = name_columns(self.names, len(self.names))
        members = ", ".join(
            f"'{_escape(name)}': {column(index)}" for index, name in enumerate(names)
        )
        return f"to_json({{{members}}})::VARCHAR"


def open_parquet(session: Session, path: Path, most_columns: int) -> ParquetRows:
    """A file's rows, once its footer is read and its types are known to be kept.

    Raises:
        Unprocessable: it is damaged, encrypted, or has types that no table holds.
    """
    size = path.stat().st_size
    _check_ends(path, size)
    session.distrust()
    try:
        rows, encryption = session.fetch(
            "SELECT num_rows, encryption_algorithm FROM "
            f"parquet_file_metadata({quote_text(str(path))})"
        )[0]
        if encryption is not None:
            raise _refuse_encrypted()
        elements = session.fetch(
            "SELECT name, type, coalesce(num_children, 0), coalesce(logical_type, ''), "
            f"coalesce(converted_type, ''), precision FROM parquet_schema({quote_text(str(path))})"
        )
        if len(elements) > most_columns * 50:
            raise _refuse_width(most_columns)
        leaves = _leaves_of(elements)
        described = session.fetch(f"DESCRIBE SELECT * FROM {_read(path, numbered=False)}")
    except Damaged as error:
        raise refuse_damaged() from error
    if len(described) > most_columns:
        raise _refuse_width(most_columns)
    if len(leaves) != len(described) or rows < 0:
        raise refuse_damaged()
    names = tuple(name for name, _ in leaves)
    types = tuple(str(one[1]) for one in described)
    types = tuple(
        # A column that a writer knew no type of: nothing was ever in it.
        "VARCHAR" if all("Null" in logical for _, logical, _, _ in found) else kind
        for kind, (_, found) in zip(types, leaves, strict=True)
    )
    _check_types(names, types, leaves)
    found = ParquetRows(path, names, types, int(rows), size)
    _check_nanoseconds(found, leaves)
    return found


# A leaf of the schema: physical type, logical type, converted type, precision.
Leaf = tuple[str, str, str, int | None]


def _leaves_of(elements: Sequence[tuple[object, ...]]) -> list[tuple[str, list[Leaf]]]:
    """Each column's name and leaves, from the schema's elements in depth-first order."""
    if not elements:
        raise Damaged
    position = 1

    def collect(found: list[Leaf], depth: int) -> None:
        nonlocal position
        if position >= len(elements) or depth > 100:
            raise Damaged
        _, physical, children, logical, converted, precision = elements[position]
        position += 1
        if not isinstance(children, int) or children < 0:
            raise Damaged
        if not children:
            wide = precision if isinstance(precision, int) else None
            found.append((str(physical), str(logical), str(converted), wide))
        for _ in range(children):
            collect(found, depth + 1)

    columns: list[tuple[str, list[Leaf]]] = []
    top = elements[0][2]
    for _ in range(top if isinstance(top, int) else 0):
        if position >= len(elements):
            raise Damaged
        name = str(elements[position][0])
        found: list[Leaf] = []
        collect(found, 0)
        columns.append((name, found))
    if not columns or position != len(elements):
        raise Damaged
    return columns


def _check_types(
    names: Sequence[str], types: Sequence[str], leaves: Sequence[tuple[str, list[Leaf]]]
) -> None:
    problems = [
        {"column": name, "problem": "type", "found": kind, "advice": advice}
        for name, kind, (_, found) in zip(names, types, leaves, strict=True)
        if (advice := _find_problem(kind, found)) is not None
    ]
    if problems:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise Unprocessable(
            f"Column {first['column']!r}{more} is of a type that no table keeps whole: "
            f"{first['advice']}. Nothing was stored.",
            details={"columns": problems[:200]},
        )


def _find_problem(kind: str, leaves: list[Leaf]) -> str | None:
    """What is to be done about a column's type; None if it can be kept."""
    if any(precision is not None and precision > 38 for *_, precision in leaves):
        return "it has more than 38 digits; cast it to DECIMAL(38,s), or to text"
    if stored_type(kind) is None:
        return f"{kind[:100]} has no equal; cast it to text, or leave it out"
    if len(leaves) > 1 and any(physical == "INT96" for physical, *_ in leaves):
        return "a nested INT96; write it as TIMESTAMP in microseconds"
    return None


def _check_nanoseconds(rows: ParquetRows, leaves: Sequence[tuple[str, list[Leaf]]]) -> None:
    """Makes sure that DuckDB, which reads some moments in microseconds, cuts nothing off."""
    suspects = [
        index
        for index, (_, found) in enumerate(leaves)
        if any(physical == "INT96" or "NANOS=Nano" in logical for physical, logical, *_ in found)
    ]
    if not suspects:
        return
    # Loaded for who sends such a file.
    from services.ingestd.worker.nanoseconds import find_nanoseconds

    found = find_nanoseconds(rows.path, suspects)
    if found is not None:
        index, example = found
        raise Unprocessable(
            f"Column {rows.names[index]!r} has nanoseconds, as in {example}, and tables keep "
            "microseconds. Nothing was stored. Round it to microseconds, or cast it to text or "
            "to a number of nanoseconds.",
            details={"columns": [{"column": rows.names[index], "problem": "nanoseconds"}]},
        )


def refuse_damaged() -> Unprocessable:
    """The answer to a file that cannot be read as what it says it is."""
    return Unprocessable(
        "This Parquet file is damaged or cut off: its footer or pages cannot be read. Nothing "
        "was stored. Send it again whole."
    )


def refuse_count(footer: int, found: int) -> Unprocessable:
    """The answer to a file whose footer says another number of rows than there are."""
    return Unprocessable(
        f"The Parquet file's footer says {footer} rows, and its pages hold {found}. Nothing was "
        "stored. Write it anew."
    )


def distinct_names(rows: ParquetRows) -> tuple[tuple[str, ...], list[str]]:
    """Usable names of the columns, and what was changed."""
    names, warnings = name_columns(rows.names, len(rows.names))
    for before, after in zip(rows.names, names, strict=True):
        if clean_name(before) == after != before:
            warnings.append(f"The column {before!r} is called {after!r}.")
    return tuple(names), warnings


def _check_ends(path: Path, size: int) -> None:
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(max(0, size - _TAIL))
        tail = file.read()[-4:]
    if head == _ENCRYPTED or tail == _ENCRYPTED:
        raise _refuse_encrypted()
    if size < 12 or tail != MAGIC:
        raise refuse_damaged()


def _refuse_encrypted() -> Unprocessable:
    return Unprocessable(
        "This Parquet file is encrypted. Nothing was stored. Decrypt it before sending it."
    )


def _refuse_width(most: int) -> Unprocessable:
    return Unprocessable(
        f"The file has too many columns; at most {most} are taken.", details={"limit": most}
    )


def _read(path: Path, *, numbered: bool) -> str:
    number = ", file_row_number=true" if numbered else ""
    return f"read_parquet({quote_text(str(path))}, hive_partitioning=false{number})"


def _escape(name: str) -> str:
    return name.replace("'", "''")
