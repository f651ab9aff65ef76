"""A Parquet file's footer as data: the schema's elements and the columns of each row group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.catalogd.core.thrift import CompactReader, Corrupt, Spec

MAGIC = b"PAR1"
# The footer's length and the magic bytes at a file's end.
TAIL = 8
# Larger ones are of files that want splitting. Bytes.
MAX_FOOTER = 16 * 1024 * 1024

# Physical types.
BOOLEAN, INT32, INT64, INT96, FLOAT, DOUBLE, BYTE_ARRAY, FIXED = range(8)
REPEATED = 2

_UNIT: Spec = {1: {}, 2: {}, 3: {}}
_LOGICAL: Spec = {
    **{number: {} for number in (1, 2, 3, 4, 6, 11, 12, 13, 14, 15, 16, 17, 18)},
    5: {1: int, 2: int},
    7: {1: bool, 2: _UNIT},
    8: {1: bool, 2: _UNIT},
    10: {1: int, 2: bool},
}
_ELEMENT: Spec = {
    **dict.fromkeys((1, 2, 3, 5, 6, 7, 8, 9), int),
    4: bytes,
    10: _LOGICAL,
}
_STATISTICS: Spec = {1: bytes, 2: bytes, 3: int, 5: bytes, 6: bytes}
_META: Spec = {1: int, 5: int, 7: int, 9: int, 11: int, 12: _STATISTICS}
_GROUP: Spec = {1: [{1: bytes, 3: _META}], 3: int}
_FOOTER: Spec = {2: [_ELEMENT], 3: int, 4: [_GROUP], 8: {}}

# A logical type: its number and its parameters.
Annotation = tuple[int, Mapping[int, Any]]


@dataclass(frozen=True, slots=True)
class Element:
    """One node of the schema: a group when `children` is not 0, else a leaf.

    `logical` is the annotation: the number of Parquet's LogicalType and its parameters.
    """

    name: str
    physical: int | None
    length: int
    repeated: bool
    children: int
    converted: int | None
    logical: Annotation | None
    precision: int
    scale: int
    field_id: int | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A column of one row group. Offsets and sizes in bytes; bounds as Parquet has them."""

    physical: int
    values: int
    size: int
    start: int
    nulls: int | None
    lower: bytes | None
    upper: bytes | None


@dataclass(frozen=True, slots=True)
class Footer:
    """Elements depth first, the root left out; chunks in the order of the leaves."""

    elements: list[Element]
    root_children: int
    rows: int
    groups: list[list[Chunk]]


def parse_tail(tail: bytes, size: int) -> int:
    """Length of the footer, from a file's last `TAIL` bytes and its size.

    Raises:
        Corrupt: the file is no Parquet file, or has a footer that is too large.
    """
    if len(tail) != TAIL or tail[4:] != MAGIC:
        raise Corrupt("it does not end as a Parquet file")
    length = int.from_bytes(tail[:4], "little")
    if not 0 < length <= size - TAIL - len(MAGIC):
        raise Corrupt("its footer is longer than the file")
    if length > MAX_FOOTER:
        raise Corrupt(f"its footer is larger than {MAX_FOOTER} bytes; split the file")
    return length


def parse_footer(data: bytes, size: int) -> Footer:
    """The footer's content.

    Args:
        data: the footer.
        size: the whole file's, to hold what the footer points to against. Bytes.

    Raises:
        Corrupt: it is not a footer, or points outside of the file.
    """
    raw = CompactReader(data).read_struct(_FOOTER)
    try:
        if 8 in raw:
            raise Corrupt("it is encrypted")
        root, *elements = [_read_element(element) for element in raw[2]]
        groups = [[_read_chunk(chunk) for chunk in group[1]] for group in raw.get(4, [])]
        rows = sum(group[3] for group in raw.get(4, []))
        footer = Footer(elements, root.children, raw[3], groups)
    except (KeyError, ValueError):
        raise Corrupt("its footer lacks what a Parquet file needs") from None
    if rows != footer.rows or rows < 0:
        raise Corrupt("its row groups do not add up to its rows")
    end = size - TAIL - len(data)
    for group in groups:
        for chunk in group:
            inside = len(MAGIC) <= chunk.start <= chunk.start + chunk.size <= end
            if chunk.values < 0 or (chunk.values and not inside):
                raise Corrupt("its columns lie outside of the file")
    return footer


def _read_element(raw: dict[int, Any]) -> Element:
    logical: Mapping[int, Any] = raw.get(10, {})
    return Element(
        name=raw[4].decode("utf-8"),
        physical=raw.get(1),
        length=raw.get(2, 0),
        repeated=raw.get(3) == REPEATED,
        children=raw.get(5, 0),
        converted=raw.get(6),
        logical=next(iter(logical.items()), None),
        precision=raw.get(8, 0),
        scale=raw.get(7, 0),
        field_id=raw.get(9),
    )


def _read_chunk(raw: dict[int, Any]) -> Chunk:
    if raw.get(1):
        raise Corrupt("its columns are in other files")
    meta = raw[3]
    statistics = meta.get(12, {})
    starts = [meta[9]]
    if meta.get(11):
        starts.append(meta[11])
    lower, upper = statistics.get(6), statistics.get(5)
    if lower is None and upper is None and meta[1] in (BOOLEAN, INT32, INT64, FLOAT, DOUBLE):
        # The older pair is right for types that compare as signed numbers.
        lower, upper = statistics.get(2), statistics.get(1)
    return Chunk(
        physical=meta[1],
        values=meta[5],
        size=meta[7],
        start=min(starts),
        nulls=statistics.get(3),
        lower=lower,
        upper=upper,
    )
