"""An Arrow IPC stream of vectors, written with flatbuffers alone.

pyarrow would add tens of megabytes to a daemon that writes one kind of table: a column of
fixed-size lists of float32 without nulls. The layout is that of the Arrow columnar format 1.0
(Message.fbs and Schema.fbs, metadata version 5); tests hold it to pyarrow. flatbuffers comes
with onnxruntime. Both are imported when the first such answer is written.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import flatbuffers

# From Schema.fbs and Message.fbs.
METADATA_V5 = 4
HEADER_SCHEMA, HEADER_RECORD_BATCH = 1, 3
TYPE_FLOATING_POINT, TYPE_FIXED_SIZE_LIST = 3, 16
SINGLE = 1
CONTINUATION = b"\xff\xff\xff\xff"
ALIGNMENT = 8


def write_schema(dim: int, metadata: Mapping[str, str]) -> bytes:
    """The stream's first message: one column `vector` of `dim` float32 numbers."""
    builder = flatbuffers.Builder(1024)
    item = _field(builder, "item", TYPE_FLOATING_POINT, _floating_point(builder), [], True)
    column = _field(
        builder, "vector", TYPE_FIXED_SIZE_LIST, _fixed_size_list(builder, dim), [item], False
    )
    pairs = [_key_value(builder, key, value) for key, value in metadata.items()]
    fields = _offsets(builder, [column])
    pairs_at = _offsets(builder, pairs)
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(1, fields, 0)
    builder.PrependUOffsetTRelativeSlot(2, pairs_at, 0)
    return _message(builder, HEADER_SCHEMA, builder.EndObject(), b"")


def write_rows(vectors: bytes, rows: int, dim: int) -> bytes:
    """A record batch: `rows` vectors of `dim` numbers, end to end."""
    builder = flatbuffers.Builder(512)
    # Neither column has nulls, so both validity bitmaps are empty.
    buffers = [(0, 0), (0, 0), (0, len(vectors))]
    nodes = [(rows, 0), (rows * dim, 0)]
    buffers_at = _pairs(builder, buffers)
    nodes_at = _pairs(builder, nodes)
    builder.StartObject(5)
    builder.PrependInt64Slot(0, rows, 0)
    builder.PrependUOffsetTRelativeSlot(1, nodes_at, 0)
    builder.PrependUOffsetTRelativeSlot(2, buffers_at, 0)
    return _message(builder, HEADER_RECORD_BATCH, builder.EndObject(), vectors)


def write_end() -> bytes:
    """What ends the stream."""
    return CONTINUATION + struct.pack("<i", 0)


def _message(builder: Any, kind: int, header: int, body: bytes) -> bytes:
    body += bytes(-len(body) % ALIGNMENT)
    builder.StartObject(5)
    builder.PrependInt64Slot(3, len(body), 0)
    builder.PrependUOffsetTRelativeSlot(2, header, 0)
    builder.PrependInt16Slot(0, METADATA_V5, 0)
    builder.PrependUint8Slot(1, kind, 0)
    builder.Finish(builder.EndObject())
    head = bytes(builder.Output())
    # Prefix, length and head together end where the body may begin.
    head += bytes(-(len(head) + 8) % ALIGNMENT)
    return CONTINUATION + struct.pack("<i", len(head)) + head + body


def _floating_point(builder: Any) -> int:
    builder.StartObject(1)
    builder.PrependInt16Slot(0, SINGLE, 0)
    return builder.EndObject()


def _fixed_size_list(builder: Any, size: int) -> int:
    builder.StartObject(1)
    builder.PrependInt32Slot(0, size, 0)
    return builder.EndObject()


def _field(
    builder: Any, name: str, kind: int, type_at: int, children: list[int], nullable: bool
) -> int:
    name_at = builder.CreateString(name)
    children_at = _offsets(builder, children)
    builder.StartObject(7)
    builder.PrependUOffsetTRelativeSlot(0, name_at, 0)
    builder.PrependBoolSlot(1, nullable, False)
    builder.PrependUint8Slot(2, kind, 0)
    builder.PrependUOffsetTRelativeSlot(3, type_at, 0)
    builder.PrependUOffsetTRelativeSlot(5, children_at, 0)
    return builder.EndObject()


def _key_value(builder: Any, key: str, value: str) -> int:
    key_at, value_at = builder.CreateString(key), builder.CreateString(value)
    builder.StartObject(2)
    builder.PrependUOffsetTRelativeSlot(0, key_at, 0)
    builder.PrependUOffsetTRelativeSlot(1, value_at, 0)
    return builder.EndObject()


def _offsets(builder: Any, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _pairs(builder: Any, pairs: list[tuple[int, int]]) -> int:
    # FieldNode and Buffer are structs of two 64-bit integers, stored in place.
    builder.StartVector(16, len(pairs), 8)
    for first, second in reversed(pairs):
        builder.Prep(8, 16)
        builder.PrependInt64(second)
        builder.PrependInt64(first)
    return builder.EndVector()
