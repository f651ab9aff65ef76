"""What form a file is in: as the caller says, or as its beginning shows."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path

from services.ingestd.core.encoding import begins_parquet
from services.ingestd.core.jsonlines import begins_object, is_json_lines
from services.ingestd.core.options import Options
from services.ingestd.worker.text import TextFile
from shared.errors import UnsupportedMediaType

_BEGINS_MEMBER = re.compile(r'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:')


class Format(Enum):
    """What is read."""

    UNKNOWN = "unknown"
    CSV = "csv"
    JSON_LINES = "jsonl"
    PARQUET = "parquet"


def find_format(source: Path, options: Options) -> Format:
    """Parquet by its first bytes, JSON lines where the query insists, else unknown.

    Raises:
        UnsupportedMediaType: the file is plainly not what the caller says.
    """
    with source.open("rb") as file:
        is_parquet = begins_parquet(file.read(4))
    said = options.format or options.stated
    if is_parquet and said in (None, "parquet"):
        return Format.PARQUET
    if is_parquet:
        raise UnsupportedMediaType(
            f"This is a Parquet file, and the request says {said}. Send it as "
            "application/vnd.apache.parquet or application/octet-stream."
        )
    if said == "parquet":
        raise UnsupportedMediaType(
            "The request says Parquet, and the file is none. Send it as what it is, or as "
            "application/octet-stream."
        )
    return Format.JSON_LINES if options.format == "jsonl" else Format.UNKNOWN


def find_text_format(text: TextFile, options: Options) -> Format:
    """JSON lines by the first lines, else CSV.

    Raises:
        UnsupportedMediaType: it is JSON of another form, or not what the caller says.
    """
    said = options.format or options.stated
    if any(
        one is not None
        for one in (options.delimiter, options.quote, options.escape, options.header)
    ):
        return Format.CSV
    head = text.head().decode("utf-8", "replace")
    if begins_object(head):
        raise UnsupportedMediaType(
            "This is JSON over many lines, not JSON lines. Send an object a line: jq -c . FILE."
        )
    # A first line longer than what was looked at cannot be parsed yet.
    cut = "\n" not in head and len(head) < text.size and bool(_BEGINS_MEMBER.match(head))
    if not cut and not is_json_lines(head):
        if said == "jsonl" and head.strip():
            raise UnsupportedMediaType(
                "The Content-Type says JSON lines, and the first lines are no JSON objects. Pass "
                "format=jsonl if they are damaged and the rest is good."
            )
        return Format.CSV
    if said == "csv":
        raise UnsupportedMediaType(
            "These are JSON lines, not CSV. Send them as application/x-ndjson or "
            "application/octet-stream."
        )
    return Format.JSON_LINES
