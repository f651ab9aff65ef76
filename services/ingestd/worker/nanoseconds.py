"""Whether moments in a Parquet file have digits that microseconds do not hold.

DuckDB 1.5.5 reads INT96, times, and moments in UTC as microseconds and cuts the rest off
without a word; Arrow reads them whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_BATCH = 16_384
# Read by so many bytes, so that a large column chunk is not held whole.
_BUFFER = 1024 * 1024


def find_nanoseconds(path: Path, columns: Sequence[int]) -> tuple[int, str] | None:
    """A column with such digits and a value that has them; None if there is none.

    Args:
        path: the file.
        columns: those to be looked at, by their place.
    """
    fine = pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
    coarse = pq.ParquetFile(
        path, buffer_size=_BUFFER, pre_buffer=False, coerce_int96_timestamp_unit="us"
    )
    names = fine.schema_arrow.names
    wanted = [names[index] for index in columns]
    chosen = None
    if all("." not in name and names.count(name) == 1 for name in wanted):
        chosen = wanted
    places = range(len(columns)) if chosen is not None else columns
    with fine, coarse:
        pairs = zip(
            fine.iter_batches(_BATCH, columns=chosen),
            coarse.iter_batches(_BATCH, columns=chosen),
            strict=True,
        )
        for whole, rough in pairs:
            for index, place in zip(columns, places, strict=True):
                example = _find_cut(whole.column(place), rough.column(place))
                if example is not None:
                    return index, example
    return None


def _find_cut(whole: pa.Array, rough: pa.Array) -> str | None:
    if rough.type != whole.type:
        # INT96: nanoseconds may have run over 64 bits, and so does the product, alike.
        product = pc.multiply(rough.view(pa.int64()), 1000)
        odd = pc.filter(whole, pc.not_equal(product, whole.view(pa.int64())))
        return str(odd[0].cast(pa.string())) if len(odd) else None
    try:
        pc.cast(whole, _in_microseconds(whole.type), safe=True)
    except pa.ArrowInvalid:
        return _example(whole)
    return None


def _example(values: pa.Array) -> str:
    if not pa.types.is_nested(values.type):
        wanted = _in_microseconds(values.type)
        back = pc.cast(pc.cast(values, wanted, safe=False), values.type, safe=False)
        values = pc.filter(values, pc.not_equal(back, values))
        return str(values[0].cast(pa.string()))
    return "one of its values"


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz) if kind.unit == "ns" else kind
    if pa.types.is_time64(kind):
        return pa.time64("us")
    if pa.types.is_map(kind):
        return pa.map_(_in_microseconds(kind.key_type), _in_microseconds(kind.item_type))
    if pa.types.is_list(kind):
        return pa.list_(_in_microseconds(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_in_microseconds(kind.value_type))
    if pa.types.is_struct(kind):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        return pa.struct([field.with_type(_in_microseconds(field.type)) for field in fields])
    return kind
