"""An upsert's own rows: each key once, the last one counts, and none without a key."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.ingestd.core.checks import quote_name, quote_text
from services.ingestd.core.contract import Plan
from services.ingestd.core.job import Job, Part
from services.ingestd.core.sources import ColumnSource
from services.ingestd.worker.duck import Rows, Session, Source, Unreadable
from services.ingestd.worker.sidecar import Entry
from services.ingestd.worker.table import Table
from shared.errors import Unprocessable

# Control characters are taken out of names that callers give, so these are nobody's.
LINE, SPAN = "\x01line", "\x01span"
# In the list of keys that several files have: the last of these, its number and its name.
LAST, LAST_NAME = "\x01last", "\x01last_name"


class OddKeys(Unreadable):
    """Some rows' keys are missing or come again: the careful way tells their lines."""


@dataclass(frozen=True, slots=True)
class Relation:
    """SQL in place of a file: a relation for FROM, and its bytes as far as they are known."""

    text: str
    size: int
    numbered: bool = True

    def sql(self, *, frugal: bool) -> str:
        """The relation; `frugal` makes no difference to it."""
        return self.text


def read_files(paths: Sequence[str | Path], options: str = "") -> str:
    """SQL that reads Parquet files one after the other."""
    listed = ", ".join(quote_text(str(path)) for path in paths)
    return f"read_parquet([{listed}]{options})"


