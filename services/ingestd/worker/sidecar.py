"""The Parquet file of what was left out: each line with its number, reason and text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from services.ingestd.core.checks import quote_text
from services.ingestd.core.job import Part
from services.ingestd.core.records import Lines
from services.ingestd.worker.duck import COMPRESSION, INGEST_ID_KEY, Session, digest
from services.ingestd.worker.text import TextFile

# Line, line count, column name or None, reason, message.
Entry = tuple[int, int, str | None, str, str]


def read_entries(path: Path) -> Iterator[Entry]:
    """Entries from JSON lines, as the normaliser lists them."""
    with path.open("rb") as file:
        for line in file:
            number, span, column, reason, message = json.loads(line)
            yield number, span, column, reason, message


def write_sidecar(
    session: Session, entries: Iterable[tuple[Entry, str]], ingest_id: str, name: str = ""
) -> Part:
    """Writes the sidecar.

    Args:
        session: whose folder takes it.
        entries: what was left out with its text, in order of lines.
        ingest_id: goes into the file's metadata.
        name: of the file, where it is one of several; then `file_name` is the first column.

    Columns: line_number BIGINT, column_name, error_type, message, raw_line VARCHAR. Bytes
    that are not UTF-8 show as `\\xNN`.
    """
    listed = session.folder / "sidecar.jsonl"
    target = session.folder / "sidecar.parquet"
    longest = 0
    rows = 0
    with listed.open("wb") as file:
        for entry, raw in entries:
            line, _, column, reason, message = entry
            written = json.dumps(
                {
                    "line_number": line,
                    "column_name": column,
                    "error_type": reason,
                    "message": message,
                    "raw_line": raw,
                }
            ).encode()
            longest = max(longest, len(written))
            rows += 1
            file.write(written + b"\n")
    columns = (
        "{line_number: 'BIGINT', column_name: 'VARCHAR', error_type: 'VARCHAR', "
        "message: 'VARCHAR', raw_line: 'VARCHAR'}"
    )
    named = f"{quote_text(name)} AS file_name, " if name else ""
    session.execute(
        f"COPY (SELECT {named}* FROM read_json({quote_text(str(listed))}, "
        f"format='newline_delimited', columns={columns}, "
        f"maximum_object_size={max(16 * 1024 * 1024, longest + 1024)})) "
        f"TO {quote_text(str(target))} (FORMAT parquet, {COMPRESSION}, "
        f"KV_METADATA {{{quote_text(INGEST_ID_KEY)}: {quote_text(ingest_id)}}})"
    )
    listed.unlink()
    return Part(str(target), digest(target), target.stat().st_size, rows)


def with_text(
    entries: Iterable[Entry], text: TextFile, newline: bytes, limit: int
) -> Iterator[tuple[Entry, str]]:
    """Each entry with the text of its lines; the source is read once, from front to back.

    Args:
        entries: in order of lines.
        newline: what ends a line.
        limit: longest line in bytes.
    """
    lines = Lines(text.blocks(), newline, limit)
    # The lines last read, from number `first`: several entries may be of one line.
    held: list[bytes] = []
    first = 1
    for entry in entries:
        line, span = entry[0], entry[1]
        while first < line:
            if held:
                held.pop(0)
            else:
                lines.next()
            first += 1
        while len(held) < span:
            one = lines.next()
            if one is None:
                break
            held.append(one)
        raw = newline.join(held[:span]).removesuffix(b"\r")
        yield entry, raw.decode("utf-8", "backslashreplace")
