"""The rows of one index: append-only, with the time each one died, so that readers need no lock.

A row is one version of one item and never changes. An upsert appends a row and marks the
old one dead as of the next generation; a reader of generation g sees the rows below its
own count that died after g. Only one thread at a time writes.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from shared.errors import InsufficientStorage

Matrix = np.ndarray[Any, np.dtype[np.float32]]
ALIVE = np.iinfo(np.int64).max
# Rows a new table has room for.
_FIRST_ROWS = 1024
# Past so many bytes of vectors a table grows by a quarter and no longer by doubling.
_DOUBLE_BELOW = 64 * 1024 * 1024


class Table:
    """Rows with their vectors, ids, texts and metadata.

    Vectors lie in memory that is mapped from an anonymous file: it grows without moving, so
    growth copies nothing and a reader's older, shorter view stays true.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.rows = 0
        self.live = 0
        self.ids: list[str] = []
        self.texts: list[str | None] = []
        self.metadata: list[bytes] = []
        self.payload_bytes = 0
        # Row of the newest version of each id, dead or not, and the row before it.
        self._newest: dict[str, int] = {}
        self._previous = array("q")
        self._fd = _open_anonymous()
        self._capacity = 0
        self.matrix: Matrix = np.empty((0, dim), np.float32)
        self.norms: Matrix = np.empty(0, np.float32)
        self.died = np.empty(0, np.int64)

    def __del__(self) -> None:
        os.close(self._fd)

    def reserve(self, count: int) -> None:
        """Makes room for more rows, so that appending them cannot fail.

        Raises:
            InsufficientStorage: there is no memory for them.
        """
        needed = self.rows + count
        if needed <= self._capacity:
            return
        grown = self._capacity * self.dim * 4
        step = self._capacity if grown < _DOUBLE_BELOW else self._capacity // 4
        capacity = max(needed, self._capacity + step, _FIRST_ROWS)
        size = capacity * self.dim * 4
        try:
            os.ftruncate(self._fd, size)
            mapped = mmap.mmap(self._fd, size)
            norms = np.empty(capacity, np.float32)
            died = np.full(capacity, ALIVE, np.int64)
        except (OSError, MemoryError, ValueError):
            raise InsufficientStorage(
                "There is no memory for more vectors. Delete items or give the daemon more."
            ) from None
        norms[: self.rows] = self.norms[: self.rows]
        died[: self.rows] = self.died[: self.rows]
        self.matrix = np.frombuffer(mapped, np.float32).reshape(capacity, self.dim)
        self.norms, self.died, self._capacity = norms, died, capacity

    def append(
        self,
        ids: Sequence[str],
        vectors: Matrix,
        texts: Sequence[str | None],
        metadata: Sequence[bytes],
        generation: int,
    ) -> list[int]:
        """Writes items as of `generation`; gives the rows of older versions that died.

        Room must have been reserved.
        """
        start, stop = self.rows, self.rows + len(ids)
        self.matrix[start:stop] = vectors
        self.norms[start:stop] = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        self.ids.extend(ids)
        self.texts.extend(texts)
        self.metadata.extend(metadata)
        replaced: list[int] = []
        for row, name in enumerate(ids, start=start):
            before = self._newest.get(name, -1)
            self._previous.append(before)
            self._newest[name] = row
            if before >= 0 and self._kill(before, generation):
                replaced.append(before)
        self.payload_bytes += sum(map(len, metadata)) + sum(len(t) for t in texts if t)
        self.rows = stop
        self.live += len(ids)
        return replaced

    def append_dead(self, vectors: Matrix) -> None:
        """Takes rows of a snapshot that were dead already, so that row numbers stay."""
        count = len(vectors)
        self.matrix[self.rows : self.rows + count] = vectors
        self.norms[self.rows : self.rows + count] = 1.0
        self.died[self.rows : self.rows + count] = 0
        self.ids.extend([""] * count)
        self.texts.extend([None] * count)
        self.metadata.extend([b"{}"] * count)
        self._previous.extend([-1] * count)
        self.rows += count

    def remove(self, ids: Sequence[str], generation: int) -> list[int]:
        """Marks items dead as of `generation`; gives the rows of those that were alive."""
        found = ((self._newest.get(name, -1)) for name in ids)
        return [row for row in found if row >= 0 and self._kill(row, generation)]

    def find(self, name: str, rows: int, generation: int) -> int | None:
        """The row that holds an id for a reader of `generation` who sees `rows` rows."""
        row = self._newest.get(name, -1)
        while row >= rows:
            row = self._previous[row]
        return row if row >= 0 and self.died[row] > generation else None

    def newest(self, name: str) -> int:
        """The row of the id's newest version, dead or not; -1 if there never was one."""
        return self._newest.get(name, -1)

    @property
    def memory_bytes(self) -> int:
        """About how much memory the rows take."""
        per_row = self.dim * 4 + 12 + 250
        return self.rows * per_row + self.payload_bytes

    def _kill(self, row: int, generation: int) -> bool:
        if self.died[row] != ALIVE:
            return False
        self.died[row] = generation
        self.live -= 1
        return True


def _open_anonymous() -> int:
    if sys.platform == "linux":
        return os.memfd_create("vectors", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
