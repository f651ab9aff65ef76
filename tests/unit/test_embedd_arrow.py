"""The Arrow stream that embedd writes by itself, read by pyarrow."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest

from services.embedd.store.arrow import write_end, write_rows, write_schema


@pytest.mark.parametrize(("rows", "dim"), [(1, 384), (3, 5), (7, 1), (1000, 384), (2, 1023)])
def test_pyarrow_reads_what_was_written(rows: int, dim: int) -> None:
    vectors = np.random.default_rng(rows).standard_normal((rows, dim)).astype("<f4")
    metadata = {"model": "p/m@0123456789ab", "truncated": "[1, 2]", "empty": ""}
    stream = write_schema(dim, metadata) + write_rows(vectors.tobytes(), rows, dim) + write_end()
    table = pa.ipc.open_stream(stream).read_all()
    table.validate(full=True)
    assert table.schema.field("vector").type == pa.list_(pa.float32(), dim)
    assert not table.schema.field("vector").nullable
    assert {k.decode(): v.decode() for k, v in table.schema.metadata.items()} == metadata
    flat = table["vector"].combine_chunks().flatten().to_numpy()
    assert flat.tobytes() == vectors.tobytes()


def test_every_message_is_aligned_and_the_stream_ends() -> None:
    schema = write_schema(3, {"a": "b"})
    rows = write_rows(bytes(12), 1, 3)
    assert len(schema) % 8 == 0
    assert len(rows) % 8 == 0
    assert write_end() == b"\xff\xff\xff\xff\x00\x00\x00\x00"


def test_several_batches_make_one_table() -> None:
    part = np.ones((2, 4), "<f4").tobytes()
    stream = write_schema(4, {}) + write_rows(part, 2, 4) + write_rows(part, 2, 4) + write_end()
    assert pa.ipc.open_stream(stream).read_all().num_rows == 4
