"""From a file to Parquet, whatever the file is."""

from __future__ import annotations

import shutil
from pathlib import Path

from services.ingestd.core.contract import make_plan
from services.ingestd.core.header import name_columns
from services.ingestd.core.job import Job, Outcome
from services.ingestd.core.records import RecordTooLong
from services.ingestd.core.sources import describe_json
from services.ingestd.worker.conversion import Conversion, Report
from services.ingestd.worker.delimited import Delimited
from services.ingestd.worker.duck import Damaged
from services.ingestd.worker.formats import Format, find_format, find_text_format
from services.ingestd.worker.keyed import make_table
from services.ingestd.worker.parquet import (
    distinct_names,
    open_parquet,
    refuse_count,
    refuse_damaged,
)
from services.ingestd.worker.refusals import merge_entries, refuse_all
from services.ingestd.worker.sidecar import read_entries, with_text
from services.ingestd.worker.text import TextFile, is_damaged_utf8, open_text, transcode_cp1252
from services.ingestd.worker.unpack import unpack
from shared.errors import Unprocessable


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
        return _convert(conversion)
    except RecordTooLong as error:
        raise Unprocessable(
            f"Line {error.line} is longer than {error.limit} bytes, so this may be no table or a "
            "quote may be missing. Mend the line, or raise ingestd.max_record_mb.",
            details={"line": error.line, "limit_bytes": error.limit},
        ) from None
    finally:
        conversion.close()


def _convert(conversion: Conversion) -> Outcome:
    job = conversion.job
    with conversion.stage("open"):
        source = unpack(Path(job.source), conversion.folder, job.limits)
        found = find_format(source, job.options)
        if found is not Format.PARQUET:
            text = open_text(source, conversion.folder, job.options.encoding)
            if found is Format.UNKNOWN:
                found = find_text_format(text, job.options)
    if found is Format.PARQUET:
        return _convert_parquet(conversion, source)
    if found is Format.JSON_LINES:
        return _convert_json(conversion, text)
    return Delimited(conversion).convert(text)


def _convert_json(conversion: Conversion, text: TextFile) -> Outcome:
    """Lines of JSON: read line by line, each accounted for, then as the careful way."""
    # Loaded for who sends such a file: it needs Arrow.
    from services.ingestd.worker.jsonlines import read_json_lines

    limits = conversion.job.limits
    folder = conversion.folder / "json"
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        with conversion.stage("read"):
            found = read_json_lines(text, folder, limits.record_bytes, limits.columns)
        if found.is_utf8 or not text.assumed:
            break
        with conversion.stage("encoding"):
            if is_damaged_utf8(text, limits.record_bytes):
                break
            text = transcode_cp1252(text, conversion.folder)
    if not found.rows.rows and found.rejects:
        raise refuse_all(found.rejects, read_entries(found.rejects_path))
    if not found.names:
        raise Unprocessable(
            "The file holds only blank lines." if not found.lines else "No object has a member."
        )
    names, warnings = name_columns(found.names, len(found.names))
    options = conversion.job.options
    table = make_table(
        conversion.job,
        names,
        conversion.session,
        make_plan(names, conversion.job.table, options.contract, options.mode),
        max(1, found.rows.size // found.rows.rows),
        [
            describe_json(one.kinds, empties=one.empties, nested=one.shape.type)
            for one in found.facts
        ],
    )
    table.guess({index: one.sample for index, one in enumerate(found.facts)})
    parts = conversion.write(found.rows, table)
    if found.blanks:
        conversion.warnings.append(f"Empty lines passed over: {found.blanks}.")
    if found.nuls:
        conversion.warnings.append("NUL characters were kept as part of the text.")
    return conversion.finish(
        table,
        parts,
        found.lines,
        found.rejects + table.rejects,
        [*text.warnings, *warnings],
        lambda: with_text(
            merge_entries(found.rejects_path, table), text, found.newline, limits.record_bytes
        ),
    )


def _convert_parquet(conversion: Conversion, source: Path) -> Outcome:
    """A Parquet file, written anew; its footer's count of rows is held against ours."""
    rows = open_parquet(conversion.session, source, conversion.job.limits.columns)
    if not rows.rows:
        raise Unprocessable("The Parquet file has no rows. There is nothing to ingest.")
    names, warnings = distinct_names(rows)
    options = conversion.job.options
    table = make_table(
        conversion.job,
        names,
        conversion.session,
        make_plan(names, conversion.job.table, options.contract, options.mode),
        # What is packed in there grows; row groups are planned for that.
        max(1, 4 * rows.size // rows.rows),
        rows.sources(),
    )
    table.guess({})
    try:
        parts = conversion.write(rows, table)
    except Damaged as error:
        raise refuse_damaged() from error
    written = sum(part.rows for part in parts)
    if written + table.rejects != rows.rows:
        raise refuse_count(rows.rows, written + table.rejects)
    return conversion.finish(
        table, parts, rows.rows, table.rejects, warnings, lambda: table.entries_with(rows.raw())
    )
