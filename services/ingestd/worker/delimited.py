"""CSV and its like to Parquet: the fast way where the file is regular, else the careful one.

The fast way is one pass: DuckDB reads the file as text and casts each value to the type
guessed for its column, where a cast that would lose something ends the pass. Beside it the
census counts the records. Only if it finds the file regular and the two counts agree is the
result taken; where types were guessed wrong, all rows are profiled first.

The careful way rewrites the file row by row (`normalise`) and then does the same with what
is regular. It is taken for everything odd, and whenever the counts differ.
"""

from __future__ import annotations

from dataclasses import replace

from services.ingestd.core.census import Counts
from services.ingestd.core.contract import Plan, make_plan
from services.ingestd.core.job import Outcome, Part
from services.ingestd.core.layout import Layout, decode_cell, find_layout
from services.ingestd.worker.census import CensusThread, count_file
from services.ingestd.worker.conversion import Conversion
from services.ingestd.worker.duck import LINE_BYTES, Misfit, Source, Unreadable
from services.ingestd.worker.keyed import make_table
from services.ingestd.worker.normalise import normalise
from services.ingestd.worker.refusals import merge_entries, refuse_all
from services.ingestd.worker.sample import sample_rows
from services.ingestd.worker.sidecar import read_entries, with_text
from services.ingestd.worker.table import Table
from services.ingestd.worker.text import TextFile, is_damaged_utf8, transcode_cp1252
from shared.errors import Unprocessable


class Delimited:
    """The conversion of a file of delimited text."""

    def __init__(self, conversion: Conversion) -> None:
        self._conversion = conversion
        self._job = conversion.job

    def convert(self, text: TextFile) -> Outcome:
        """The fast way, and if that does not do, the careful one."""
        while True:
            with self._conversion.stage("sniff"):
                layout, table = self._look_at(text)
            if is_fast(layout):
                outcome, counts = self._convert_fast(text, layout, table)
                if outcome is not None:
                    return outcome
            else:
                with self._conversion.stage("census"):
                    counts = count_file(text, layout.dialect)
            if counts.is_utf8 or not text.assumed:
                break
            with self._conversion.stage("encoding"):
                if is_damaged_utf8(text, self._job.limits.record_bytes):
                    break
                text = transcode_cp1252(text, self._conversion.folder)
        return self._convert_carefully(text, layout, table, counts)

    def _look_at(self, text: TextFile) -> tuple[Layout, Table]:
        """How the file is written, and the table it is to become, types as guessed."""
        job = self._job
        head = text.head()
        # The table's names have no say where the file's own schema takes its place.
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
        table = make_table(job, layout.names, self._conversion.session, plan, row_bytes)
        samples = {
            one.index: [decode_cell(row[one.index]) for row in rows]
            for one in plan.columns
            if one.index is not None and one.target is None
        }
        table.guess(samples)
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
        census = CensusThread(text, layout.dialect, self._conversion.session.interrupt)
        parts: list[Part] | None = None
        failure: Misfit | Unreadable | None = None
        with self._conversion.stage("convert"):
            try:
                parts = table.write(source, self._job.ingest_id)
            except (Misfit, Unreadable) as error:
                failure = error
            finally:
                counts = census.join()
        rows = counts.records - layout.has_header
        regular = (
            counts.is_regular
            and counts.crlf == (counts.line_ends if source.crlf else 0)
            and not (layout.width == 1 and counts.blanks)
            and counts.longest <= self._job.limits.record_bytes
        )
        if regular and failure is not None:
            source = replace(source, longest=counts.longest)
            parts = self._convert_again(source, table, failure)
        if not regular or parts is None or sum(part.rows for part in parts) != rows:
            return None, counts
        if not rows:
            raise Unprocessable("The file has a header and no rows. There is nothing to ingest.")
        if counts.blanks:
            self._conversion.warnings.append(f"Empty lines passed over: {counts.blanks}.")
        self._tell_of_csv(counts, table)
        warnings = [*text.warnings, *layout.warnings]
        return self._conversion.finish(table, parts, rows, 0, warnings, None), counts

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
                with self._conversion.stage("profile"):
                    table.profile(source)
            try:
                with self._conversion.stage("convert again"):
                    return table.write(source, self._job.ingest_id)
            except (Misfit, Unreadable) as error:
                failure = error
        return None

    def _convert_carefully(
        self, text: TextFile, layout: Layout, table: Table, counts: Counts
    ) -> Outcome:
        """Row by row, every line accounted for."""
        with self._conversion.stage("normalise"):
            regular = normalise(
                text,
                layout,
                self._conversion.folder,
                self._job.limits.record_bytes,
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
        parts = self._conversion.write(source, table)
        if regular.blanks:
            self._conversion.warnings.append(f"Empty lines passed over: {regular.blanks}.")
        if regular.lenient:
            self._conversion.warnings.append(
                "Quotes within quoted fields that were not doubled were read as characters, in "
                f"{regular.lenient} rows."
            )
        self._tell_of_csv(counts, table)
        return self._conversion.finish(
            table,
            parts,
            regular.rows + regular.rejects,
            regular.rejects + table.rejects,
            [*text.warnings, *layout.warnings],
            lambda: with_text(
                merge_entries(regular.rejects_path, table),
                text,
                layout.dialect.newline,
                self._job.limits.record_bytes,
            ),
        )

    def _tell_of_csv(self, counts: Counts, table: Table) -> None:
        if counts.quoted_empties and table.has_types:
            self._conversion.warnings.append(
                'Fields written "" are empty text in text columns and NULL in the others.'
            )
        if counts.nuls:
            self._conversion.warnings.append(
                f"{counts.nuls} NUL characters were kept as part of the text."
            )


def is_fast(layout: Layout) -> bool:
    """Whether DuckDB's CSV reader and the census can both follow the layout."""
    return layout.is_regular and len(layout.dialect.delimiter) == 1


def _ends_in_crlf(text: TextFile) -> bool:
    """Whether the first line does; the census tells whether all do."""
    head = text.head()
    end = head.find(b"\n")
    return end > 0 and head[end - 1 : end] == b"\r"
