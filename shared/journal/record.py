"""The form of one record on disk, and how intact records are told from damage. Pure.

A line is one JSON object with its fields in this order:

    {"v":1,"crc":"89abcdef","seq":17,"t":1732280000123456,"payload":{...}}

`crc` is the CRC-32 (zlib's, eight hex digits) of every byte behind its comma up to the
closing brace, so it covers seq, t, prev_hash and payload exactly as they lie on disk. It
stands first so that a reader can check a line before it parses it. `t` is in microseconds
since 1970 and is the same for all records of one group commit. A chained journal adds
`prev_hash` before the payload: the SHA-256 of the whole line before, without its newline.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, NamedTuple
from zlib import crc32

import orjson

from shared.errors import Invalid, TooLarge

HEAD = b'{"v":1,"crc":"'
BODY_AT = len(HEAD) + 10
SEQ_AT = BODY_AT + len(b'"seq":')
# Readers in other languages hold integers up to here exactly; nobody appends as often.
MAX_SEQ = 2**53 - 1
# What the first record of a chained journal points to.
GENESIS = "0" * 64


class Record(NamedTuple):
    """One record as it was read: position, time in microseconds, content, chain link."""

    seq: int
    t: int
    payload: dict[str, Any]
    prev_hash: str | None = None


class Piece(NamedTuple):
    """A part of a damaged line: where it starts in the line, its bytes, what it holds."""

    at: int
    data: bytes
    record: Record | None


def encode_payload(payload: dict[str, Any], limit: int) -> bytes:
    """The payload as JSON on one line.

    Raises:
        Invalid: it is not an object, or holds what JSON cannot carry.
        TooLarge: it takes more than `limit` bytes.
    """
    try:
        blob = orjson.dumps(payload)
    except TypeError as error:
        raise Invalid(f"The record cannot be written as JSON: {error}.") from None
    if blob[:1] != b"{":
        raise Invalid("A record must be a JSON object.")
    if len(blob) > limit:
        raise TooLarge(
            f"The record takes {len(blob)} bytes; a log record may take {limit}. "
            "Store the large part as an object and record its key.",
            details={"bytes": len(blob), "limit": limit},
        )
    return blob


def encode_line(seq: int, t: int, payload: bytes, prev_hash: str | None = None) -> bytes:
    """The line of one record, newline included; `payload` comes from `encode_payload`."""
    if prev_hash is None:
        body = b'"seq":%d,"t":%d,"payload":%b}' % (seq, t, payload)
    else:
        link = prev_hash.encode("ascii")
        body = b'"seq":%d,"t":%d,"prev_hash":"%b","payload":%b}' % (seq, t, link, payload)
    return b'{"v":1,"crc":"%08x",%b\n' % (crc32(body), body)


def decode_line(line: bytes) -> Record | None:
    """The record of a line without its newline, or None if it is anything else.

    Never raises, whatever the bytes: a line counts only with the right head, the right
    CRC, valid JSON and fields of the right types.
    """
    if line[14:24] != b'%08x",' % crc32(line[24:]) or line[:14] != HEAD:
        return None
    try:
        fields = orjson.loads(line)
        seq = fields["seq"]
        t = fields["t"]
        payload = fields["payload"]
    except (ValueError, KeyError):
        return None
    link = fields.get("prev_hash")
    if (
        type(seq) is not int
        or not 0 < seq <= MAX_SEQ
        or type(t) is not int
        or type(payload) is not dict
        or (link is not None and type(link) is not str)
    ):
        return None
    return Record(seq, t, payload, link)  # pyright: ignore[reportUnknownArgumentType]


def peek_seq(head: bytes) -> int | None:
    """The seq that a line's first bytes claim, unchecked; None if they are no such line."""
    digits, comma, _ = head[SEQ_AT : SEQ_AT + 17].partition(b",")
    if not comma or not head.startswith(HEAD) or not digits.isdigit():
        return None
    return int(digits)


def hash_line(line: bytes) -> str:
    """The `prev_hash` that follows a line (given without its newline)."""
    return sha256(line).hexdigest()


def salvage_line(line: bytes) -> list[Piece]:
    """Cuts a damaged line into the intact records in it and the bytes that are none.

    A record stays whole when the newline before or behind it was hit, when a torn
    fragment was glued to it, or when padding follows it. An object inside a payload is
    never taken for a record, though it may have been one: in a string its quotes are
    escaped, and elsewhere one of `:,[` stands before it, where no cut is made.
    """
    pieces: list[Piece] = []
    start = 0
    while start < len(line):
        stop = _find_start(line, start + 1)
        part = line[start:stop]
        used = len(part)
        record = decode_line(part)
        if record is None:
            used = part.rfind(b"}") + 1
            record = decode_line(part[:used])
        if record is None:
            used = 0
        else:
            pieces.append(Piece(start, part[:used], record))
        if used < len(part):
            pieces.append(Piece(start + used, part[used:], None))
        start = stop
    return pieces


def _find_start(line: bytes, at: int) -> int:
    """Where the next record may begin in a damaged line; its length if nowhere."""
    found = line.find(HEAD, at)
    while found > 0 and line[found - 1] in b":,[":
        found = line.find(HEAD, found + 1)
    return found if found >= 0 else len(line)
