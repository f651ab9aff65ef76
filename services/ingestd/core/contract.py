"""How a file's columns go with those of a table that exists.

Columns are matched by name, upper and lower case alike. What happens to a column or value
that does not go with the table is the contract's to say:

| contract | new column | missing column | value that does not fit |
|---|---|---|---|
| freeze | 409 | 409 | 409 |
| evolve | added | NULL | type widened without loss, else 409 |
| discard_row | rows that fill it are rejects | NULL | its row is a reject |
| discard_value | left out, its values listed | NULL | NULL, the value listed |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from services.ingestd.core.checks import Target, decimal_of, normalise_type
from services.ingestd.core.shapes import MAX_PRECISION
from shared.errors import Conflict

if TYPE_CHECKING:
    from shared.wire.ingestd import Contract, Mode

# How many columns a refusal describes at most.
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Planned:
    """One column of the table to be written.

    Attributes:
        name: as the table has it, or as the file names it when it is new.
        index: of the file's column, None where the file has none.
        target: what its values are converted to, None to be found out from them; text where
            there are none.
    """

    name: str
    index: int | None
    target: Target | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What the file becomes.

    Attributes:
        columns: of the table to be written, in order.
        unknown: indices of file columns that the table does not have and does not get.
        unknown_names: their names in the file.
        warnings: what the caller should know.
    """

    columns: tuple[Planned, ...]
    unknown: tuple[int, ...] = ()
    unknown_names: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def with_targets(self, targets: dict[int, Target]) -> Plan:
        """The plan with targets by file column put in."""
        return replace(
            self,
            columns=tuple(
                replace(one, target=targets[one.index])
                if one.index is not None and one.index in targets
                else one
                for one in self.columns
            ),
        )


def make_plan(
    names: Sequence[str],
    table: Sequence[tuple[str, str]] | None,
    contract: Contract,
    mode: Mode,
) -> Plan:
    """Matches the file's columns with the table's.

    Args:
        names: the file's columns, distinct without regard to case.
        table: name and type of the table's columns, None if there is no table. A type that is
            "" is open: the file's values decide.

    Raises:
        Conflict: the contract does not allow the difference; names every column.
    """
    if table is None or (mode == "replace" and contract == "evolve"):
        return Plan(tuple(Planned(name, index, None) for index, name in enumerate(names)))
    by_name = {name.casefold(): index for index, name in enumerate(names)}
    columns: list[Planned] = []
    missing: list[str] = []
    for name, type_name in table:
        index = by_name.pop(name.casefold(), None)
        if index is None:
            missing.append(name)
        target = Target(normalise_type(type_name)) if type_name else None
        columns.append(Planned(name, index, target))
    unknown = tuple(sorted(by_name.values()))
    if contract == "freeze" and (missing or unknown):
        raise refuse_columns([names[index] for index in unknown], missing, dict(table))
    warnings: list[str] = []
    if missing:
        listed = ", ".join(repr(name) for name in missing[:20])
        warnings.append(f"The file has no column {listed}: NULL in these rows.")
    if contract == "evolve":
        columns += [Planned(names[index], index, None) for index in unknown]
        unknown = ()
    left_out = tuple(names[index] for index in unknown)
    return Plan(tuple(columns), unknown, left_out, tuple(warnings))


@dataclass(frozen=True, slots=True)
class Misfit:
    """Values of one column that do not fit.

    Attributes:
        column: its name in the table.
        expected: its type there.
        found: the narrowest type that all of the file's values fit.
        count: how many do not fit.
        example: the first of them, on `line`.
    """

    column: str
    expected: str
    found: str
    count: int
    example: str
    line: int


def widen(expected: str, found: str) -> str | None:
    """The type that holds both a table's values and a file's, where one does without loss.

    Only what Iceberg allows: INTEGER to BIGINT, FLOAT to DOUBLE, more digits for a DECIMAL.
    """
    if expected == "INTEGER" and found == "BIGINT":
        return "BIGINT"
    if expected == "FLOAT" and (found in ("BIGINT", "DOUBLE") or decimal_of(found)):
        return "DOUBLE"
    table = decimal_of(expected)
    if table and table[0] < MAX_PRECISION and (found == "BIGINT" or decimal_of(found)):
        scale = (decimal_of(found) or (0, 0))[1]
        if scale <= table[1]:
            return f"DECIMAL({MAX_PRECISION},{table[1]})"
    return None


def refuse_columns(new: list[str], missing: list[str], types: dict[str, str]) -> Conflict:
    """The 409 for columns that only one of file and table has."""
    problems: list[dict[str, Any]] = [
        {"column": name, "problem": "new", "expected": None} for name in new
    ]
    problems += [
        {"column": name, "problem": "missing", "expected": types[name] or None} for name in missing
    ]
    parts: list[str] = []
    if new:
        parts.append("the table has no column " + ", ".join(repr(name) for name in new[:20]))
    if missing:
        parts.append("the file has no column " + ", ".join(repr(name) for name in missing[:20]))
    return Conflict(
        f"The file does not have the table's columns: {' and '.join(parts)}. Nothing was "
        "written. Pass contract=evolve to add new columns and leave missing ones NULL.",
        details={"columns": problems[:_SHOWN]},
    )


def refuse_values(misfits: Sequence[Misfit], contract: Contract) -> Conflict:
    """The 409 for values that do not fit the table's types."""
    first = misfits[0]
    others = f" (and of {len(misfits) - 1} more)" if len(misfits) > 1 else ""
    advice = "contract=discard_row keeps such rows as rejects, discard_value makes them NULL."
    if contract == "freeze":
        advice = f"contract=evolve widens a type where that loses nothing; {advice}"
    return Conflict(
        f"Values of column {first.column!r}{others} do not fit the table: it is "
        f"{first.expected}, and line {first.line} has {first.example[:100]!r}. Nothing was "
        f"written. {advice}",
        details={
            "columns": [
                {
                    "column": one.column,
                    "problem": "does_not_fit",
                    "expected": one.expected,
                    "found": one.found,
                    "count": one.count,
                    "example": one.example[:200],
                    "line": one.line,
                }
                for one in misfits[:_SHOWN]
            ]
        },
    )
