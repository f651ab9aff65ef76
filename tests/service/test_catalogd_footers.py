"""Our reading of Parquet footers beside pyarrow's and pyiceberg's, on files of many writers."""

from __future__ import annotations

import datetime as dt
import io
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)

from services.catalogd.core.bounds import BOUNDED_COLUMNS
from services.catalogd.core.schema import assign_ids
from services.catalogd.store.fileio import DurableFileIO
from services.catalogd.store.iceberg import to_schema
from services.catalogd.store.parquet import ParquetFile, read_parquet
from shared.errors import Conflict, LakehouseError
from shared.wire.storaged import ObjectInfo
from tests.support.catalogd import Store, parquet_bytes

ROWS = 5_000


def make_table(seed: int) -> pa.Table:
    """Columns of every type that has bounds, with nulls, in no order."""
    chance = random.Random(seed)

    def column(make: Any, kind: pa.DataType) -> pa.Array:
        values = [None if chance.random() < 0.1 else make() for _ in range(ROWS)]
        return pa.array(values, kind)

    epoch = dt.datetime(2000, 1, 1)
    return pa.table(
        {
            "i": column(lambda: chance.randrange(-(2**31), 2**31), pa.int32()),
            "small": column(lambda: chance.randrange(256), pa.uint8()),
            "l": column(lambda: chance.randrange(-(2**63), 2**63), pa.int64()),
            "f": column(lambda: chance.uniform(-1e6, 1e6), pa.float32()),
            "d": column(lambda: chance.uniform(-1e6, 1e6), pa.float64()),
            "b": column(lambda: chance.random() < 0.5, pa.bool_()),
            "s": column(lambda: "æøå"[chance.randrange(3)] * chance.randrange(30), pa.string()),
            "raw": column(lambda: chance.randbytes(chance.randrange(30)), pa.binary()),
            "day": column(lambda: epoch + dt.timedelta(days=chance.randrange(9000)), pa.date32()),
            "ts": column(lambda: epoch + dt.timedelta(seconds=chance.random()), pa.timestamp("us")),
            "ms": column(lambda: epoch + dt.timedelta(hours=chance.random()), pa.timestamp("ms")),
            "d9": column(lambda: Decimal(chance.randrange(-(10**8), 10**8)), pa.decimal128(9, 0)),
            "d30": column(lambda: Decimal(chance.randrange(10**20)) / 100, pa.decimal128(30, 2)),
            "none": pa.nulls(ROWS, pa.int64()),
            "list": column(lambda: [1] * chance.randrange(4), pa.list_(pa.int32())),
            "st": column(lambda: {"a": 1}, pa.struct([("a", pa.int64())])),
        }
    )


def write_with_arrow(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, row_group_size=1500)


def write_small_decimals(table: pa.Table, path: Path) -> None:
    pq.write_table(
        table,
        path,
        row_group_size=700,
        store_decimal_as_integer=True,
        compression="zstd",
        use_dictionary=False,
        data_page_version="2.0",
        write_page_index=True,
    )


def write_with_duckdb(table: pa.Table, path: Path) -> None:
    with duckdb.connect() as connection:
        connection.register("source", table)
        connection.execute(f"copy source to '{path}' (format parquet, row_group_size 2048)")


def read(path: Path) -> ParquetFile:
    info = ObjectInfo(
        key="k",
        etag="e",
        size=path.stat().st_size,
        uri=f"file://{path}",
        last_modified="2026-01-01T00:00:00Z",
    )
    return read_parquet(DurableFileIO(), info)


@pytest.mark.parametrize("write", [write_with_arrow, write_small_decimals, write_with_duckdb])
def test_statistics_are_those_that_pyiceberg_computes(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "x.parquet"
    write(make_table(7), path)
    ours = read(path)
    assert ours.rows == ROWS
    footer = pq.read_metadata(path)
    ids = assign_ids(ours.columns, {}, 0)
    schema = to_schema(ours.columns, ids)
    theirs = data_file_statistics_from_parquet_metadata(
        footer, compute_statistics_plan(schema, {}), parquet_path_to_id_mapping(schema)
    ).to_serialized_dict()
    names = {number: path for path, number in ids.items()}
    statistics = ours.statistics
    for figure in ("column_sizes", "value_counts", "null_value_counts"):
        expected = {names[number]: value for number, value in theirs[figure].items()}
        assert getattr(statistics, figure) == expected, figure
    for figure in ("lower_bounds", "upper_bounds"):
        expected = {names[number]: value for number, value in theirs[figure].items()}
        found = getattr(statistics, figure)
        assert found == {path: expected[path] for path in found}, figure
        # Not one is missing where pyiceberg has it.
        assert set(found) == set(expected), figure
    assert statistics.split_offsets == theirs["split_offsets"]


def test_only_the_first_columns_of_a_wide_table_have_bounds(tmp_path: Path) -> None:
    path = tmp_path / "wide.parquet"
    pq.write_table(pa.table({f"c{n}": [n] for n in range(BOUNDED_COLUMNS + 50)}), path)
    statistics = read(path).statistics
    assert len(statistics.lower_bounds) == len(statistics.value_counts) == BOUNDED_COLUMNS
    assert len(statistics.column_sizes) == BOUNDED_COLUMNS + 50


@pytest.mark.deep
def test_a_footer_with_any_byte_changed_is_read_or_refused(tmp_path: Path) -> None:
    sink = io.BytesIO()
    pq.write_table(make_table(3).slice(0, 20), sink)
    whole = sink.getvalue()
    length = int.from_bytes(whole[-8:-4], "little")
    chance = random.Random(11)
    path = tmp_path / "x.parquet"
    refused = 0
    for _ in range(1500):
        broken = bytearray(whole)
        for _ in range(chance.choice((1, 1, 3))):
            broken[chance.randrange(len(whole) - 8 - length, len(whole))] = chance.randrange(256)
        path.write_bytes(broken)
        try:
            read(path)
        except LakehouseError:
            refused += 1
    assert 300 < refused < 1500


def test_an_object_that_changed_meanwhile_is_told(tmp_path: Path) -> None:
    store = Store(tmp_path)
    info = store.write("a", {"x": [1]})
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet_bytes({"x": list(range(1000))}))
    with pytest.raises(Conflict, match="replaced"):
        store.registrar.read_objects([info])
    path.unlink()
    with pytest.raises(Conflict, match="deleted"):
        store.registrar.read_objects([info])
