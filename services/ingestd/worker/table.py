"""The table that a file becomes: types guessed, found out or given, and what does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from services.ingestd.core.checks import (
    Target,
    convert_or,
    expect_null,
    fits,
    profile_column,
)
from services.ingestd.core.contract import Misfit as ColumnMisfit
from services.ingestd.core.contract import Plan, Planned, refuse_values, widen
from services.ingestd.core.job import Part
from services.ingestd.core.ladder import (
    Profile,
    describe_mixed,
    describe_offsets,
    describe_text,
    profile_values,
)
from services.ingestd.core.nested import is_nested
from services.ingestd.core.sources import ColumnSource, warn_of_kinds
from services.ingestd.worker.duck import Rows, Session, column, raise_misfit, select_list
from services.ingestd.worker.sidecar import Entry

if TYPE_CHECKING:
    from shared.wire.ingestd import Contract

# Columns profiled in one pass: each takes more than a dozen aggregates.
_AT_ONCE = 100
# From so many columns, or bytes of a row, on several threads are known to need too much memory.
WIDE = 500
LONG = 256 * 1024
# Characters of a value that a message shows.
_SHOWN = 100
_TEXT = Target("VARCHAR")
_NOTHING_SAID = ColumnSource()


class Table:
    """What one file's rows are converted to.

    Args:
        session: runs the SQL.
        plan: the columns.
        contract: what becomes of values that do not fit a table that exists.
        row_bytes: bytes of an average row.
        sources: what the file says of its columns; nothing where it is CSV.

    `rejects` and `discarded` count what the contract left out, after `settle`.
    """

    def __init__(
        self,
        session: Session,
        plan: Plan,
        contract: Contract,
        row_bytes: int,
        sources: Sequence[ColumnSource] = (),
    ) -> None:
        self.session = session
        self._sources = sources
        self.plan = plan
        self.contract = contract
        self.row_bytes = row_bytes
        self.rejects = 0
        self.discarded = 0
        # Types of the columns that no table gives; None stands for never filled.
        self._guesses: dict[int, Target | None] = {}
        self._samples: dict[int, list[str | None]] = {}
        self._profiles: dict[int, Profile] = {}
        self._settled = False
        self._said: list[str] = []
        self._source: Rows | None = None

    def guess(self, samples: Mapping[int, list[str | None]]) -> None:
        """Guesses the types that the file gives from samples of its columns."""
        for planned in self.plan.columns:
            index = planned.index
            if planned.target is not None or index is None:
                continue
            source = self._source_of(index)
            if not source.is_open:
                self._guesses[index] = source.fixed()
                continue
            values = samples.get(index, [])
            profile = profile_values(values, literal=source.literal)
            self._samples[index] = values
            self._guesses[index] = source.choose(profile) if profile.values else None

    @property
    def has_types(self) -> bool:
        """Whether any column is not text."""
        return any(kind != "VARCHAR" for _, kind in self.columns())

    def columns(self) -> tuple[tuple[str, str], ...]:
        """Name and type of each column."""
        return tuple((one.name, self._target(one).type) for one in self.plan.columns)

    def open_columns(self) -> tuple[str, ...]:
        """Columns without a type of their own: none of the file's values gave them one."""
        return tuple(
            one.name
            for one in self.plan.columns
            if one.target is None and (one.index is None or self._is_empty(one.index))
        )

    def _is_empty(self, index: int) -> bool:
        profile = self._profiles.get(index)
        return self._guesses[index] is None or (profile is not None and not profile.values)

    def is_given(self, index: int) -> bool:
        """Whether a file column's type, or its absence, is the table's to say."""
        return index not in self._guesses

    def write(self, source: Rows, ingest_id: str) -> list[Part]:
        """Converts all rows, or those that the contract lets in.

        Raises:
            Misfit: a value does not hold to its column's type, and `settle` or `profile`
                has not been told of it.
        """
        pairs = self._pairs()
        if (len(pairs) > WIDE or self.row_bytes > LONG) and not self.session.frugal:
            self.session.save_memory()
        return self.session.copy(
            select_list(pairs), source, self._where(), ingest_id, self.row_bytes
        )

    def _pairs(self) -> list[tuple[str, str]]:
        """Expression and name of each column that is written."""
        return [(self._convert(one), one.name) for one in self.plan.columns]

    def profile(self, source: Rows) -> None:
        """Finds out over all rows the types that were only guessed."""
        unsure = [
            index
            for index, guess in self._guesses.items()
            if self._source_of(index).is_open and (guess is None or not guess.is_text)
        ]
        for index, profile in self._profile(source, unsure).items():
            self._profiles[index] = profile
            own = self._source_of(index).choose(profile)
            self._guesses[index] = own if profile.values else _TEXT
        for index, guess in self._guesses.items():
            if guess is not None and is_nested(guess.type) and guess.source == "VARCHAR":
                self._check_nested(source, index, guess)

    def _check_nested(self, source: Rows, index: int, guess: Target) -> None:
        """Leaves a column JSON text if some value's JSON is not its type's."""
        condition = fits(guess, column(index))
        odd, example = self.session.fetch_row(
            f"count(*) FILTER (NOT {condition}), "
            f"arg_min(left({column(index)}, 60), line) FILTER (NOT {condition})",
            source,
        )
        if odd:
            self._guesses[index] = _TEXT
            self._said.append(
                f"Column {self._name_of(index)!r} stays JSON text: {odd} values, like {example!r}, "
                f"are no {guess.type[:200]}."
            )

    def settle(self, source: Rows) -> None:
        """Decides over all rows what becomes of values that do not fit.

        Args:
            source: with line numbers.

        Raises:
            Conflict: the contract refuses them; every column is named.
        """
        self.profile(source)
        misfits, rows = self._find_misfits(source)
        if misfits and self.contract == "evolve":
            self._widen(misfits)
            misfits, rows = self._find_misfits(source)
        if misfits and self.contract in ("freeze", "evolve"):
            raise refuse_values(misfits, self.contract)
        if self.contract == "discard_row":
            self.rejects = rows
        else:
            self.discarded = sum(one.count for one in misfits)
        self._settled = True
        self._source = source

    def entries(self) -> Iterator[Entry]:
        """What the contract left out, in order of lines, for the sidecar."""
        return (entry for entry, _ in self.entries_with("''"))

    def entries_with(self, raw: str) -> Iterator[tuple[Entry, str]]:
        """The same, each with the row's text as the SQL expression `raw` gives it."""
        if self._source is None or not (self.rejects or self.discarded):
            return
        tests = [
            f"CASE WHEN NOT {condition} THEN {{'i': {index}, 'v': {self._show(index, _SHOWN)}}} END"
            for index, condition in self._conditions()
        ]
        found = f"list_filter([{', '.join(tests)}], x -> x IS NOT NULL)"
        query = (
            "SELECT line, span, found, raw "
            f"FROM (SELECT line, span, {found} AS found, {raw} AS raw "
            f"FROM {self.session.read(self._source)}) WHERE len(found) > 0 ORDER BY line"
        )
        for line, span, misfits, text in self.session.stream_rows(query):
            described = [self._describe(one["i"], one["v"]) for one in misfits]
            if self.contract == "discard_row":
                reason = "does_not_fit"
                message = "; ".join(said for _, said in described)
                yield (line, span, described[0][0], reason, message), text
            else:
                for name, said in described:
                    yield (line, span, name, "discarded_value", said), text

    def warnings(self) -> list[str]:
        """Why columns stay text, and what was left out."""
        found: list[str] = [*self.plan.warnings, *self._said]
        for planned in self.plan.columns:
            if planned.index is None:
                continue
            source = self._source_of(planned.index)
            if self._target(planned).is_text and (said := warn_of_kinds(planned.name, source)):
                found.append(said)
            if planned.index not in self._samples:
                continue
            values = self._samples[planned.index]
            kind = self._target(planned).type
            said: str | None = None
            if kind == "VARCHAR":
                profile = self._profiles.get(planned.index)
                said = (None if source.literal else describe_text(planned.name, values)) or (
                    describe_mixed(planned.name, profile) if profile else None
                )
            elif kind == "TIMESTAMPTZ":
                said = describe_offsets(planned.name, values)
            if said:
                found.append(said)
        if self.discarded:
            found.append(
                f"{self.discarded} values did not fit the table and were left out of their rows; "
                "the object named under rejects lists them."
            )
        return found

    def _target(self, planned: Planned) -> Target:
        if planned.target is not None:
            if planned.index is None:
                return planned.target
            return self._source_of(planned.index).given(planned.target)
        if planned.index is None:
            return _TEXT
        return self._guesses[planned.index] or _TEXT

    def _source_of(self, index: int) -> ColumnSource:
        return self._sources[index] if self._sources else _NOTHING_SAID

    def _show(self, index: int, most: int) -> str:
        """The beginning of a value's text."""
        return f"left(CAST({column(index)} AS VARCHAR), {most})"

    def _convert(self, planned: Planned) -> str:
        """The SQL expression of one column's values."""
        target = self._target(planned)
        if planned.index is None:
            return f"CAST(NULL AS {target.type})"
        text = column(planned.index)
        if planned.target is None and self._guesses[planned.index] is None:
            return expect_null(text, raise_misfit(planned.index))
        discards = self._settled and self.contract == "discard_value" and planned.target is not None
        return convert_or(target, text, "NULL" if discards else raise_misfit(planned.index))

    def _where(self) -> str:
        """Which rows are let in; before `settle`, that no row is left out unnoticed."""
        if self._settled:
            if self.contract != "discard_row":
                return ""
            return " WHERE " + (" AND ".join(one for _, one in self._conditions()) or "true")
        if not self.plan.unknown:
            return ""
        filled = " AND ".join(f"{column(index)} IS NULL" for index in self.plan.unknown)
        return f" WHERE CASE WHEN {filled} THEN true ELSE {raise_misfit(self.plan.unknown[0])} END"

    def _conditions(self) -> list[tuple[int, str]]:
        """What must hold of a row that fits, by file column."""
        held: list[tuple[int, str]] = []
        for planned in self.plan.columns:
            if planned.index is None or planned.target is None:
                continue
            target = self._target(planned)
            if not target.is_text:
                held.append((planned.index, fits(target, column(planned.index))))
        held += [(index, f"({column(index)} IS NULL)") for index in self.plan.unknown]
        return held

    def _find_misfits(self, source: Rows) -> tuple[list[ColumnMisfit], int]:
        """Columns with values that do not fit, and how many rows have any."""
        conditions = self._conditions()
        if not conditions:
            return [], 0
        wanted = [f"count(*) FILTER (NOT ({' AND '.join(one for _, one in conditions)}))"]
        for index, condition in conditions:
            odd = f"FILTER (NOT {condition})"
            wanted += [
                f"count(*) {odd}",
                f"min(line) {odd}",
                f"arg_min({self._show(index, 200)}, line) {odd}",
            ]
        rows, *figures = self.session.fetch_row(", ".join(wanted), source)
        found = [
            (index, *figures[3 * place : 3 * place + 3])
            for place, (index, _) in enumerate(conditions)
            if figures[3 * place]
        ]
        profiles = self._profile(
            source, [one[0] for one in found if self._source_of(one[0]).own is None]
        )
        misfits = [
            ColumnMisfit(
                column=self._name_of(index),
                expected=self._expected(index),
                found=self._found(index, profiles.get(index)),
                count=count,
                example=example,
                line=line,
            )
            for index, count, line, example in found
        ]
        return misfits, rows

    def _found(self, index: int, profile: Profile | None) -> str:
        """The narrowest type that all values of a column fit."""
        source = self._source_of(index)
        return source.fixed().type if profile is None else source.choose(profile).type

    def _widen(self, misfits: Sequence[ColumnMisfit]) -> None:
        """Widens the columns that can be; the others keep their type and are refused."""
        wider = {one.column: widen(one.expected, one.found) for one in misfits}
        targets = {
            planned.index: Target(kind)
            for planned in self.plan.columns
            if planned.index is not None and (kind := wider.get(planned.name)) is not None
        }
        self.plan = self.plan.with_targets(targets)

    def _profile(self, source: Rows, indices: Sequence[int]) -> dict[int, Profile]:
        found: dict[int, Profile] = {}
        for start in range(0, len(indices), _AT_ONCE):
            some = indices[start : start + _AT_ONCE]
            wanted = [
                one
                for index in some
                for one in profile_column(column(index), literal=self._source_of(index).literal)
            ]
            row = self.session.fetch_row(", ".join(wanted), source)
            width = len(row) // len(some)
            for place, index in enumerate(some):
                figures = row[place * width : (place + 1) * width]
                found[index] = Profile(tuple(figures[:3]), *figures[3:])
        return found

    def _name_of(self, index: int) -> str:
        for planned in self.plan.columns:
            if planned.index == index:
                return planned.name
        return self.plan.unknown_names[self.plan.unknown.index(index)]

    def _expected(self, index: int) -> str:
        for planned in self.plan.columns:
            if planned.index == index:
                return self._target(planned).type
        return "no such column"

    def _describe(self, index: int, value: str) -> tuple[str, str]:
        name = self._name_of(index)
        if index in self.plan.unknown:
            return name, f"has {value!r} in {name!r}, and the table has no such column"
        return name, f"has {value!r} in {name!r}, which does not fit {self._expected(index)}"