class KeyedTable(Table):
    """A table whose rows are told apart by a key.

    Args:
        job: the conversion; its options' `key` is set.
        names: the file's columns.
        others: as of `Table`.

    Raises:
        Unprocessable: the file has no such column.
    """

    def __init__(
        self,
        job: Job,
        names: Sequence[str],
        session: Session,
        plan: Plan,
        row_bytes: int,
        sources: Sequence[ColumnSource] = (),
    ) -> None:
        self._misfits = self._odd = 0
        super().__init__(session, plan, job.options.contract, row_bytes, sources)
        self._key = find_key(job.options.key, plan, names)
        self._shared, self._number = job.shared, job.number
        self._numbered = False
        self._read: Rows | None = None

    @property
    def rejects(self) -> int:
        """Rows left out: by the contract, and for their keys."""
        return self._misfits + self._odd

    @rejects.setter
    def rejects(self, count: int) -> None:
        self._misfits = count

    def write(self, source: Rows, ingest_id: str) -> list[Part]:
        """Converts all rows, leaving out those whose key is missing or comes again later.

        Raises:
            Misfit: as of `Table`.
            OddKeys: there are such rows, and the source does not tell their lines.
        """
        self._numbered = not (isinstance(source, Source) and not source.numbered)
        self._read = source
        staged = super().write(source, ingest_id)
        if not staged:
            return staged
        if not self._numbered:
            if self._has_odd(staged):
                raise OddKeys
            return staged
        # Out of the way of the next copy, which removes what the one before left.
        folder = Path(staged[0].path).parent
        folder = folder.rename(self.session.folder / "keyed")
        paths = [folder / Path(part.path).name for part in staged]
        self._odd = self._find_odd(paths)
        kept = f"{quote_name(LINE)} NOT IN (SELECT line FROM lk_odd)"
        hidden = f"{quote_name(LINE)}, {quote_name(SPAN)}"
        relation = Relation(
            f"(SELECT * EXCLUDE ({hidden}) FROM {read_files(paths)} WHERE {kept})",
            sum(path.stat().st_size for path in paths),
        )
        return self.session.copy("*", relation, "", ingest_id, self.row_bytes)

    def entries_with(self, raw: str) -> Iterator[tuple[Entry, str]]:
        """What was left out, in order of lines, with the text that `raw` gives."""
        left_out = super().entries_with(raw)
        return heapq.merge(left_out, self._odd_entries(raw), key=lambda one: one[0][0])

    def _pairs(self) -> list[tuple[str, str]]:
        pairs = super()._pairs()
        return [*pairs, ("line", LINE), ("span", SPAN)] if self._numbered else pairs

    def _names(self) -> str:
        return ", ".join(quote_name(name) for name in self._key)

    def _has_odd(self, parts: Sequence[Part]) -> bool:
        read = read_files([part.path for part in parts])
        missing = " OR ".join(f"{quote_name(name)} IS NULL" for name in self._key)
        found = self.session.execute(
            f"SELECT (SELECT count(*) FROM (SELECT 1 FROM {read} WHERE {missing} LIMIT 1)) "
            f"+ (SELECT count(*) FROM (SELECT 1 FROM {read} GROUP BY {self._names()} "
            f"HAVING count(*) > 1 LIMIT 1)){self._count_shared(read)}"
        ).fetchone()
        return bool(found and found[0])

    def _find_odd(self, paths: Sequence[Path]) -> int:
        """Notes odd rows by line, with the line that counts in their place; gives their number."""
        names = self._names()
        line = quote_name(LINE)
        read = read_files(paths)
        missing = " OR ".join(f"{quote_name(name)} IS NULL" for name in self._key)
        self.session.execute(
            f"CREATE OR REPLACE TEMP TABLE lk_again AS SELECT {names}, max({line}) AS last "
            f"FROM {read} WHERE NOT ({missing}) GROUP BY {names} HAVING count(*) > 1"
        )
        shown = ", ".join(f"left(CAST(o.{quote_name(name)} AS VARCHAR), 60)" for name in self._key)
        self.session.execute(
            "CREATE OR REPLACE TEMP TABLE lk_odd AS "
            f"SELECT {line} AS line, {quote_name(SPAN)} AS span, NULL::BIGINT AS last, "
            f"NULL::VARCHAR AS shown, NULL::VARCHAR AS file FROM {read} WHERE {missing} UNION ALL "
            f"SELECT o.{line}, o.{quote_name(SPAN)}, a.last, concat_ws(', ', {shown}), NULL "
            f"FROM {read} o JOIN lk_again a USING ({names}) WHERE o.{line} < a.last"
        )
        if self._shared:
            # Only what would be left of this file: the last row of each key.
            self.session.execute(
                f"INSERT INTO lk_odd SELECT o.{line}, o.{quote_name(SPAN)}, NULL, "
                f"concat_ws(', ', {shown}), s.{quote_name(LAST_NAME)} "
                f"FROM {read} o JOIN {self._later()} s USING ({names}) "
                f"WHERE o.{line} NOT IN (SELECT line FROM lk_odd)"
            )
        found = self.session.execute("SELECT count(*) FROM lk_odd").fetchone()
        return int(found[0]) if found else 0

    def _later(self) -> str:
        """A relation of the keys that a later file has again."""
        read = read_files([self._shared])
        return f"(SELECT * FROM {read} WHERE {quote_name(LAST)} > {self._number})"

    def _count_shared(self, read: str) -> str:
        if not self._shared:
            return ""
        return (
            f" + (SELECT count(*) FROM (SELECT 1 FROM {read} JOIN {self._later()} "
            f"USING ({self._names()}) LIMIT 1))"
        )

    def _odd_entries(self, raw: str) -> Iterator[tuple[Entry, str]]:
        if not self._odd or self._read is None:
            return
        listed = ", ".join(self._key)
        for line, span, last, shown, later, text in self.session.stream_rows(
            "SELECT o.line, o.span, o.last, o.shown, o.file, r.raw FROM lk_odd o JOIN "
            f"(SELECT line, {raw} AS raw FROM {self.session.read(self._read)}) r USING (line) "
            "ORDER BY o.line"
        ):
            reason = "repeated_key"
            if last is not None:
                said = f"has the key {shown!r} again in line {last}, which counts"
            elif later is not None:
                said = f"has the key {shown!r} again in the file {later!r}, which counts"
            else:
                reason, said = "missing_key", f"has no value for its key ({listed})"
            yield (line, span, self._key[0], reason, said), text


def find_key(key: Sequence[str], plan: Plan, names: Sequence[str]) -> tuple[str, ...]:
    """The key's columns as the table names them.

    Raises:
        Unprocessable: the file does not have one of them.
    """
    given = {one.name.casefold(): one.name for one in plan.columns if one.index is not None}
    missing = [name for name in key if name.casefold() not in given]
    if missing:
        raise Unprocessable(
            f"The file has no column {missing[0]!r}, which key names. Its columns are: "
            f"{', '.join(repr(name) for name in names[:50])}.",
            details={"missing": missing, "columns": list(names[:200])},
        )
    return tuple(given[name.casefold()] for name in key)


def make_table(
    job: Job,
    names: Sequence[str],
    session: Session,
    plan: Plan,
    row_bytes: int,
    sources: Sequence[ColumnSource] = (),
) -> Table:
    """The table that a file becomes, with a key where the ingest has one."""
    if job.options.key:
        return KeyedTable(job, names, session, plan, row_bytes, sources)
    return Table(session, plan, job.options.contract, row_bytes, sources)
