"""Answers as they are written: Arrow IPC, one JSON body, JSON lines or CSV.

All read the query's own stream of Arrow batches, so the query runs once, in order, and
no more than a few batches are held. Text is written by a second database of the worker
(`Scribe`) that sees nothing but these batches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import duckdb
import orjson
import pyarrow as pa

from services.queryd.core.accept import Format, refuse_lossy
from services.queryd.core.csvtext import write_header, write_row_csv
from services.queryd.core.jsontext import SqlType, write_row_array, write_row_object
from services.queryd.core.pace import LEAST_AHEAD_BYTES

Part = memoryview | bytes
Send = Callable[[Sequence[Part]], None]
Begun = Callable[[bool | None], None]

# Bytes of a CSV answer that are held until its end is seen, so that its headers can tell
# whether rows were left out; a longer one is sent without that.
_HELD_BYTES = 1 << 20

ARROW_END = b"lakehouse.truncated"
ARROW_ROWS = b"lakehouse.row_count"


class Result(Protocol):
    """Writes one answer: `begin` once, `batch` until it says no, `end` once."""

    rows: int
    truncated: bool

    def run(self, send: Send, begun: Begun) -> None:
        """Writes the answer; calls `begun` when the first rows are there.

        `begun` is told whether rows will be left out, or None where the body itself tells, or
        where that is not known yet.
        """
        ...


def cut_batches(
    batches: Iterator[pa.RecordBatch], max_rows: int
) -> Iterator[tuple[pa.RecordBatch, bool]]:
    """Batches up to `max_rows` rows in all; True beside the last one when more would follow."""
    left = max_rows
    for batch in batches:
        if batch.num_rows > left:
            yield batch.slice(0, left), True
            return
        left -= batch.num_rows
        yield batch, False


class Sink:
    """A file to pyarrow's writers: keeps the buffers it is given, or copies of them."""

    closed = False

    def __init__(self, *, copies: bool = False) -> None:
        self.parts: list[Part] = []
        self._copies = copies

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self.parts.append(bytes(view) if self._copies else view)
        return view.nbytes

    def take(self) -> list[Part]:
        parts, self.parts = self.parts, []
        return parts

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


class ArrowResult:
    """An Arrow IPC stream. It ends with a batch of no rows whose metadata tells the rest."""

    def __init__(self, reader: pa.RecordBatchReader, max_rows: int) -> None:
        self._reader = reader
        self._max_rows = max_rows
        self.rows = 0
        self.truncated = False

    def run(self, send: Send, begun: Begun) -> None:
        batches = cut_batches(iter(self._reader), self._max_rows)
        first = next(batches, None)
        begun(None)
        sink, schema = Sink(), self._reader.schema
        writer = pa.ipc.new_stream(pa.PythonFile(sink, "w"), schema)
        while first is not None:
            batch, self.truncated = first
            if batch.num_rows:
                writer.write_batch(batch)
                self.rows += batch.num_rows
                send(sink.take())
            first = next(batches, None)
        empty = pa.RecordBatch.from_arrays([pa.nulls(0, f.type) for f in schema], schema=schema)
        told = {
            ARROW_END: b"true" if self.truncated else b"false",
            ARROW_ROWS: str(self.rows).encode(),
        }
        writer.write_batch(empty, custom_metadata=told)
        writer.close()
        send(sink.take())


