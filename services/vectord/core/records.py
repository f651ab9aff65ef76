"""Journal records of one index, and how a large upsert is cut into several and put together.

    {"op": "upsert", "ids", "vectors": base64 of float32 little-endian, "texts", "metadata",
     "part": 0, "parts": 1}
    {"op": "delete", "ids", "part": 0, "parts": 1}

The parts of one write follow one another. At replay they count only when all of them are
there: a crash in the middle leaves no half of a write that nobody was told of.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import orjson

# What one record aims to hold at most, before escapes. Bytes.
RECORD_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Upsert:
    """Items to write: ids, their vectors as float32 bytes, texts, metadata as JSON bytes."""

    ids: Sequence[str]
    vectors: bytes
    texts: Sequence[str | None]
    metadata: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Delete:
    """Ids to remove; those that are not there do not matter."""

    ids: Sequence[str]


Write = Upsert | Delete


def encode_write(write: Write, record_bytes: int = RECORD_BYTES) -> list[dict[str, Any]]:
    """The payloads of one write, in order; at least one."""
    if isinstance(write, Delete):
        bounds = _cut([len(name) + 16 for name in write.ids], record_bytes)
        parts: list[dict[str, Any]] = [
            {"op": "delete", "ids": list(write.ids[a:b])} for a, b in bounds
        ]
    else:
        width = len(write.vectors) // max(1, len(write.ids))
        sizes = [
            width * 4 // 3 + len(name) + len(text or "") + len(metadata) + 32
            for name, text, metadata in zip(write.ids, write.texts, write.metadata, strict=True)
        ]
        view = memoryview(write.vectors)
        parts = [
            {
                "op": "upsert",
                "ids": list(write.ids[a:b]),
                "vectors": base64.b64encode(view[a * width : b * width]).decode("ascii"),
                "texts": list(write.texts[a:b]),
                "metadata": [orjson.Fragment(found) for found in write.metadata[a:b]],
            }
            for a, b in _cut(sizes, record_bytes)
        ]
    for number, part in enumerate(parts):
        part["part"] = number
        part["parts"] = len(parts)
    return parts


def _cut(sizes: Sequence[int], limit: int) -> list[tuple[int, int]]:
    bounds: list[tuple[int, int]] = []
    start = total = 0
    for at, size in enumerate(sizes):
        if at > start and total + size > limit:
            bounds.append((start, at))
            start, total = at, 0
        total += size
    bounds.append((start, len(sizes)))
    return bounds


def decode_part(payload: dict[str, Any]) -> Write:
    """The write, or the part of one, that a record holds.

    Raises:
        KeyError, ValueError: it is none of ours.
    """
    if payload["op"] == "delete":
        return Delete(payload["ids"])
    if payload["op"] != "upsert":
        raise ValueError(f"no such record: {payload['op']!r}")
    vectors = base64.b64decode(payload["vectors"], validate=True)
    metadata = [orjson.dumps(found) for found in payload["metadata"]]
    return Upsert(payload["ids"], vectors, payload["texts"], metadata)


class Assembler:
    """Gives each write of a journal once its last part has come; counts those torn off."""

    def __init__(self) -> None:
        self.torn = 0
        self.damaged = 0
        self._parts: list[tuple[int, Write]] = []
        self._next_seq = 0

    def take(self, seq: int, payload: dict[str, Any]) -> Iterator[tuple[int, Write]]:
        """The parts of a write as (seq, part) when `payload` completes it."""
        try:
            part, parts = cast("int", payload["part"]), cast("int", payload["parts"])
            write = decode_part(payload)
        except (KeyError, ValueError, TypeError):
            self.damaged += 1
            return
        follows = bool(self._parts) and seq == self._next_seq and part == len(self._parts)
        if self._parts and not follows:
            self.torn += 1
            self._parts = []
        if part != len(self._parts):
            return  # the first parts of this write are missing
        self._parts.append((seq, write))
        self._next_seq = seq + 1
        if part + 1 == parts:
            yield from self._parts
            self._parts = []
