"""Between our columns and pyiceberg's schemas, both ways, with every field id in its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pyiceberg.schema import Schema
from pyiceberg.table import TableProperties
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from services.catalogd.core.schema import build_name_mapping, read_name_mapping
from services.catalogd.core.types import (
    ELEMENT,
    KEY,
    VALUE,
    Columns,
    ColumnType,
    Decimal,
    Field,
    Fixed,
    List,
    Map,
    Path,
    Scalar,
    Struct,
)
from shared.errors import Unprocessable

if TYPE_CHECKING:
    from pyiceberg.table.metadata import TableMetadata

_TYPES: dict[str, IcebergType] = {
    "boolean": BooleanType(),
    "int": IntegerType(),
    "long": LongType(),
    "float": FloatType(),
    "double": DoubleType(),
    "date": DateType(),
    "time": TimeType(),
    "timestamp": TimestampType(),
    "timestamptz": TimestamptzType(),
    "string": StringType(),
    "uuid": UUIDType(),
    "binary": BinaryType(),
}
_KINDS: dict[type[IcebergType], str] = {type(kind): name for name, kind in _TYPES.items()}


def to_schema(columns: Columns, ids: Mapping[Path, int], schema_id: int = 0) -> Schema:
    """An Iceberg schema whose fields are all optional and have the ids of their paths."""
    return Schema(*_to_fields(columns, ids, ()), schema_id=schema_id)


def _to_fields(columns: Columns, ids: Mapping[Path, int], parent: Path) -> list[NestedField]:
    fields: list[NestedField] = []
    for column in columns:
        path = (*parent, column.name)
        kind = to_type(column.type, ids, path)
        fields.append(NestedField(ids[path], column.name, kind, required=False))
    return fields


def to_type(kind: ColumnType, ids: Mapping[Path, int], path: Path = ()) -> IcebergType:
    """The Iceberg type; `ids` must have every path below `path`."""
    match kind:
        case Scalar():
            return _TYPES[kind.kind]
        case Decimal():
            return DecimalType(kind.precision, kind.scale)
        case Fixed():
            return FixedType(kind.length)
        case Struct():
            return StructType(*_to_fields(kind.fields, ids, path))
        case List():
            inner = (*path, ELEMENT)
            return ListType(ids[inner], to_type(kind.element, ids, inner), element_required=False)
        case Map():
            key, value = (*path, KEY), (*path, VALUE)
            return MapType(
                ids[key],
                to_type(kind.key, ids, key),
                ids[value],
                to_type(kind.value, ids, value),
                value_required=False,
            )


def from_schema(schema: Schema) -> Columns:
    """Our columns for a schema.

    Raises:
        Unprocessable: it has a type of a later format version, which another client made.
    """
    return tuple(Field(field.name, _from_type(field.field_type)) for field in schema.fields)


def _from_type(kind: IcebergType) -> ColumnType:
    match kind:
        case DecimalType():
            return Decimal(kind.precision, kind.scale)
        case FixedType():
            return Fixed(len(kind))
        case StructType():
            return Struct(tuple(Field(f.name, _from_type(f.field_type)) for f in kind.fields))
        case ListType():
            return List(_from_type(kind.element_type))
        case MapType():
            return Map(_from_type(kind.key_type), _from_type(kind.value_type))
        case _ if type(kind) in _KINDS:
            return Scalar(_KINDS[type(kind)])
        case _:
            raise Unprocessable(f"The dataset has a column of type {kind}, unknown here.")


def read_ids(metadata: TableMetadata) -> dict[Path, int]:
    """The id of every path that any schema of the table ever had; the newest word counts."""
    ids: dict[Path, int] = {}
    for schema in metadata.schemas:
        for field in schema.fields:
            _collect_ids(field, (), ids)
    mapping = metadata.properties.get(TableProperties.DEFAULT_NAME_MAPPING)
    if mapping is not None:
        ids.update(read_name_mapping(json.loads(mapping)))
    return ids


def _collect_ids(field: NestedField, parent: Path, ids: dict[Path, int]) -> None:
    path = (*parent, field.name)
    ids[path] = field.field_id
    match field.field_type:
        case StructType() as struct:
            for member in struct.fields:
                _collect_ids(member, path, ids)
        case ListType() as held:
            _collect_ids(held.element_field, path, ids)
        case MapType() as held:
            _collect_ids(held.key_field, path, ids)
            _collect_ids(held.value_field, path, ids)
        case _:
            pass


def render_name_mapping(ids: Mapping[Path, int]) -> str:
    """The table property by which engines find columns in files without field ids."""
    return json.dumps(build_name_mapping(ids), ensure_ascii=False, separators=(",", ":"))
