"""Statistics of a file's columns for the table's manifests, from the footer's own.

They help engines to skip files, so a bound may be wide and must never be too narrow: where
the footer leaves any doubt, there is none.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

from services.catalogd.core import footer as fmt
from services.catalogd.core.columns import is_in_milliseconds, list_leaves
from services.catalogd.core.footer import Chunk, Element, Footer
from services.catalogd.core.types import Columns, ColumnType, Decimal, Path, Scalar, walk_leaves

# Columns with minimum and maximum; Iceberg's own default for wide tables.
BOUNDED_COLUMNS = 100
# Characters or bytes of a bound that are kept, as Iceberg does by default.
TRUNCATED = 16

# Bytes of the types that Parquet and Iceberg both keep as little-endian whole numbers.
WHOLE_NUMBERS = {
    "boolean": 1,
    "int": 4,
    "date": 4,
    "long": 8,
    "time": 8,
    "timestamp": 8,
    "timestamptz": 8,
}
_FLOATS = {"float": "<f", "double": "<d"}


@dataclass(frozen=True, slots=True)
class Statistics:
    """Figures of one file by path of its columns. Sizes and offsets in bytes.

    Bounds are in Iceberg's single-value form, of the file's own types.
    """

    column_sizes: dict[Path, int]
    value_counts: dict[Path, int]
    null_value_counts: dict[Path, int]
    lower_bounds: dict[Path, bytes]
    upper_bounds: dict[Path, bytes]
    split_offsets: list[int]


def summarise(footer: Footer, columns: Columns) -> Statistics:
    """Statistics of all row groups together."""
    found = Statistics({}, {}, {}, {}, {}, sorted(g[0].start for g in footer.groups if g))
    leaves = zip(walk_leaves(columns), list_leaves(footer), strict=True)
    for position, ((path, kind), element) in enumerate(leaves):
        chunks = [group[position] for group in footer.groups]
        found.column_sizes[path] = sum(chunk.size for chunk in chunks)
        if position >= BOUNDED_COLUMNS:
            continue
        found.value_counts[path] = sum(chunk.values for chunk in chunks)
        nulls = [chunk.nulls for chunk in chunks]
        known = [count for count in nulls if count is not None and count >= 0]
        if len(known) == len(nulls):
            found.null_value_counts[path] = sum(known)
        # Inside lists and structs a bound says nothing about rows.
        if len(path) == 1:
            bounds = find_bounds(kind, element, chunks)
            if bounds is not None:
                found.lower_bounds[path], upper = bounds
                if upper is not None:
                    found.upper_bounds[path] = upper
    return found


def find_bounds(
    kind: ColumnType, element: Element, chunks: list[Chunk]
) -> tuple[bytes, bytes | None] | None:
    """Least and greatest value over all chunks, or None when any chunk leaves it open.

    The greatest is None when no short value lies above it.
    """
    lowest: list[Any] = []
    highest: list[Any] = []
    for chunk in chunks:
        if chunk.lower is None or chunk.upper is None:
            if chunk.nulls is not None and chunk.nulls == chunk.values:
                continue
            return None
        lower = decode_bound(kind, element, chunk.lower)
        upper = decode_bound(kind, element, chunk.upper)
        if lower is None or upper is None or lower > upper:
            return None
        lowest.append(lower)
        highest.append(upper)
    if not lowest:
        return None
    least, greatest = min(lowest), max(highest)
    lower = encode_bound(kind, shorten_down(least))
    raised = shorten_up(greatest)
    upper = None if raised is None else encode_bound(kind, raised)
    if lower is None or (raised is not None and upper is None):
        return None
    return lower, upper


def decode_bound(kind: ColumnType, element: Element, raw: bytes) -> Any:
    """A bound as a value that compares, or None where its bytes cannot be trusted."""
    if isinstance(kind, Decimal):
        little = element.physical in (fmt.INT32, fmt.INT64)
        return int.from_bytes(raw, "little" if little else "big", signed=True) if raw else None
    if not isinstance(kind, Scalar):
        return None
    if kind.kind in WHOLE_NUMBERS:
        if len(raw) != WHOLE_NUMBERS[kind.kind]:
            return None
        value = int.from_bytes(raw, "little", signed=kind.kind != "boolean")
        return value * 1000 if is_in_milliseconds(element) else value
    if kind.kind in _FLOATS:
        form = _FLOATS[kind.kind]
        number = struct.unpack(form, raw)[0] if len(raw) == struct.calcsize(form) else math.nan
        return None if math.isnan(number) else number
    if kind.kind == "string":
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return None
    return raw if kind.kind == "binary" else None


def encode_bound(kind: ColumnType, value: Any) -> bytes | None:
    """A value in Iceberg's single-value form; None when it has no place in the type."""
    if isinstance(kind, Decimal):
        digits = value if value >= 0 else ~value
        return value.to_bytes(digits.bit_length() // 8 + 1, "big", signed=True)
    if isinstance(value, str):
        return value.encode("utf-8")
    if isinstance(value, bytes):
        return value
    assert isinstance(kind, Scalar)
    if isinstance(value, float):
        return struct.pack(_FLOATS[kind.kind], value)
    try:
        size = WHOLE_NUMBERS[kind.kind]
        return value.to_bytes(size, "little", signed=kind.kind != "boolean")
    except OverflowError:
        return None


def shorten_down(value: Any) -> Any:
    """A value at or below, short enough for a manifest."""
    if isinstance(value, str | bytes):
        return value[:TRUNCATED]
    # Of the two zeros Parquet may name either; the lower one is below both.
    return -0.0 if isinstance(value, float) and value == 0.0 else value


def shorten_up(value: Any) -> Any:
    """A value at or above, short enough for a manifest; None when no short one is."""
    if isinstance(value, float) and value == 0.0:
        return 0.0
    if not isinstance(value, str | bytes) or len(value) <= TRUNCATED:
        return value
    for end in range(TRUNCATED, 0, -1):
        if isinstance(value, bytes):
            if value[end - 1] < 0xFF:
                return value[: end - 1] + bytes([value[end - 1] + 1])
        elif (following := _next_character(value[end - 1])) is not None:
            return value[: end - 1] + following
    return None


def _next_character(character: str) -> str | None:
    code = ord(character) + 1
    if code > 0x10FFFF:
        return None
    # The surrogates are no characters.
    return chr(0xE000 if code == 0xD800 else code)


def widen_bound(own: ColumnType, table: ColumnType, bound: bytes) -> bytes:
    """A file's bound for the type that the table has by now."""
    if own == table or not isinstance(own, Scalar):
        # Decimals of one scale are stored alike whatever their precision.
        return bound
    if own.kind == "int":
        return int.from_bytes(bound, "little", signed=True).to_bytes(8, "little", signed=True)
    return struct.pack("<d", struct.unpack("<f", bound)[0])
