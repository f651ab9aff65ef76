"""What a request asks of an ingest, in its query and its headers."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from email.message import Message
from typing import cast, get_args

from services.ingestd.core.encoding import parse_encoding
from services.ingestd.core.options import Options
from shared.errors import Invalid, UnsupportedMediaType
from shared.wire.catalogd import DATASET_NAME
from shared.wire.ingestd import Contract, IngestQuery, Mode

MODES: tuple[str, ...] = get_args(Mode)
CONTRACTS: tuple[str, ...] = get_args(Contract)
# Columns of a key.
_MOST_KEY = 16

_DATASET = re.compile(DATASET_NAME)
_WORDS = {
    "comma": ",",
    "semicolon": ";",
    "tab": "\t",
    "pipe": "|",
    "space": " ",
    "double": '"',
    "single": "'",
    "none": "",
    "backslash": "\\",
    "\\t": "\t",
}
FORMATS = ("csv", "jsonl", "parquet")
# What a Content-Type says that the file is, where it says anything.
_FORMAT_OF = {
    "text/csv": "csv",
    "application/csv": "csv",
    "application/vnd.ms-excel": "csv",
    "text/tab-separated-values": "csv",
    "application/x-ndjson": "jsonl",
    "application/ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "application/x-jsonl": "jsonl",
    "application/jsonlines": "jsonl",
    "application/x-jsonlines": "jsonl",
    "application/json-lines": "jsonl",
    "application/vnd.apache.parquet": "parquet",
    "application/x-parquet": "parquet",
    "application/parquet": "parquet",
}
FILE_TYPES = frozenset(
    {
        # Among them what browsers on Windows call a CSV file.
        *_FORMAT_OF,
        "text/plain",
        "application/octet-stream",
        # Packed ones; the file itself tells by what.
        "application/gzip",
        "application/x-gzip",
        "application/zstd",
    }
)
_TSV = "text/tab-separated-values"
_ENCODINGS = frozenset({"identity", "gzip", "x-gzip", "zstd"})
# The body names objects in place of being the file.
REFERENCE = "application/json"
# Where such objects lie (ADR-002).
UPLOADS = "uploads/"
MULTIPART = "multipart/form-data"


@dataclass(frozen=True, slots=True)
class Media:
    """What the headers say: a raw body, a form or a reference, and hints about the file."""

    boundary: bytes | None = None
    charset: str | None = None
    header: bool | None = None
    delimiter: str | None = None
    reference: bool = False
    format: str | None = None


def check_dataset(name: str) -> str:
    """The dataset's name if it can be one.

    Raises:
        Invalid: it cannot.
    """
    if not _DATASET.fullmatch(name):
        raise Invalid(
            f"{name[:80]!r} cannot be the name of a dataset. Begin with a lower-case letter, then "
            "use lower-case letters, digits and _; at most 63 characters."
        )
    return name


def parse_options(query: IngestQuery, media: Media) -> Options:
    """The options of a request, checked.

    Args:
        query: what the caller asks for.
        media: what the headers say, where the query says nothing.

    Raises:
        Invalid: a value that is not known, naming those that are.
    """
    mode, contract = query.mode, query.contract
    if mode not in MODES:
        raise Invalid(
            f"mode={mode[:20]!r} is not supported. Use one of: {', '.join(MODES)}.",
            details={"supported": list(MODES)},
        )
    if contract not in CONTRACTS:
        raise Invalid(
            f"There is no contract {contract[:20]!r}. Use one of: {', '.join(CONTRACTS)}.",
            details={"supported": list(CONTRACTS)},
        )
    found_header = _parse_header(query.header)
    charset = query.encoding if query.encoding is not None else media.charset
    delimiter = query.delimiter if query.delimiter is not None else media.delimiter
    options = Options(
        mode=cast("Mode", mode),
        contract=cast("Contract", contract),
        header=media.header if found_header is None else found_header,
        delimiter=_parse_mark("delimiter", delimiter, most=4),
        quote=_parse_mark("quote", query.quote, most=1, empty=True),
        escape=_parse_mark("escape", query.escape, most=1),
        encoding=None if charset is None else parse_encoding(charset),
        key=parse_key(mode, query.key),
        format=_parse_format(query.format),
        stated=media.format,
    )
    _check_dialect(options)
    marks = [mark for mark in (options.delimiter, options.quote) if mark]
    if len(set(marks)) < len(marks):
        raise Invalid("delimiter and quote must differ.")
    if options.escape is not None:
        if options.quote == "" or options.escape == options.delimiter:
            raise Invalid("escape needs a quote, and must differ from the delimiter.")
        if options.escape not in ("\\", options.quote or '"'):
            raise Invalid("escape is the quote itself (quotes are doubled) or a backslash.")
    return options


def parse_media(content_type: str | None, content_encoding: str | None) -> Media:
    """What a request's headers say of its body.

    Raises:
        UnsupportedMediaType: it is in a form that is not read; the message says what is.
    """
    if content_encoding and content_encoding.strip().lower() not in _ENCODINGS:
        raise UnsupportedMediaType(
            f"Content-Encoding {content_encoding[:20]!r} is not read. Send the file as it is, or "
            "packed by gzip or zstd.",
            details={"supported": sorted(_ENCODINGS)},
        )
    if not content_type:
        return Media()
    message = Message()
    message["content-type"] = content_type
    kind = message.get_content_type()
    if kind == MULTIPART:
        boundary = message.get_param("boundary")
        if not isinstance(boundary, str) or not 0 < len(boundary) <= 200:
            raise Invalid("The multipart Content-Type names no boundary.")
        return Media(boundary=boundary.encode("utf-8", "replace"))
    if kind == REFERENCE:
        return Media(reference=True)
    if kind not in FILE_TYPES:
        advice = ""
        if kind == "application/x-www-form-urlencoded":
            # curl's -d also takes the line ends out of the file.
            advice = " With curl, use --data-binary @FILE -H 'content-type: text/csv'."
        raise UnsupportedMediaType(
            f"{kind} is not read. Send CSV as text/csv, JSON lines as application/x-ndjson, "
            "Parquet as application/vnd.apache.parquet or any of them as "
            f"application/octet-stream, as the multipart field 'file' (one for each file), or name "
            f'an object in storage: {REFERENCE} with {{"object": "{UPLOADS}…"}}.{advice}',
            details={"supported": [*sorted(FILE_TYPES), MULTIPART, REFERENCE]},
        )
    charset = message.get_param("charset")
    stated = {"present": True, "absent": False}.get(str(message.get_param("header")).lower())
    return Media(
        charset=charset if isinstance(charset, str) else None,
        header=stated,
        delimiter="\t" if kind == _TSV else None,
        format=_FORMAT_OF.get(kind),
    )


def parse_key(mode: str, key: str | None) -> tuple[str, ...]:
    """The columns of an upsert's key: names divided by commas, in double quotes where need be.

    Raises:
        Invalid: there is none where there must be, or one where there must not.
    """
    if mode != "upsert":
        if key is not None:
            raise Invalid("key names the rows that mode=upsert replaces; it needs that mode.")
        return ()
    try:
        (names,) = csv.reader([key or ""], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError):
        names = []
    found = tuple(name.strip() for name in names)
    if not found or not all(found) or len({name.casefold() for name in found}) < len(found):
        raise Invalid(
            "mode=upsert needs key, the columns that tell rows apart: key=id or key=site,number. "
            "A name with a comma stands in double quotes; none may be named twice."
        )
    if len(found) > _MOST_KEY:
        raise Invalid(f"A key has at most {_MOST_KEY} columns.")
    return found


def _parse_header(value: str) -> bool | None:
    found = {"auto": None, "true": True, "1": True, "false": False, "0": False}
    if value.lower() not in found:
        raise Invalid("header is true, false or auto.")
    return found[value.lower()]


def _parse_format(value: str | None) -> str | None:
    if value is not None and value not in FORMATS:
        raise Invalid(f"format is one of: {', '.join(FORMATS)}; leave it out to find out.")
    return value


def _check_dialect(options: Options) -> None:
    """Refuses what is said of CSV where the file is something else."""
    found = options.format or options.stated
    if found not in ("jsonl", "parquet"):
        return
    said = ["header", "delimiter", "quote", "escape"]
    if found == "parquet":
        said.append("encoding")
    odd = [name for name in said if getattr(options, name) is not None]
    if odd:
        raise Invalid(f"{', '.join(odd)} cannot be said of a file in format {found}.")


def _parse_mark(name: str, value: str | None, *, most: int, empty: bool = False) -> str | None:
    """A delimiter, quote or escape: the character itself or a word for it."""
    if value is None:
        return None
    mark = _WORDS.get(value.lower(), value)
    if not mark and empty:
        return mark
    if not mark or len(mark.encode()) > most or any(end in mark for end in "\r\n\0"):
        raise Invalid(
            f"{name} is one character (not a line end), or one of: comma, semicolon, tab, pipe, "
            "space, double, single, none, backslash."
        )
    return mark
