"""Arrow arrays brought to a dataset's column types, without loss or with an error."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from services.catalogd.core.types import (
    Columns,
    ColumnType,
    Decimal,
    Fixed,
    List,
    Map,
    Scalar,
    Struct,
)

_TYPES: dict[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", tz="UTC"),
    "string": pa.string(),
    "uuid": pa.uuid(),
    "binary": pa.binary(),
}


def make_schema(columns: Columns) -> pa.Schema:
    """The Arrow schema that is written as these columns."""
    return pa.schema([pa.field(column.name, make_type(column.type)) for column in columns])


def make_type(kind: ColumnType) -> pa.DataType:
    """The Arrow type that is written as this one."""
    match kind:
        case Scalar():
            return _TYPES[kind.kind]
        case Decimal():
            return pa.decimal128(kind.precision, kind.scale)
        case Fixed():
            return pa.binary(kind.length)
        case Struct():
            return pa.struct([pa.field(f.name, make_type(f.type)) for f in kind.fields])
        case List():
            return pa.list_(pa.field("element", make_type(kind.element)))
        case Map():
            return pa.map_(make_type(kind.key), make_type(kind.value))


def conform_batch(batch: pa.RecordBatch, columns: Columns, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with exactly these columns; those it lacks are null.

    Raises:
        pa.ArrowInvalid: a value does not fit.
    """
    own = {name: position for position, name in enumerate(batch.schema.names)}
    arrays = [
        conform_array(batch.column(own[column.name]), column.type)
        if column.name in own
        else pa.nulls(batch.num_rows, schema.field(column.name).type)
        for column in columns
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def conform_array(array: Any, kind: ColumnType) -> Any:
    """The array as this type; members that its structs lack are null."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    match kind:
        case Struct():
            return _conform_struct(array, kind)
        case List():
            lengths, values = _take_apart(array)
            inner = conform_array(values, kind.element)
            return pa.ListArray.from_arrays(
                _offsets(lengths), inner, type=make_type(kind), mask=array.is_null()
            )
        case Map():
            lengths, entries = _take_apart(array)
            return pa.MapArray.from_arrays(
                _offsets(lengths),
                conform_array(entries.field(0), kind.key),
                conform_array(entries.field(1), kind.value),
                type=make_type(kind),
                mask=array.is_null(),
            )
        case Scalar(kind="uuid"):
            return pa.ExtensionArray.from_storage(pa.uuid(), array.cast(pa.binary(16)))
        case _:
            return array.cast(make_type(kind))


def _conform_struct(array: Any, kind: Struct) -> Any:
    own = {array.type.field(n).name: n for n in range(array.type.num_fields)}
    members = [
        conform_array(array.field(own[member.name]), member.type)
        if member.name in own
        else pa.nulls(len(array), make_type(member.type))
        for member in kind.fields
    ]
    fields = list(make_type(kind))
    return pa.StructArray.from_arrays(members, fields=fields, mask=array.is_null())


def _take_apart(array: Any) -> tuple[Any, Any]:
    """How long each list is, and the values of all; a slice of an array knows neither by itself."""
    if pa.types.is_map(array.type):
        pairs = pa.struct([pa.field("key", array.type.key_type), array.type.item_field])
        array = array.cast(pa.list_(pairs))
    elif not pa.types.is_list(array.type):
        array = array.cast(pa.list_(array.type.value_type))
    return pc.fill_null(pc.list_value_length(array), 0), array.flatten()


def _offsets(lengths: Any) -> Any:
    return pa.concat_arrays(
        [pa.array([0], pa.int32()), pc.cumulative_sum(lengths).cast(pa.int32())]
    )
