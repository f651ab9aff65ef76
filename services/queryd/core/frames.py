"""Frames between the daemon and a worker, over one socket pair.

A frame is a kind (one byte), the length of its payload (8 bytes, little-endian) and the
payload. A query goes: OPEN → PLAN → RUN → HEAD → DATA… → END → READY. ERROR can take the
place of PLAN, HEAD, DATA or END; ABORT that of RUN. READY says that the worker has a fresh
database and can take the next query. All payloads but DATA are JSON, read and written by
the standard library: whole numbers of any size and NaN go through it unharmed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from enum import Enum
from typing import Any, cast

from shared.errors import BY_CODE, Internal, LakehouseError

_HEADER = struct.Struct("<cQ")
HEADER_SIZE = _HEADER.size


class Kind(Enum):
    """What a frame says. The first three go to the worker."""

    OPEN = b"O"
    RUN = b"U"
    ABORT = b"A"
    PLAN = b"P"
    HEAD = b"H"
    DATA = b"D"
    END = b"E"
    ERROR = b"X"
    READY = b"R"


def pack_header(kind: Kind, length: int) -> bytes:
    """The 9 bytes before a payload of `length` bytes."""
    return _HEADER.pack(kind.value, length)


def unpack_header(header: bytes) -> tuple[Kind, int]:
    """Kind and payload length.

    Raises:
        ValueError: the bytes are no header.
    """
    kind, length = _HEADER.unpack(header)
    return Kind(kind), length


def pack(kind: Kind, payload: object) -> bytes:
    """A whole frame with a JSON payload."""
    body = json.dumps(payload).encode("ascii")
    return pack_header(kind, len(body)) + body


def unpack(payload: bytes | bytearray) -> Any:
    """What a JSON payload holds."""
    return json.loads(payload)


def error_payload(error: LakehouseError) -> dict[str, Any]:
    """What an ERROR frame carries."""
    return {"code": error.code, "message": error.message, "details": error.details}


def read_error(payload: Mapping[str, Any]) -> LakehouseError:
    """The error that an ERROR frame stands for."""
    cls = BY_CODE.get(str(payload.get("code")), Internal)
    details: object = payload.get("details")
    return cls(
        str(payload.get("message")),
        details=cast("dict[str, Any]", details) if isinstance(details, dict) else None,
    )
