"""Answers as Parquet files, written as the rows come.

pyarrow's Parquet writer is loaded with the first answer that needs it: most workers never do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from services.queryd.core.jsontext import distinct_names
from services.queryd.worker.results import (
    ARROW_END,
    ARROW_ROWS,
    Send,
    Sink,
    cut_batches,
)
from shared.errors import Unprocessable

if TYPE_CHECKING:
    import pyarrow.parquet as pq

# A row group is written when it holds this much: enough to compress and skip well, little
# enough to wait for in a worker's memory.
_GROUP_ROWS, _GROUP_BYTES = 122_880, 16 << 20


class ParquetResult:
    """One Parquet file in row groups, compressed by Zstandard.

    Its key-value metadata tells what the last batch of an Arrow answer tells.
    """

    def __init__(self, reader: pa.RecordBatchReader, max_rows: int) -> None:
        self._reader = reader
        self._max_rows = max_rows
        self.rows = 0
        self.truncated = False

    def run(self, send: Send, begun: Callable[[bool | None], None]) -> None:
        import pyarrow.parquet as pq

        schema = name_once(self._reader.schema)
        refuse_unheld(schema)
        batches = cut_batches(iter(self._reader), self._max_rows)
        first = next(batches, None)
        begun(None)
        # Its buffers are used again, so that what it writes has to be copied.
        sink = Sink(copies=True)
        writer = pq.ParquetWriter(pa.PythonFile(sink, "w"), schema, compression="zstd")
        group: list[pa.RecordBatch] = []
        while first is not None:
            batch, self.truncated = first
            if batch.num_rows:
                group.append(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
                self.rows += batch.num_rows
            if _is_full(group):
                self._write(writer, sink, group, send)
            first = next(batches, None)
        if group:
            self._write(writer, sink, group, send)
        told = {
            ARROW_END: b"true" if self.truncated else b"false",
            ARROW_ROWS: str(self.rows).encode(),
        }
        writer.add_key_value_metadata({k.decode(): v.decode() for k, v in told.items()})
        writer.close()
        send(sink.take())

    @staticmethod
    def _write(
        writer: pq.ParquetWriter, sink: Sink, group: list[pa.RecordBatch], send: Send
    ) -> None:
        writer.write_table(pa.Table.from_batches(group), row_group_size=_GROUP_ROWS)
        group.clear()
        send(sink.take())


def name_once(schema: pa.Schema) -> pa.Schema:
    """The schema with a repeated name as `name_1`: readers of Parquet take no other."""
    names = distinct_names(schema.names)
    return pa.schema([field.with_name(n) for field, n in zip(schema, names, strict=True)])


def refuse_unheld(schema: pa.Schema) -> None:
    """Lets a schema pass that Parquet can hold.

    Raises:
        Unprocessable: names the column that it cannot.
    """
    for field in schema:
        kind = _find_unheld(field.type)
        if kind:
            raise Unprocessable(
                f"The column '{field.name}' holds {kind}, which Parquet has no type for. Cast it "
                f'("{field.name}"::VARCHAR) or ask for another format.',
                details={"column": field.name},
            )


def _find_unheld(kind: Any) -> str:
    if pa.types.is_interval(kind):
        return "INTERVAL"
    if pa.types.is_union(kind):
        return "UNION"
    inner = [kind.field(i).type for i in range(kind.num_fields)] if kind.num_fields else []
    return next((found for found in map(_find_unheld, inner) if found), "")


def _is_full(group: list[pa.RecordBatch]) -> bool:
    rows = sum(batch.num_rows for batch in group)
    return rows >= _GROUP_ROWS or sum(batch.nbytes for batch in group) >= _GROUP_BYTES