class Scribe:
    """A database that turns Arrow batches into JSON text. It reads no file and no user's SQL."""

    def __init__(self, memory_mb: int) -> None:
        self._connection = duckdb.connect(
            ":memory:",
            config={
                # A second one would hold as many rows again, and make nothing faster.
                "threads": 1,
                "enable_external_access": "false",
                "python_enable_replacements": "false",
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "memory_limit": f"{memory_mb}MiB",
                "errors_as_json": "true",
            },
        )
        self._connection.execute("SET TimeZone = 'UTC'")
        # Whole rows as text are long, and DuckDB counts them as 16 bytes each.
        self._connection.execute(f"SET streaming_buffer_size = '{LEAST_AHEAD_BYTES}B'")

    def write(
        self, reader: pa.RecordBatchReader, row: str, columns: int, rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Batches of one text column, a row of `reader` each."""
        names = ", ".join(f"c{i}" for i in range(columns))
        # As a bare capsule it is read without pyarrow's dataset machinery, which would
        # refuse columns of one name and costs more than the formatting.
        self._connection.register("result", reader.__arrow_c_stream__())
        query = self._connection.execute(f"SELECT {row} FROM result AS q({names})")
        yield from query.to_arrow_reader(rows)

    def forget(self) -> None:
        """Lets go of the last query's batches."""
        self._connection.unregister("result")

    def close(self) -> None:
        """Ends the database."""
        self._connection.close()


class JsonResult:
    """One JSON body: columns, rows as arrays, and what was counted after them."""

    def __init__(
        self,
        batches: Iterator[pa.RecordBatch],
        columns: Sequence[tuple[str, str]],
        max_rows: int,
        begun_at: float,
    ) -> None:
        self._batches = batches
        self._columns = [{"name": name, "type": kind} for name, kind in columns]
        self._max_rows = max_rows
        self._begun_at = begun_at
        self.rows = 0
        self.truncated = False

    def run(self, send: Send, begun: Begun) -> None:
        batches = cut_batches(self._batches, self._max_rows)
        first = next(batches, None)
        begun(None)
        head = b'{"columns":' + orjson.dumps(self._columns) + b',"rows":['
        parts: list[Part] = [head]
        while first is not None:
            batch, self.truncated = first
            text = take_text(batch)
            # Each row's text begins with a comma; the body's first row needs none.
            parts.append(text[1:] if self.rows == 0 else text)
            self.rows += batch.num_rows
            send(parts)
            parts = []
            first = next(batches, None)
        tail = {
            "row_count": self.rows,
            "truncated": self.truncated,
            "elapsed_ms": round((time.perf_counter() - self._begun_at) * 1000, 3),
        }
        send([*parts, b"]," + orjson.dumps(tail)[1:]])


class NdjsonResult:
    """One JSON object a line; a last line tells when rows were left out."""

    def __init__(self, batches: Iterator[pa.RecordBatch], max_rows: int) -> None:
        self._batches = batches
        self._max_rows = max_rows
        self.rows = 0
        self.truncated = False

    def run(self, send: Send, begun: Begun) -> None:
        batches = cut_batches(self._batches, self._max_rows)
        first = next(batches, None)
        begun(None)
        while first is not None:
            batch, self.truncated = first
            self.rows += batch.num_rows
            send([take_text(batch)])
            first = next(batches, None)
        if self.truncated:
            told = {"$truncated": True, "$row_count": self.rows}
            send([orjson.dumps(told) + b"\n"])


class CsvResult:
    """Lines of CSV under a header line.

    The format has no place to tell that rows were left out. An answer of up to a MiB is held
    until that is known, for the headers; a longer one is told about by how it ends.
    """

    def __init__(
        self, batches: Iterator[pa.RecordBatch], names: Sequence[str], max_rows: int
    ) -> None:
        self._batches = batches
        self._head = write_header(names)
        self._max_rows = max_rows
        self.rows = 0
        self.truncated = False

    def run(self, send: Send, begun: Begun) -> None:
        held: list[Part] | None = [self._head]
        size = 0
        for batch, last in cut_batches(self._batches, self._max_rows):
            self.truncated = last
            text = take_text(batch)
            self.rows += batch.num_rows
            if held is None:
                send([text])
                continue
            held.append(text)
            size += text.nbytes
            if size > _HELD_BYTES and not self.truncated:
                begun(None)
                send(held)
                held = None
        if held is not None:
            begun(self.truncated)
            send(held)


def take_text(batch: pa.RecordBatch) -> memoryview:
    """The bytes of a batch's one text column, row after row: they lie so in its buffer."""
    column = batch.column(0)
    if not len(column):
        return memoryview(b"")
    _, offsets, data = column.buffers()
    wide = pa.types.is_large_string(column.type)
    ends = memoryview(offsets).cast("q" if wide else "i")
    return memoryview(data)[ends[column.offset] : ends[column.offset + len(column)]]


def make_result(
    form: Format,
    reader: pa.RecordBatchReader,
    columns: Sequence[tuple[str, SqlType]],
    scribe: Scribe,
    max_rows: int,
    batch_rows: int,
    begun_at: float,
) -> Result:
    """What writes the answer in a format; `batch_rows` are written at a time.

    Raises:
        Unprocessable: the format cannot carry a column's values whole.
    """
    refuse_lossy(form, columns)
    if form is Format.ARROW:
        return ArrowResult(reader, max_rows)
    if form is Format.PARQUET:
        from services.queryd.worker.parquet import ParquetResult

        return ParquetResult(reader, max_rows)
    names, types = [name for name, _ in columns], [kind for _, kind in columns]
    if form is Format.CSV:
        lines = scribe.write(reader, write_row_csv(types), len(columns), batch_rows)
        return CsvResult(lines, names, max_rows)
    if form is Format.NDJSON:
        lines = scribe.write(reader, write_row_object(names, types), len(columns), batch_rows)
        return NdjsonResult(lines, max_rows)
    arrays = scribe.write(reader, write_row_array(types), len(columns), batch_rows)
    return JsonResult(arrays, [(n, k.name) for n, k in columns], max_rows, begun_at)
