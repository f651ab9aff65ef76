"""Parquet files merged into fewer: row by row in their order, a bounded part of them in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from services.catalogd.core.job import MergedPart, MergeJob
from services.catalogd.worker.conform import conform_batch, make_schema

# A row group is written when it has this many rows, or bytes in memory.
GROUP_ROWS = 61_440
GROUP_BYTES = 32 * 1024 * 1024
# Bytes in memory that one read is meant to give.
READ_BYTES = 8 * 1024 * 1024
# As ingestd's files: at level 1 zstd costs no more time than snappy.
COMPRESSION = "zstd"
COMPRESSION_LEVEL = 1
_PIECE = 1024 * 1024


def merge_files(job: MergeJob) -> list[MergedPart]:
    """Writes the rows of all inputs, in order, into files of the target's size at most.

    Raises:
        pa.ArrowException: a file is damaged, or a value does not fit its column.
    """
    parts = Parts(job)
    for path in job.inputs:
        for batch in read_batches(path):
            parts.add(conform_batch(batch, job.columns, parts.schema))
    return parts.finish()


def read_batches(path: str) -> Iterator[pa.RecordBatch]:
    """A file's rows in order, about READ_BYTES at a time."""
    with pq.ParquetFile(path, pre_buffer=False, coerce_int96_timestamp_unit="us") as file:
        metadata = file.metadata
        size = sum(metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups))
        rows = max(1, min(GROUP_ROWS, metadata.num_rows * READ_BYTES // max(1, size)))
        yield from file.iter_batches(batch_size=rows, use_threads=False)


class Parts:
    """The files being written, one at a time."""

    def __init__(self, job: MergeJob) -> None:
        self.schema = make_schema(job.columns)
        self._folder = Path(job.folder)
        self._target = job.target_bytes
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0
        self._bytes = 0
        self._writer: pq.ParquetWriter | None = None
        self._path = Path()
        self._written = 0
        self._done: list[MergedPart] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Adds rows."""
        self._waiting.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._flush()

    def finish(self) -> list[MergedPart]:
        """Ends the last file, and gives all."""
        self._flush()
        self._close()
        return self._done

    def _flush(self) -> None:
        if not self._rows:
            return
        group = pa.Table.from_batches(self._waiting, self.schema)
        # What it takes in memory is more than it will take in the file.
        if self._writer is not None and self._size() + self._bytes > self._target:
            self._close()
        if self._writer is None:
            self._path = self._folder / f"part-{len(self._done)}.parquet"
            self._writer = pq.ParquetWriter(
                self._path,
                self.schema,
                compression=COMPRESSION,
                compression_level=COMPRESSION_LEVEL,
                # Types as Parquet has them: what Arrow notes beside them misleads its readers.
                store_schema=False,
            )
        self._writer.write_table(group, row_group_size=max(1, self._rows))
        self._written += self._rows
        self._waiting, self._rows, self._bytes = [], 0, 0

    def _size(self) -> int:
        return self._path.stat().st_size

    def _close(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        digest = hashlib.sha256()
        with self._path.open("rb") as stream:
            while piece := stream.read(_PIECE):
                digest.update(piece)
        part = MergedPart(str(self._path), self._written, self._size(), digest.hexdigest())
        self._done.append(part)
        self._writer, self._written = None, 0
