"""One index in memory: writes make a new view, readers keep the one they began with.

A view never changes, so a search sees every upsert wholly or not at all and waits for
nobody. Writes, graph changes and rebuilds publish the next view under one lock that readers
never take.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from services.vectord.core.plans import should_compact, should_merge
from services.vectord.core.records import Delete, Upsert, Write
from services.vectord.store.graph import Graph, Stopped, extend_graph
from services.vectord.store.lexical import Lexical, Searcher
from services.vectord.store.table import ALIVE, Matrix, Table
from shared.filters.columns import Columns
from shared.filters.language import Field, look_up
from shared.wire.vectord import IndexSpec

Mask = np.ndarray[Any, np.dtype[np.bool_]]
# Rows copied at once when an index is rebuilt.
_COPY_ROWS = 8192


@dataclass(frozen=True)
class View:
    """The index at one instant: `rows` rows of `table`, those that died by `generation` gone."""

    seq: int
    generation: int
    rows: int
    live: int
    table: Table
    columns: Columns
    matrix: Matrix
    norms: Matrix
    died: np.ndarray[Any, Any]
    graph: Graph | None
    searcher: Searcher | None

    @cached_property
    def alive(self) -> Mask:
        """Which rows this view sees."""
        return self.died[: self.rows] > self.generation

    @property
    def graph_rows(self) -> int:
        """Rows below this are in the graph, unless they were dead when it was built."""
        return self.graph.rows if self.graph else 0

    def find(self, name: str) -> int | None:
        """The row of an item as this view sees it."""
        return self.table.find(name, self.rows, self.generation)

    @property
    def memory_bytes(self) -> int:
        """About how much memory the index takes."""
        return self.table.memory_bytes + (self.graph.memory_bytes if self.graph else 0)


def read_columns(table: Table) -> Columns:
    """The metadata of a table's rows by column."""

    def read(row: int, fields: Sequence[Field]) -> list[object]:
        metadata = orjson.loads(table.metadata[row])
        return [look_up(metadata, field.name) for field in fields]

    return Columns(read)


