"""HNSW graphs: built once, then only searched. A larger one is made beside the old one.

hnswlib forbids adding while others search, so a graph in use is never touched: it is copied
through a file, the copy takes up the new rows, and readers change over to it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np

from services.vectord.store.table import Matrix
from shared.wire.vectord import IndexSpec

# Rows added between two looks at whether to stop.
_BATCH = 512


class Stopped(Exception):
    """The daemon stops; what was being built is thrown away."""


class Graph:
    """A graph over some of the rows below `rows`; its labels are row numbers."""

    def __init__(self, spec: IndexSpec, index: Any, rows: int) -> None:
        self.spec = spec
        self.rows = rows
        self._index = index
        self.size: int = index.get_current_count()

    def search(self, queries: Matrix, width: int, threads: int) -> np.ndarray[Any, Any] | None:
        """The `width` nearest rows of each query, nearest first; None when it cannot tell.

        hnswlib looks at max(ef, k) candidates and keeps ef in the shared index, so the width
        is asked for as k: searches of different widths then never disturb one another.
        """
        try:
            labels, _ = self._index.knn_query(queries, k=width, num_threads=threads)
        except RuntimeError:
            return None  # fewer can be reached: the caller scans
        return labels

    def save(self, path: Path) -> None:
        """Writes the graph to a file.

        Raises:
            OSError: it could not be written whole (hnswlib does not look).
        """
        self._index.save_index(str(path))
        if path.stat().st_size != self._index.index_file_size():
            raise OSError("the graph was not written whole")

    @property
    def memory_bytes(self) -> int:
        """How much memory the graph takes."""
        return int(self._index.index_file_size())


def load_graph(spec: IndexSpec, path: Path, rows: int) -> Graph:
    """A graph from its file.

    Raises:
        ValueError: the file is not what hnswlib wrote, or of another index.
    """
    return Graph(spec, _load(spec, path, 0), rows)


def _load(spec: IndexSpec, path: Path, capacity: int) -> Any:
    index: Any = hnswlib.Index(spec.metric, spec.dim)
    try:
        index.load_index(str(path), max_elements=capacity)
    except RuntimeError as error:
        raise ValueError(f"the graph file cannot be read: {error}") from None
    index.set_ef(1)
    return index


def extend_graph(
    spec: IndexSpec,
    base: Graph | None,
    matrix: Matrix,
    wanted: np.ndarray[Any, Any],
    rows: int,
    *,
    folder: Path,
    threads: int,
    stopping: Callable[[], bool],
) -> Graph | None:
    """A new graph: `base` with the rows `wanted` of `matrix` added; it covers all below `rows`.

    None when it would be empty. `base` stays as it is.

    Raises:
        Stopped: `stopping` said so.
        OSError: there is no room for the copy.
    """
    size = (base.size if base else 0) + len(wanted)
    if size == 0:
        return None
    if base is None:
        index: Any = hnswlib.Index(spec.metric, spec.dim)
        index.init_index(
            max_elements=size, ef_construction=spec.ef_construction, M=spec.m, random_seed=100
        )
        index.set_ef(1)
    else:
        copy = folder / "copy.hnsw"
        try:
            base.save(copy)
            index = _load(spec, copy, size)
        finally:
            copy.unlink(missing_ok=True)
    for start in range(0, len(wanted), _BATCH):
        if stopping():
            raise Stopped
        labels = wanted[start : start + _BATCH]
        index.add_items(matrix[labels], labels, num_threads=threads)
    return Graph(spec, index, rows)
