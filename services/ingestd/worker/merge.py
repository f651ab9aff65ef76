"""The steps of an upsert over a table's files (`core.merging`): survey, match, rewrite, count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.ingestd.core.checks import quote_name, quote_text
from services.ingestd.core.merging import Merge, join_ranges
from services.ingestd.worker.duck import Session
from services.ingestd.worker.keyed import Relation, read_files

Report = Callable[[str], None]
# The number of an upsert's row beside its key; control characters are in nobody's names.
ROW = "\x01row"
# Ranges nearer to each other than this are read as one: a request costs more. Bytes.
_GAP = 64 * 1024
# Types whose footers' least and greatest values do not cover every value (NaN).
_UNBOUNDED = ("FLOAT", "DOUBLE")
# Keys times files up to which each file is held against every key, not their range alone.
_PAIRS = 20_000_000
# What Parquet packs a row's values to, roughly, for the size of row groups.
_PACKED = 4


def merge(order: Merge, report: Report) -> dict[str, Any]:
    """Does one step.

    Raises:
        LakehouseError: the disk is full, or memory does not do.
    """
    session = Session(Path(order.folder), order.limits)
    try:
        report(order.step)
        merging = Merging(order, session)
        match order.step:
            case "survey":
                return {"files": merging.survey()}
            case "match":
                return {"files": merging.match()}
            case "rewrite":
                return {"parts": merging.rewrite()}
            case "count":
                return {"rows": merging.count()}
    finally:
        session.close()


class Merging:
    """One step with its session."""

    def __init__(self, order: Merge, session: Session) -> None:
        self._order = order
        self._session = session
        self._types = dict(order.columns)

    def survey(self) -> list[list[list[int]] | None]:
        """For each file where its key columns lie, None where it cannot hold any of the keys."""
        self._load_keys()
        self._session.execute(
            "CREATE TEMP TABLE lk_chunks AS SELECT file_name, path_in_schema AS name, "
            "stats_min_value AS least, stats_max_value AS most, "
            "stats_null_count = row_group_num_rows AS empty, "
            "least(data_page_offset, CASE WHEN dictionary_page_offset > 0 "
            "THEN dictionary_page_offset ELSE data_page_offset END) AS start, "
            "total_compressed_size AS length "
            f"FROM parquet_metadata([{', '.join(map(quote_text, self._order.files))}]) "
            f"WHERE path_in_schema IN ({', '.join(map(quote_text, self._order.key))})"
        )
        may = self._find_possible()
        found: list[list[list[int]] | None] = []
        for path in self._order.files:
            ranges = self._session.execute(
                f"SELECT start, length FROM lk_chunks WHERE file_name = {quote_text(path)}"
            ).fetchall()
            joined = join_ranges([(start, length) for start, length in ranges], _GAP)
            found.append([list(one) for one in joined] if path in may else None)
        return found

    def match(self) -> list[str | None]:
        """For each file the list of the upsert's rows whose key it holds, None for none."""
        self._load_keys()
        found: list[str | None] = []
        for number, path in enumerate(self._order.files):
            target = Path(self._order.folder) / f"match-{number}.parquet"
            matching = (
                f"SELECT DISTINCT k.{quote_name(ROW)} AS row FROM lk_keys k "
                f"JOIN {self._read_key(path)} f ON {self._same_key('f', 'k')}"
            )
            written = self._session.execute(
                f"COPY ({matching}) TO {quote_text(str(target))} (FORMAT parquet)"
            ).fetchone()
            rows = int(written[0]) if written else 0
            found.append(str(target) if rows else None)
        return found

    def rewrite(self) -> list[dict[str, Any]]:
        """The files' rows that the upsert does not replace, with all of the table's columns."""
        self._load_keys()
        relation = " UNION ALL BY NAME ".join(map(self._read_whole, self._order.files))
        size = sum(Path(path).stat().st_size for path in self._order.files)
        counted = self._session.execute(
            f"SELECT count(*) FROM {read_files(self._order.files, ', union_by_name=true')}"
        ).fetchone()
        rows = max(1, int(counted[0]) if counted else 1)
        kept = (
            f"(SELECT f.* FROM ({relation}) f WHERE NOT EXISTS "
            f"(FROM lk_keys k WHERE {self._same_key('f', 'k')}))"
        )
        parts = self._session.copy(
            "*",
            Relation(kept, size),
            "",
            self._order.ingest_id,
            max(1, _PACKED * size // rows),
        )
        return [
            {"path": one.path, "sha256": one.sha256, "size": one.size, "rows": one.rows}
            for one in parts
        ]

    def count(self) -> int:
        """How many of the upsert's rows some file matched."""
        if not self._order.files:
            return 0
        found = self._session.execute(
            f"SELECT count(DISTINCT row) FROM {read_files(self._order.files)}"
        ).fetchone()
        return int(found[0]) if found else 0

    # --- inside

    def _load_keys(self) -> None:
        """The upsert's keys, each with a number that is the same in every step."""
        pieces = [
            f"SELECT {number} * 1099511627776 + file_row_number AS {quote_name(ROW)}, "
            f"{', '.join(self._cast(name) for name in self._order.key)} "
            f"FROM {read_files([path], ', file_row_number=true')}"
            for number, path in enumerate(self._order.parts)
        ]
        self._session.execute("CREATE TEMP TABLE lk_keys AS " + " UNION ALL ".join(pieces))

    def _find_possible(self) -> set[str]:
        """Files that may hold a key, by the least and greatest value of each key column."""
        keys = self._order.key
        bounded = [n for n in keys if not self._types[n].upper().startswith(_UNBOUNDED)]
        bounds: list[str] = []
        for number, name in enumerate(keys):
            kind = self._types[name] if name in bounded else "BOOLEAN"
            of = f"FILTER (name = {quote_text(name)} AND NOT coalesce(empty, false))"
            one = f"count(*) {of} = count(TRY_CAST({{}} AS {kind})) {of}"
            for side, pick in (("least", "min"), ("most", "max")):
                known = one.format(side) if name in bounded else "false"
                bounds.append(
                    f"CASE WHEN {known} THEN {pick}(TRY_CAST({side} AS {kind})) {of} END "
                    f"AS {side}_{number}"
                )
            bounds.append(f"count(*) {of} AS chunks_{number}")
        self._session.execute(
            f"CREATE TEMP TABLE lk_bounds AS SELECT file_name, {', '.join(bounds)} "
            "FROM lk_chunks GROUP BY file_name"
        )
        # A file that lacks a key column, or has only NULL in it, matches nothing.
        filled = " AND ".join(f"chunks_{number} > 0" for number in range(len(keys)))
        within = " AND ".join(
            f"(b.least_{number} IS NULL OR b.most_{number} IS NULL OR "
            f"k.{quote_name(name)} BETWEEN b.least_{number} AND b.most_{number})"
            if name in bounded
            else "true"
            for number, name in enumerate(keys)
        )
        ranges = ", ".join(
            f"min({quote_name(n)}) AS least_{i}, max({quote_name(n)}) AS most_{i}"
            for i, n in enumerate(keys)
        )
        overlapping = " AND ".join(
            f"(b.least_{number} IS NULL OR b.most_{number} IS NULL OR "
            f"(r.least_{number} <= b.most_{number} AND r.most_{number} >= b.least_{number}))"
            if name in bounded
            else "true"
            for number, name in enumerate(keys)
        )
        found = self._session.execute(
            f"SELECT b.file_name FROM lk_bounds b, (SELECT {ranges} FROM lk_keys) r "
            f"WHERE {filled} AND {overlapping}"
        ).fetchall()
        paths = {str(row[0]) for row in found}
        counted = self._session.execute("SELECT count(*) FROM lk_keys").fetchone()
        if not counted or counted[0] * len(paths) > _PAIRS:
            return paths
        listed = ", ".join(map(quote_text, sorted(paths))) or "''"
        found = self._session.execute(
            f"SELECT file_name FROM lk_bounds b WHERE file_name IN ({listed}) "
            f"AND EXISTS (FROM lk_keys k WHERE {within})"
        ).fetchall()
        return {str(row[0]) for row in found}

    def _read_key(self, path: str) -> str:
        named = ", ".join(self._cast(name) for name in self._order.key)
        return f"(SELECT {named} FROM {read_files([path])})"

    def _read_whole(self, path: str) -> str:
        """A file's rows with the table's columns, those that it lacks as NULL."""
        described = self._session.execute(f"DESCRIBE FROM {read_files([path])}").fetchall()
        there = {str(row[0]) for row in described}
        wanted = [
            self._cast(name) if name in there else f"CAST(NULL AS {kind}) AS {quote_name(name)}"
            for name, kind in self._order.columns
        ]
        return f"(SELECT {', '.join(wanted)} FROM {read_files([path])})"

    def _cast(self, name: str) -> str:
        """A column in the table's type: older files may have a narrower one."""
        return f"CAST({quote_name(name)} AS {self._types[name]}) AS {quote_name(name)}"

    def _same_key(self, left: str, right: str) -> str:
        return " AND ".join(
            f"{left}.{quote_name(name)} = {right}.{quote_name(name)}" for name in self._order.key
        )