class VectorIndex:
    """Rows, graph and texts of one index. All of it blocks; call it from a pool.

    Args:
        spec: what it is made of.
        table: rows of a snapshot, or empty. graph: theirs. seq: the snapshot's last record.
    """

    def __init__(
        self, spec: IndexSpec, table: Table | None = None, graph: Graph | None = None, seq: int = 0
    ) -> None:
        self.spec = spec
        self._lock = threading.Lock()
        table = table or Table(spec.dim)
        self._lexical = Lexical(table.texts, spec.language)
        self._lexical.add(0, table.texts)
        self.view = View(
            seq,
            0,
            table.rows,
            table.live,
            table,
            read_columns(table),
            table.matrix,
            table.norms,
            table.died,
            graph,
            self._lexical.commit(),
        )

    def reserve(self, count: int) -> None:
        """Makes room for rows, so that applying them after they are durable cannot fail."""
        with self._lock:
            self.view.table.reserve(count)

    def apply(self, writes: Iterable[tuple[int, Write]]) -> list[int]:
        """Applies writes that are durable, as (seq, write); they become visible together.

        Gives, for each, how many items it wrote or removed.
        """
        with self._lock:
            view = self.view
            generation = view.generation + 1
            counts: list[int] = []
            seq = view.seq
            for number, write in writes:
                counts.append(self._apply(view.table, write, generation))
                seq = max(seq, number)
            self._publish(view, seq, generation)
            return counts

    def _apply(self, table: Table, write: Write, generation: int) -> int:
        if isinstance(write, Delete):
            gone = table.remove(write.ids, generation)
            self._lexical.remove(gone)
            return len(gone)
        table.reserve(len(write.ids))
        vectors = np.frombuffer(write.vectors, np.float32).reshape(len(write.ids), table.dim)
        first = table.rows
        gone = table.append(write.ids, vectors, write.texts, write.metadata, generation)
        self._lexical.remove(row for row in gone if table.texts[row])
        self._lexical.add(first, write.texts)
        return len(write.ids)

    def _publish(self, view: View, seq: int, generation: int) -> None:
        table = view.table
        self.view = replace(
            view,
            seq=seq,
            generation=generation,
            rows=table.rows,
            live=table.live,
            matrix=table.matrix,
            norms=table.norms,
            died=table.died,
            searcher=self._lexical.commit(),
        )

    def is_unsettled(self, merge_rows: int, fraction: float, *, idle: bool) -> bool:
        """Whether `settle` would find something to do."""
        view = self.view
        dead = view.rows - view.live
        return should_compact(dead, view.rows, fraction, merge_rows) or should_merge(
            view.rows - view.graph_rows, view.rows, merge_rows, idle
        )

    def settle(
        self,
        merge_rows: int,
        fraction: float,
        *,
        idle: bool,
        folder: Path,
        threads: int,
        stopping: Callable[[], bool],
    ) -> bool:
        """Rebuilds without dead rows, or takes new rows into the graph; whether it did.

        Runs beside writes and searches; one call at a time.

        Raises:
            Stopped: `stopping` said so; nothing changed.
            OSError: there is no room for the copy of the graph; nothing changed.
        """
        view = self.view
        if should_compact(view.rows - view.live, view.rows, fraction, merge_rows):
            self._compact(view, folder, threads, stopping)
            return True
        if should_merge(view.rows - view.graph_rows, view.rows, merge_rows, idle):
            start = view.graph_rows
            wanted = start + np.flatnonzero(view.alive[start:])
            graph = extend_graph(
                self.spec,
                view.graph,
                view.matrix,
                wanted,
                view.rows,
                folder=folder,
                threads=threads,
                stopping=stopping,
            )
            with self._lock:
                self.view = replace(self.view, graph=graph)
            return True
        return False

    def _compact(
        self, view: View, folder: Path, threads: int, stopping: Callable[[], bool]
    ) -> None:
        """Builds a new table and graph of what is alive, and moves over what changed meanwhile."""
        old = view.table
        fresh = Table(self.spec.dim)
        lexical = Lexical(fresh.texts, self.spec.language)
        kept = np.flatnonzero(view.alive)
        fresh.reserve(len(kept))
        for start in range(0, len(kept), _COPY_ROWS):
            if stopping():
                raise Stopped
            _copy(view.matrix, old, kept[start : start + _COPY_ROWS].tolist(), fresh, lexical)
        rows = fresh.rows
        graph = extend_graph(
            self.spec,
            None,
            fresh.matrix,
            np.arange(rows),
            rows,
            folder=folder,
            threads=threads,
            stopping=stopping,
        )
        lexical.commit()
        with self._lock:
            now = self.view
            # What died meanwhile and was not replaced is removed; what came is appended.
            died = old.died[: view.rows]
            gone = np.flatnonzero((died > view.generation) & (died != ALIVE)).tolist()
            generation = now.generation + 1
            lexical.remove(fresh.remove([old.ids[row] for row in gone], generation))
            came = view.rows + np.flatnonzero(old.died[view.rows : now.rows] == ALIVE)
            fresh.reserve(len(came))
            _copy(now.matrix, old, came.tolist(), fresh, lexical, generation)
            retired, self._lexical = self._lexical, lexical
            base = replace(now, table=fresh, columns=read_columns(fresh), graph=graph)
            self._publish(base, now.seq, generation)
        retired.close()

    def close(self) -> None:
        """Lets go of the text index's threads."""
        with self._lock:
            self._lexical.close()


def _copy(
    matrix: Matrix,
    old: Table,
    rows: Sequence[int],
    fresh: Table,
    lexical: Lexical,
    generation: int = 0,
) -> None:
    texts = [old.texts[row] for row in rows]
    lexical.add(fresh.rows, texts)
    fresh.append(
        [old.ids[row] for row in rows],
        matrix[rows],
        texts,
        [old.metadata[row] for row in rows],
        generation,
    )


__all__ = ["Delete", "Upsert", "VectorIndex", "View"]
