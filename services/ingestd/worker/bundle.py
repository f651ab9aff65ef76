"""Several files to one table: one after the other, then made alike.

Each file is converted by itself, within the memory that one takes, and all that is kept of it
are its parts. What the files are held against grows with them, so what the first ones became
may lack columns, or have narrower types than those of the end: such parts are written anew,
and small neighbours become one.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from services.ingestd.core.bundle import (
    Bundle,
    Columns,
    Piece,
    begin_again,
    close_columns,
    group_pieces,
    grow_columns,
    join_numbers,
)
from services.ingestd.core.checks import quote_name, quote_text
from services.ingestd.core.job import FileAccount, Outcome, Part
from services.ingestd.core.merging import find_names
from services.ingestd.worker.conversion import MAX_WARNINGS, Report
from services.ingestd.worker.convert import convert
from services.ingestd.worker.duck import COMPRESSION, INGEST_ID_KEY, Session, digest
from services.ingestd.worker.keyed import LAST, LAST_NAME, Relation, read_files
from services.ingestd.worker.meter import METER, Whole
from shared.errors import Conflict, Internal, LakehouseError, Unprocessable

# Parquet is packed; row groups are planned for what it holds.
_PACKED = 4
# How often the files are begun anew because a number type that the first ones gave a new column
# was too narrow. Each time at least one becomes wider, and none becomes narrower.
_ATTEMPTS = 32


def convert_bundle(bundle: Bundle, report: Report) -> Outcome:
    """Converts several files to one table.

    Args:
        bundle: what to do.
        report: told the name of each stage as it begins.

    Raises:
        LakehouseError: one of the files, which it names, or the table does not allow it.
    """
    return _Conversion(bundle, report).run()


class _Wider(Exception):
    """New columns need wider number types than the files so far gave them."""

    def __init__(self, types: dict[str, str]) -> None:
        super().__init__(", ".join(types))
        self.types = types


class _Conversion:
    """One bundle on its way."""

    def __init__(self, bundle: Bundle, report: Report) -> None:
        self._bundle = bundle
        self._report = report
        self._folder = Path(bundle.folder)
        self._outcomes: list[Outcome] = []
        # What each file was held against, to hold it against that again.
        self._tables: list[Columns | None] = []
        self._attempts = 0

    def run(self) -> Outcome:
        """Converts all, then makes their parts alike."""
        # Stages of each file would come and go by the hundred; what is told is how far all are.
        self._report("convert")
        table = first = self._bundle.first_table()
        wider: dict[str, str] = {}
        while True:
            try:
                columns = self._convert_all(table)
                break
            except _Wider as error:
                self._attempts += 1
                wider |= error.types
                table = begin_again(first, self._tables[-1] or (), wider)
        if self._bundle.options.key:
            self._take_out_repeated(columns)
        self._report("join")
        session = Session(self._folder, self._bundle.limits)
        try:
            parts = self._join_parts(session, columns)
            sidecar = self._join_sidecars(session)
        finally:
            session.close()
        return self._finish(columns, parts, sidecar)

    def _convert_all(self, table: Columns | None) -> Columns:
        """Converts each file against what those before it left; gives the columns of the end."""
        for folder in self._folder.iterdir():
            shutil.rmtree(folder)
        self._outcomes.clear()
        self._tables.clear()
        for number in range(len(self._bundle.files)):
            self._measure(number)
            self._tables.append(table)
            try:
                outcome = self._convert(number, table)
            except Conflict as error:
                self._widen(error, number)
                raise
            table = self._check_width(grow_columns(outcome), number)
            self._outcomes.append(outcome)
        return close_columns(table or ())

    def _check_width(self, columns: Columns, number: int) -> Columns:
        """Holds the columns of all files to what one file may have."""
        most = max(self._bundle.limits.columns, len(self._bundle.table or ()))
        if len(columns) > most:
            error = Unprocessable(
                f"With it the files have {len(columns)} columns together; at most {most} are "
                "taken. Do they belong into one table?",
                details={"limit": most},
            )
            raise self._bundle.blame(error, number)
        return columns

    def _widen(self, error: LakehouseError, number: int) -> None:
        """Has the files begun anew where only a new column's number type was too narrow."""
        if self._bundle.options.contract != "evolve" or self._attempts == _ATTEMPTS:
            return
        given = {name for name, _ in self._bundle.first_table() or ()}
        types: dict[str, str] = {}
        for one in error.details.get("columns", ()):
            joined = None
            if one["problem"] == "does_not_fit" and one["column"] not in given:
                joined = join_numbers(one["expected"], one["found"])
            if joined is None:
                return
            types[one["column"]] = joined
        if types and number:
            raise _Wider(types) from error

    def _convert(self, number: int, table: Columns | None, shared: str = "") -> Outcome:
        folder = self._folder / f"file-{number:05d}{'-again' if shared else ''}"
        folder.mkdir()
        try:
            outcome = convert(self._bundle.job(number, str(folder), table, shared), _unheard)
        except LakehouseError as error:
            if error.status >= 500:
                raise
            raise self._bundle.blame(error, number) from error
        return _keep(outcome, folder)

    def _measure(self, number: int) -> None:
        sizes = [file.size for file in self._bundle.files]
        METER.begin_file(
            Whole(
                size=sizes[number],
                before=sum(sizes[:number]),
                total=sum(sizes),
                rows=sum(one.rows_in for one in self._outcomes),
                rejects=sum(one.rejects for one in self._outcomes),
                number=number,
                files=len(sizes),
            )
        )

    def _take_out_repeated(self, columns: Columns) -> None:
        """Of rows of several files with the same key those of the last file count.

        Each file has a key once. Those that have one which a later file has again are converted
        once more, knowing it, so that such rows are among the rejects with line and text.
        """
        shared = self._folder / "shared.parquet"
        session = Session(self._folder, self._bundle.limits)
        try:
            again = self._find_shared(session, columns, shared)
        finally:
            session.close()
        for number in again:
            shutil.rmtree(self._folder / f"file-{number:05d}")
            self._outcomes[number] = self._convert(number, self._tables[number], str(shared))

    def _find_shared(self, session: Session, columns: Columns, shared: Path) -> list[int]:
        """Writes the keys that several files have; gives the files that have rows to lose."""
        types = dict(columns)
        key = find_names(self._bundle.options.key, columns)
        named = ", ".join(quote_name(name) for name in key)
        cast = ", ".join(
            f"CAST({quote_name(name)} AS {types[name]}) AS {quote_name(name)}" for name in key
        )
        last = quote_name(LAST)
        session.execute(f"CREATE TEMP TABLE lk_keys AS SELECT 0 AS {last}, {_nulls(key, types)}")
        session.execute("DELETE FROM lk_keys")
        for number, outcome in enumerate(self._outcomes):
            if outcome.parts:
                read = read_files([part.path for part in outcome.parts])
                session.execute(f"INSERT INTO lk_keys SELECT {number}, {cast} FROM {read}")
        session.execute("CREATE TEMP TABLE lk_files (number INTEGER, name VARCHAR)")
        for number, file in enumerate(self._bundle.files):
            session.execute(f"INSERT INTO lk_files VALUES ({number}, {quote_text(file.name)})")
        session.execute(
            f"CREATE TEMP TABLE lk_shared AS SELECT {named}, max({last}) AS {last} "
            f"FROM lk_keys GROUP BY {named} HAVING count(*) > 1"
        )
        session.execute(
            f"COPY (SELECT s.*, f.name AS {quote_name(LAST_NAME)} "
            f"FROM lk_shared s JOIN lk_files f ON f.number = s.{last}) "
            f"TO {quote_text(str(shared))} (FORMAT parquet, {COMPRESSION})"
        )
        found = session.fetch(
            f"SELECT DISTINCT k.{last} FROM lk_keys k JOIN lk_shared s USING ({named}) "
            f"WHERE k.{last} < s.{last} ORDER BY 1"
        )
        return [int(row[0]) for row in found]

    def _join_parts(self, session: Session, columns: Columns) -> list[Part]:
        """The parts of all files in their order, with the columns of the end."""
        pieces = [
            Piece(part, grow_columns(outcome))
            for outcome in self._outcomes
            for part in outcome.parts
        ]
        parts: list[Part] = []
        for number, group in enumerate(group_pieces(pieces, columns, self._bundle.limits)):
            if len(group) == 1 and group[0].columns == columns:
                parts.append(group[0].part)
                continue
            parts += self._write_group(session, group, columns, number)
        return parts

    def _write_group(
        self, session: Session, group: Sequence[Piece], columns: Columns, number: int
    ) -> list[Part]:
        rows = sum(piece.part.rows for piece in group)
        size = sum(piece.part.size for piece in group)
        relation = Relation(f"({' UNION ALL '.join(_select(group, columns))})", size)
        row_bytes = max(1, _PACKED * size // max(1, rows))
        written = session.copy("*", relation, "", self._bundle.ingest_id, row_bytes)
        if sum(part.rows for part in written) != rows:
            raise Internal(
                f"{rows} rows of several files became {sum(part.rows for part in written)}; "
                "nothing was stored. Please report the files' shapes."
            )
        for piece in group:
            Path(piece.part.path).unlink()
        # Out of the way of the next copy, which removes what the one before left.
        kept = self._folder / f"group-{number:05d}"
        kept.mkdir()
        return [
            replace(part, path=str(Path(part.path).rename(kept / Path(part.path).name)))
            for part in written
        ]

    def _join_sidecars(self, session: Session) -> Part | None:
        """What was left out of any file, as one list in the files' order."""
        found = [outcome.sidecar for outcome in self._outcomes if outcome.sidecar is not None]
        if len(found) < 2:
            return found[0] if found else None
        target = self._folder / "sidecar.parquet"
        session.execute(
            f"COPY (SELECT * FROM {read_files([one.path for one in found])}) "
            f"TO {quote_text(str(target))} (FORMAT parquet, {COMPRESSION}, "
            f"KV_METADATA {{{quote_text(INGEST_ID_KEY)}: {quote_text(self._bundle.ingest_id)}}})"
        )
        rows = sum(one.rows for one in found)
        return Part(str(target), digest(target), target.stat().st_size, rows)

    def _finish(self, columns: Columns, parts: list[Part], sidecar: Part | None) -> Outcome:
        """The outcome, once the parts are sure to hold what each file's account says."""
        found = self._outcomes
        rows_out = sum(part.rows for part in parts)
        if rows_out != sum(one.rows_out for one in found):
            raise Internal(
                f"The files' accounts say {sum(one.rows_out for one in found)} rows, their parts "
                f"hold {rows_out}. Nothing was stored; please report the files' shapes."
            )
        files = tuple(
            FileAccount(file.name, one.rows_in, one.rows_out, one.rejects)
            for file, one in zip(self._bundle.files, found, strict=True)
        )
        warnings = [
            f"{file.name}: {said}"
            for file, one in zip(self._bundle.files, found, strict=True)
            for said in one.warnings
        ]
        if len(warnings) > MAX_WARNINGS:
            more = len(warnings) - MAX_WARNINGS
            warnings = [*warnings[:MAX_WARNINGS], f"There are {more} more warnings like these."]
        seconds: dict[str, float] = {}
        for one in found:
            for name, spent in one.seconds.items():
                seconds[name] = round(seconds.get(name, 0.0) + spent, 4)
        return Outcome(
            parts=tuple(parts),
            sidecar=sidecar,
            rows_in=sum(one.rows_in for one in found),
            rows_out=rows_out,
            rejects=sum(one.rejects for one in found),
            discarded=sum(one.discarded for one in found),
            columns=columns,
            warnings=tuple(warnings),
            seconds=seconds,
            files=files,
        )


def _unheard(_: str) -> None:
    """Stages of one file among several."""


def _keep(outcome: Outcome, folder: Path) -> Outcome:
    """Leaves of a conversion its parts and its list of what was left out; frees the rest."""
    kept = folder.with_name(f"{folder.name}-kept")
    kept.mkdir()

    def move(part: Part, name: str) -> Part:
        return replace(part, path=str(Path(part.path).rename(kept / name)))

    parts = tuple(move(part, f"{n:05d}.parquet") for n, part in enumerate(outcome.parts))
    sidecar = None if outcome.sidecar is None else move(outcome.sidecar, "rejects.parquet")
    shutil.rmtree(folder)
    kept.rename(folder)
    at = [replace(one, path=str(folder / Path(one.path).name)) for one in parts]
    if sidecar is not None:
        sidecar = replace(sidecar, path=str(folder / "rejects.parquet"))
    return replace(outcome, parts=tuple(at), sidecar=sidecar)


def _nulls(key: Sequence[str], types: dict[str, str]) -> str:
    return ", ".join(f"CAST(NULL AS {types[name]}) AS {quote_name(name)}" for name in key)


def _select(group: Sequence[Piece], columns: Columns) -> list[str]:
    """A SELECT for each run of parts with the same columns."""
    runs: list[tuple[Columns, list[str]]] = []
    for piece in group:
        if not runs or runs[-1][0] != piece.columns:
            runs.append((piece.columns, []))
        runs[-1][1].append(piece.part.path)
    return [
        f"SELECT {', '.join(_cast(name, kind, dict(has)) for name, kind in columns)} "
        f"FROM {read_files(paths)}"
        for has, paths in runs
    ]


def _cast(name: str, kind: str, has: dict[str, str]) -> str:
    """A column in the type of the end; one that is open holds no value, or empty texts."""
    quoted = quote_name(name)
    found = has.get(name)
    if found == kind:
        return quoted
    if found is None:
        return f"CAST(NULL AS {kind}) AS {quoted}"
    value = quoted
    if not found and kind != "VARCHAR":
        value = f"nullif({quoted}, '')"
    return f"CAST({value} AS {kind}) AS {quoted}"
