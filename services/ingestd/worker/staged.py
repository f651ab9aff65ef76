"""Rows put down as Parquet files of text on their way to their types.

A row may bring columns that none before it had, so files are rolled when columns are added
and read together, by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from services.ingestd.core.checks import quote_text
from services.ingestd.worker.duck import column

# Text held before it is written: enough for a row group worth reading. Bytes.
_HELD_BYTES = 8 * 1024 * 1024
_LINE = "line"


@dataclass(frozen=True, slots=True)
class StagedRows:
    """Rows as text: columns c0, c1, …, and the line each began on.

    Attributes:
        paths: the files, in order.
        width: how many columns.
        rows: how many rows.
        size: bytes of text.
    """

    paths: tuple[Path, ...]
    width: int
    rows: int
    size: int

    def sql(self, *, frugal: bool) -> str:
        """A relation for FROM."""
        del frugal
        listed = ", ".join(quote_text(str(path)) for path in self.paths)
        names = ", ".join(column(index) for index in range(self.width))
        return (
            f"(SELECT {_LINE}, 1::BIGINT AS span, {names} "
            f"FROM read_parquet([{listed}], union_by_name=true))"
        )


class Stager:
    """Writes rows, some lines at a time.

    Args:
        folder: for the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: list[Path] = []
        self._writer: pq.ParquetWriter | None = None
        self._schema = pa.schema([])
        # Writes one table while the next is made.
        self._thread = ThreadPoolExecutor(1, "stager")
        self._writing: Future[None] | None = None
        self._held: list[pa.Table] = []
        self._held_bytes = 0
        self.width = 0
        self.rows = 0
        self.size = 0

    def add(self, lines: pa.Array, columns: Mapping[int, pa.Array]) -> None:
        """Takes rows: the number of each one's line, and the texts of the columns they have."""
        arrays = [lines, *columns.values()]
        table = pa.table(arrays, names=[_LINE, *(column(index) for index in columns)])
        self.width = max(self.width, *(index + 1 for index in columns), 0)
        self.rows += table.num_rows
        self.size += table.nbytes
        self._held.append(table)
        self._held_bytes += table.nbytes
        if self._held_bytes >= _HELD_BYTES:
            self._flush()

    def close(self) -> StagedRows:
        """Writes what is left."""
        self._flush()
        self._wait()
        self.abandon()
        return StagedRows(tuple(self._paths), self.width, self.rows, self.size)

    def abandon(self) -> None:
        """Closes the file under way; what else is held is lost."""
        self._thread.shutdown()
        self._end_file()

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _end_file(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _flush(self) -> None:
        if not self._held:
            return
        self._wait()
        if self._writer is None or len(self._schema) < self.width + 1:
            self._end_file()
            names = [column(index) for index in range(self.width)]
            self._schema = pa.schema(
                [(_LINE, pa.int64()), *((name, pa.string()) for name in names)]
            )
            path = self._folder / f"rows-{len(self._paths)}.parquet"
            self._paths.append(path)
            self._writer = pq.ParquetWriter(
                path,
                self._schema,
                compression="snappy",
                use_dictionary=False,
                write_statistics=False,
                store_schema=False,
            )
        held, self._held, self._held_bytes = self._held, [], 0
        self._writing = self._thread.submit(_write, self._writer, self._schema, held)


def _write(writer: pq.ParquetWriter, schema: pa.Schema, held: list[pa.Table]) -> None:
    table = pa.concat_tables([schema.empty_table(), *held], promote_options="default")
    writer.write_table(table.select(schema.names))
