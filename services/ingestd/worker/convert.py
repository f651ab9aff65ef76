"""From a file to Parquet: the fast way where the file is regular, else the careful one.

The fast way is one pass: DuckDB reads the file as text and casts each value to the type
guessed for its column, where a cast that would lose something ends the pass. Beside it the
census counts the records. Only if it finds the file regular and the two counts agree is the
result taken; where types were guessed wrong, all rows are profiled first.

The careful way rewrites the file row by row (`normalise`) and then does the same with what
is regular. It is taken for everything odd, and whenever the counts differ.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from services.ingestd.core.census import Counts
from services.ingestd.core.contract import Plan, make_plan
from services.ingestd.core.job import Job, Outcome, Part
from services.ingestd.core.layout import Layout, find_layout
from services.ingestd.core.records import RecordTooLong
from services.ingestd.worker.census import CensusThread, count_file
from services.ingestd.worker.duck import LINE_BYTES, Misfit, Session, Source, Unreadable
from services.ingestd.worker.keyed import make_table
from services.ingestd.worker.normalise import Normalised, normalise
from services.ingestd.worker.sample import sample_rows
from services.ingestd.worker.sidecar import Entry, read_entries, write_sidecar
from services.ingestd.worker.table import Table
from services.ingestd.worker.text import TextFile, is_damaged_utf8, open_text, transcode_cp1252
from services.ingestd.worker.unpack import unpack
from shared.errors import Internal, Unprocessable

Report = Callable[[str], None]
# A file of thousands of columns could have something to say of each.
MAX_WARNINGS = 50


def convert(job: Job, report: Report) -> Outcome:
    """Converts one file.

    Args:
        job: what to do.
        report: told the name of each stage as it begins.

    Raises:
        LakehouseError: the file or the table does not allow it, or the disk is full.
    """
    conversion = Conversion(job, report)
    try:
        return conversion.run()
    except RecordTooLong as error:
        raise Unprocessable(
            f"Line {error.line} is longer than {error.limit} bytes, so this may be no CSV or a "
            "quote may be missing. Mend the line, or raise ingestd.max_record_mb.",
            details={"line": error.line, "limit_bytes": error.limit},
        ) from None
    finally:
        conversion.close()


class Conversion:
    """One file on its way."""

    def __init__(self, job: Job, report: Report) -> None:
        self.job = job
        self.folder = Path(job.folder)
        self.report = report
        self.session = Session(self.folder, job.limits)
        self.seconds: dict[str, float] = {}
        self.warnings: list[str] = []

    def close(self) -> None:
        """Gives memory back."""
        self.session.close()

    def run(self) -> Outcome:
        """The fast way, and if that does not do, the careful one."""
        options = self.job.options
        with self._stage("open"):
            source = unpack(Path(self.job.source), self.folder, self.job.limits)
            text = open_text(source, self.folder, options.encoding)
        while True:
            with self._stage("sniff"):
                layout, table = self._look_at(text)
            if is_fast(layout):
                outcome, counts = self._convert_fast(text, layout, table)
                if outcome is not None:
                    return outcome
            else:
                with self._stage("census"):
                    counts = count_file(text, layout.dialect)
            if counts.is_utf8 or not text.assumed:
                break
            with self._stage("encoding"):
                if is_damaged_utf8(text, self.job.limits.record_bytes):
                    break
                text = transcode_cp1252(text, self.folder)
        return self._convert_carefully(text, layout, table, counts)

    def _look_at(self, text: TextFile) -> tuple[Layout, Table]:
        """How the file is written, and the table it is to become, types as guessed."""
        job = self.job
        head = text.head()
        own_schema = job.options.mode == "replace" and job.options.contract == "evolve"
        known = () if job.table is None or own_schema else tuple(name for name, _ in job.table)
        layout = find_layout(
            head,
            job.options.given(),
            job.options.header,
            known,
            complete=text.start + len(head) >= text.size,
            most=job.limits.columns,
        )
        if layout is None:
            raise Unprocessable("The file holds only blank lines. Send a header and rows.")
        plan: Plan = make_plan(layout.names, job.table, job.options.contract, job.options.mode)
        rows = sample_rows(text, head, layout)
        held = sum(len(cell or b"") + 1 for row in rows for cell in row)
        row_bytes = max(1, held // max(1, len(rows)))
        table = make_table(job.options, layout.names, self.session, plan, row_bytes)
        table.guess(rows)
        return layout, table

    def _convert_fast(
        self, text: TextFile, layout: Layout, table: Table
    ) -> tuple[Outcome | None, Counts]:
        """One pass, taken only if the census agrees with it."""
        source = Source(
            path=text.path,
            dialect=layout.dialect,
            has_header=layout.has_header,
            width=layout.width,
            numbered=False,
            crlf=_ends_in_crlf(text),
            longest=0,
            size=text.size,
        )
        census = CensusThread(text, layout.dialect, self.session.interrupt)
        parts: list[Part] | None = None
        failure: Misfit | Unreadable | None = None
        with self._stage("convert"):
            try:
                parts = table.write(source, self.job.ingest_id)
            except (Misfit, Unreadable) as error:
                failure = error
            finally:
                counts = census.join()
        rows = counts.records - layout.has_header
        regular = (
            counts.is_regular
            and counts.crlf == (counts.line_ends if source.crlf else 0)
            and not (layout.width == 1 and counts.blanks)
            and counts.longest <= self.job.limits.record_bytes
        )
        if regular and failure is not None:
            source = replace(source, longest=counts.longest)
            parts = self._convert_again(source, table, failure)
        if not regular or parts is None or sum(part.rows for part in parts) != rows:
            return None, counts
        if not rows:
            raise Unprocessable("The file has a header and no rows. There is nothing to ingest.")
        if counts.blanks:
            self.warnings.append(f"Empty lines passed over: {counts.blanks}.")
        return self._finish(text, layout, table, counts, parts, None, rows, 0), counts

    def _convert_again(
        self, source: Source, table: Table, failure: Misfit | Unreadable | None
    ) -> list[Part] | None:
        """Further passes over a regular file, knowing what the first failed on.

        Longer lines than DuckDB expects are told to it, and types that were guessed wrong
        are found out. Anything else is left to the careful way.
        """
        profiled = False
        lengthened = source.longest <= LINE_BYTES
        while failure is not None:
            if isinstance(failure, Unreadable):
                if lengthened:
                    return None
                lengthened = True
            elif profiled or table.is_given(failure.column):
                return None
            else:
                profiled = True
                with self._stage("profile"):
                    table.profile(source)
            try:
                with self._stage("convert again"):
                    return table.write(source, self.job.ingest_id)
            except (Misfit, Unreadable) as error:
                failure = error
        return None

    def _convert_carefully(
        self, text: TextFile, layout: Layout, table: Table, counts: Counts
    ) -> Outcome:
        """Row by row, every line accounted for."""
        with self._stage("normalise"):
            regular = normalise(
                text,
                layout,
                self.folder,
                self.job.limits.record_bytes,
                check_text=not counts.is_utf8,
            )
        if not regular.rows:
            raise refuse_all(regular.rejects, read_entries(regular.rejects_path))
        source = Source(
            path=regular.path,
            dialect=regular.dialect,
            has_header=False,
            width=layout.width,
            numbered=True,
            crlf=False,
            longest=regular.longest + 32,
            size=regular.path.stat().st_size,
        )
        with self._stage("convert"):
            try:
                parts = table.write(source, self.job.ingest_id)
            except Misfit:
                table.settle(source)
                parts = table.write(source, self.job.ingest_id)
            except Unreadable as error:
                raise Internal(
                    "ingestd could not read what it had made regular. Nothing was stored; please "
                    "report the file's shape."
                ) from error
        if regular.blanks:
            self.warnings.append(f"Empty lines passed over: {regular.blanks}.")
        if regular.lenient:
            self.warnings.append(
                "Quotes within quoted fields that were not doubled were read as characters, in "
                f"{regular.lenient} rows."
            )
        rows_in = regular.rows + regular.rejects
        return self._finish(
            text, layout, table, counts, parts, regular, rows_in, regular.rejects + table.rejects
        )

    def _finish(
        self,
        text: TextFile,
        layout: Layout,
        table: Table,
        counts: Counts,
        parts: list[Part],
        regular: Normalised | None,
        rows_in: int,
        rejects: int,
    ) -> Outcome:
        """The outcome, once rows and rejects are sure to add up."""
        rows_out = sum(part.rows for part in parts)
        if not rows_out and regular is not None:
            raise refuse_all(rejects, merge_entries(regular, table))
        if rows_in != rows_out + rejects:
            raise Internal(
                f"{rows_in} rows came in, {rows_out} went out and {rejects} are rejects, which "
                "does not add up. Nothing was stored; please report the file's shape."
            )
        sidecar = None
        if regular is not None and (rejects or table.discarded):
            with self._stage("rejects"):
                sidecar = write_sidecar(
                    self.session,
                    text,
                    layout.dialect.newline,
                    merge_entries(regular, table),
                    self.job.ingest_id,
                    self.job.limits.record_bytes,
                )
        warnings = [*text.warnings, *layout.warnings, *self.warnings, *table.warnings()]
        if counts.quoted_empties and table.has_types:
            warnings.append(
                'Fields written "" are empty text in text columns and NULL in the others.'
            )
        if counts.nuls:
            warnings.append(f"{counts.nuls} NUL characters were kept as part of the text.")
        if len(warnings) > MAX_WARNINGS:
            more = len(warnings) - MAX_WARNINGS
            warnings = [*warnings[:MAX_WARNINGS], f"There are {more} more warnings like these."]
        return Outcome(
            parts=tuple(parts),
            sidecar=sidecar,
            rows_in=rows_in,
            rows_out=rows_out,
            rejects=rejects,
            discarded=table.discarded,
            columns=table.columns(),
            warnings=tuple(warnings),
            seconds={name: round(value, 4) for name, value in self.seconds.items()},
        )

    @contextmanager
    def _stage(self, name: str) -> Generator[None]:
        self.report(name)
        begun = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begun
            self.seconds[name] = self.seconds.get(name, 0.0) + spent


def merge_entries(regular: Normalised, table: Table) -> Iterator[Entry]:
    """All that was left out, in order of lines."""
    return heapq.merge(
        read_entries(regular.rejects_path), table.entries(), key=lambda entry: entry[0]
    )


def refuse_all(rejects: int, entries: Iterator[Entry]) -> Unprocessable:
    """The answer to a file without a single usable row."""
    first = list(itertools.islice(entries, 5))
    if not first:
        return Unprocessable("The file has a header and no rows. There is nothing to ingest.")
    return Unprocessable(
        f"None of the {rejects} rows can be used; line {first[0][0]} {first[0][4]}. Nothing was "
        "stored. Are delimiter, quote, header and dataset the right ones?",
        details={
            "rows_in": rejects,
            "rejects": [
                {"line": line, "column": column, "reason": reason, "message": message}
                for line, _, column, reason, message in first
            ],
        },
    )


def is_fast(layout: Layout) -> bool:
    """Whether DuckDB's CSV reader and the census can both follow the layout."""
    return layout.is_regular and len(layout.dialect.delimiter) == 1


def _ends_in_crlf(text: TextFile) -> bool:
    """Whether the first line does; the census tells whether all do."""
    head = text.head()
    end = head.find(b"\n")
    return end > 0 and head[end - 1 : end] == b"\r"
