"""What catalogd asks of the process that merges files, and what it gets back, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from services.catalogd.core.types import (
    Columns,
    ColumnType,
    Decimal,
    Field,
    Fixed,
    List,
    Map,
    Scalar,
    Struct,
)


@dataclass(frozen=True, slots=True)
class MergeJob:
    """Files to put together, in order, into as few as fit.

    Attributes:
        inputs: paths of Parquet files.
        folder: where the new ones go.
        columns: what they have; a file that lacks one has null in it.
        target_bytes: what a new file may have at most.
        memory_bytes: what the process may take for data.
    """

    inputs: tuple[str, ...]
    folder: str
    columns: Columns
    target_bytes: int
    memory_bytes: int

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "inputs": list(self.inputs),
            "folder": self.folder,
            "columns": [write_field(column) for column in self.columns],
            "target_bytes": self.target_bytes,
            "memory_bytes": self.memory_bytes,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> MergeJob:
        """The opposite of `to_json`."""
        return MergeJob(
            tuple(data["inputs"]),
            data["folder"],
            tuple(read_field(column) for column in data["columns"]),
            data["target_bytes"],
            data["memory_bytes"],
        )


@dataclass(frozen=True, slots=True)
class MergedPart:
    """A file that was written. `sha256` is of its bytes, in hexadecimal."""

    path: str
    rows: int
    size: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def write_field(field: Field) -> list[Any]:
    """A column as plain data."""
    return [field.name, _write_type(field.type)]


def read_field(data: list[Any]) -> Field:
    """The opposite of `write_field`."""
    return Field(data[0], _read_type(data[1]))


def _write_type(kind: ColumnType) -> list[Any]:
    match kind:
        case Scalar():
            return ["scalar", kind.kind]
        case Decimal():
            return ["decimal", kind.precision, kind.scale]
        case Fixed():
            return ["fixed", kind.length]
        case Struct():
            return ["struct", *map(write_field, kind.fields)]
        case List():
            return ["list", _write_type(kind.element)]
        case Map():
            return ["map", _write_type(kind.key), _write_type(kind.value)]


def _read_type(data: list[Any]) -> ColumnType:
    match data:
        case ["scalar", kind]:
            return Scalar(kind)
        case ["decimal", precision, scale]:
            return Decimal(precision, scale)
        case ["fixed", length]:
            return Fixed(length)
        case ["struct", *fields]:
            return Struct(tuple(map(read_field, fields)))
        case ["list", element]:
            return List(_read_type(element))
        case ["map", key, value]:
            return Map(_read_type(key), _read_type(value))
        case _:
            raise ValueError(f"no column type: {data!r}")
