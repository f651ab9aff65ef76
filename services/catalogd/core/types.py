"""Column types as Iceberg knows them, free of any library.

The store translates Parquet and Iceberg schemas to and from these; every decision about
schemas (fingerprint, difference, evolution, field ids) is made on them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

# Where a field stands: its own name after those of what it is nested in. The element of a
# list is "element"; the sides of a map are "key" and "value", as in Iceberg's name mapping.
Path: TypeAlias = tuple[str, ...]
ELEMENT = "element"
KEY = "key"
VALUE = "value"


@dataclass(frozen=True, slots=True)
class Scalar:
    """A type without parameters, under Iceberg's name for it: see `sqltypes.SQL_NAMES`."""

    kind: str


@dataclass(frozen=True, slots=True)
class Decimal:
    """An exact number of at most 38 digits, `scale` of them after the point."""

    precision: int
    scale: int


@dataclass(frozen=True, slots=True)
class Fixed:
    """Binary of exactly `length` bytes."""

    length: int


@dataclass(frozen=True, slots=True)
class Field:
    """A named column or a named member of a struct. All may be null."""

    name: str
    type: ColumnType


@dataclass(frozen=True, slots=True)
class Struct:
    """Named members."""

    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class List:
    """Any number of one type."""

    element: ColumnType


@dataclass(frozen=True, slots=True)
class Map:
    """Values by key."""

    key: ColumnType
    value: ColumnType


ColumnType: TypeAlias = Scalar | Decimal | Fixed | Struct | List | Map
Columns: TypeAlias = tuple[Field, ...]


def canonical_text(kind: ColumnType) -> str:
    """One text per type, the same however the members of a struct are ordered."""
    match kind:
        case Scalar():
            return kind.kind
        case Decimal():
            return f"decimal({kind.precision},{kind.scale})"
        case Fixed():
            return f"fixed[{kind.length}]"
        case List():
            return f"list<{canonical_text(kind.element)}>"
        case Map():
            return f"map<{canonical_text(kind.key)},{canonical_text(kind.value)}>"
        case Struct():
            ordered = sorted(kind.fields, key=lambda field: field.name)
            members = (f"{json.dumps(f.name)}:{canonical_text(f.type)}" for f in ordered)
            return f"struct<{','.join(members)}>"


def children(kind: ColumnType) -> Columns:
    """What a type holds, under the names that paths use; empty for a leaf."""
    match kind:
        case Struct():
            return kind.fields
        case List():
            return (Field(ELEMENT, kind.element),)
        case Map():
            return (Field(KEY, kind.key), Field(VALUE, kind.value))
        case _:
            return ()


def walk_paths(columns: Columns, parent: Path = ()) -> Iterator[tuple[Path, ColumnType]]:
    """Every field with its path, each before what it holds."""
    for field in columns:
        path = (*parent, field.name)
        yield path, field.type
        yield from walk_paths(children(field.type), path)


def walk_leaves(columns: Columns) -> Iterator[tuple[Path, ColumnType]]:
    """The fields that hold values, in the order in which Parquet stores them."""
    return ((path, kind) for path, kind in walk_paths(columns) if not children(kind))
