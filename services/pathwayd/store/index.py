"""What searches look at: one row for each version that was ever searched, the newest alive.

A row never changes what it stands for. A new version of a trace is a new row, and the old
one is dead from then on; dead rows go when the index is packed, for a checkpoint or to be
put in place of one that holds too many of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from services.pathwayd.core.content import search_text
from services.pathwayd.core.fields import read_fields
from services.pathwayd.core.traces import Trace
from services.pathwayd.core.words import count_words
from services.pathwayd.store.planes import Block, Floats, Mask, Space, SpaceView, check_directions
from services.pathwayd.store.postings import (
    Frozen,
    Postings,
    PostingsView,
    keep_words,
    renumber,
)
from shared.filters.columns import Columns
from shared.filters.language import Field

DEAD, LIVE, SUPERSEDED = 0, 1, 2
_MARKS = {"live": LIVE, "superseded": SUPERSEDED, "retired": DEAD}
# So many dead rows at least, and a quarter of all, before an index is made anew.
CROWDED_ROWS = 5000


class View(NamedTuple):
    """The index as of one instant. `marks` says of each row whether it is alive."""

    entries: Sequence[Trace]
    marks: np.ndarray[Any, np.dtype[np.uint8]]
    postings: PostingsView
    spaces: dict[str, SpaceView]
    columns: Columns


class Packed(NamedTuple):
    """All that an index holds, without its dead rows."""

    entries: list[Trace]
    vocabulary: list[str]
    holding: array[int]
    lengths: array[int]
    total_words: int
    frozen: Frozen
    spaces: list[tuple[str, int, list[Block]]]


class Snapshot(NamedTuple):
    """What a packed index is made of, taken at once and never changed."""

    entries: list[Trace]
    marks: np.ndarray[Any, np.dtype[np.uint8]]
    vocabulary: list[str]
    holding: array[int]
    lengths: array[int]
    total_words: int
    spaces: list[SpaceView]


class Index:
    """The rows. One thread changes it; searches work on views in any thread.

    Args:
        text_chars: characters of a trace that are searched.
    """

    def __init__(self, text_chars: int) -> None:
        self.text_chars = text_chars
        self.entries: list[Trace] = []
        self.marks = bytearray()
        self.row_of: dict[str, int] = {}
        self.postings = Postings()
        self.spaces: dict[str, Space] = {}
        self.columns = Columns(lambda row, fields: read_fields(self.entries[row], fields))
        self.dead = 0

    # --- changing

    def put(self, trace: Trace) -> None:
        """Takes a trace as it is now, in place of what it was."""
        row = self.row_of.get(trace.id)
        if row is not None:
            if trace.status != "retired" and self.entries[row].version == trace.version:
                self.entries[row] = trace
                self.marks[row] = mark_of(trace)
                return
            self._kill(row)
        if trace.status != "retired":
            words, length = count_words(self.text_of(trace))
            row = len(self.entries)
            self.entries.append(trace)
            self.postings.add(row, words, length)
            self.marks.append(mark_of(trace))
            self.row_of[trace.id] = row

    def _kill(self, row: int) -> None:
        trace = self.entries[row]
        words, length = count_words(self.text_of(trace))
        self.postings.remove(words, length)
        self.marks[row] = DEAD
        self.dead += 1
        del self.row_of[trace.id]

    def add_vectors(
        self, model: str, dim: int, of: Sequence[tuple[str, int]], vectors: Floats
    ) -> int:
        """Takes vectors for versions that are searched now; gives how many it took."""
        space = self.make_space(model, dim)
        rows: list[int] = []
        chosen: list[int] = []
        for number, (name, version) in enumerate(of):
            row = self.row_of.get(name)
            if row is None or self.entries[row].version != version or space.has(row):
                continue
            rows.append(row)
            chosen.append(number)
        picked = vectors[chosen]
        good = check_directions(picked)
        if not good.all():
            rows = [row for row, fine in zip(rows, good.tolist(), strict=True) if fine]
            picked = picked[good]
        if rows:
            space.add(rows, picked)
        return len(rows)

    def make_space(self, model: str, dim: int) -> Space:
        """The vectors of a model, made when there are none yet."""
        space = self.spaces.get(model)
        if space is None:
            space = self.spaces[model] = Space(model, dim)
        return space

    def drop_space(self, model: str) -> None:
        """Lets go of the vectors of a model."""
        self.spaces.pop(model, None)

    def drop_spaces(self, keep: str) -> None:
        """Lets go of the vectors of other models."""
        for model in [model for model in self.spaces if model != keep]:
            self.drop_space(model)

    # --- reading

    def text_of(self, trace: Trace) -> str:
        """What stands for a trace in searches."""
        content = None if trace.text is not None else orjson.loads(trace.content)
        return search_text(content, trace.text, self.text_chars)

    def has_vector(self, trace_id: str, model: str | None) -> bool:
        """Whether meaning finds a trace now."""
        row, space = self.row_of.get(trace_id), self.spaces.get(model or "")
        return row is not None and space is not None and space.has(row)

    def list_unembedded(self, model: str) -> list[str]:
        """The traces without a vector of a model, oldest row first."""
        space = self.spaces.get(model)
        alive = ((name, row) for name, row in self.row_of.items())
        return [name for name, row in alive if space is None or not space.has(row)]

    def view(self) -> View:
        """The index as it is now."""
        return View(
            self.entries,
            np.frombuffer(bytes(self.marks), np.uint8),
            self.postings.view(),
            {model: space.view() for model, space in self.spaces.items()},
            self.columns,
        )

    def warm(self, fields: Sequence[Field]) -> None:
        """Makes the columns of fields before a filter asks for them."""
        self.columns.warm(fields, len(self.entries))

    @property
    def is_crowded(self) -> bool:
        """Whether so many rows are dead that packing pays."""
        return self.dead > max(CROWDED_ROWS, len(self.entries) // 4)

    def measure(self) -> dict[str, int]:
        """Bytes in memory by part, nearly."""
        contents = sum(len(trace.content) for trace in self.entries)
        return {
            "vectors": sum(space.memory_bytes for space in self.spaces.values()),
            "words": self.postings.memory_bytes,
            "columns": self.columns.memory_bytes,
            "contents": contents,
            "traces": 700 * len(self.entries),
        }

    # --- packing

    def snapshot(self) -> Snapshot:
        """What `pack` needs, as of now. Seal the postings at the same instant."""
        return Snapshot(
            list(self.entries),
            np.frombuffer(bytes(self.marks), np.uint8),
            list(self.postings.vocabulary),
            self.postings.holding[:],
            self.postings.lengths[:],
            self.postings.total_words,
            [space.view() for space in self.spaces.values()],
        )

    @classmethod
    def restore(cls, packed: Packed, text_chars: int) -> Index:
        """The index that was packed."""
        index = cls(text_chars)
        index.entries.extend(packed.entries)
        index.marks.extend(mark_of(trace) for trace in packed.entries)
        index.row_of = {trace.id: row for row, trace in enumerate(packed.entries)}
        postings = index.postings
        postings.vocabulary = {word: number for number, word in enumerate(packed.vocabulary)}
        postings.holding, postings.lengths = packed.holding, packed.lengths
        postings.texts, postings.total_words = len(packed.entries), packed.total_words
        postings.frozen = packed.frozen
        for model, dim, blocks in packed.spaces:
            index.spaces[model] = Space(model, dim, blocks)
        return index


def mark_of(trace: Trace) -> int:
    """How a trace's row is marked."""
    return _MARKS[trace.status]


def pack(snapshot: Snapshot, frozen: Frozen) -> Packed:
    """A snapshot without its dead rows.

    `frozen` holds the postings of its rows.
    """
    alive: Mask = snapshot.marks != DEAD
    total = len(alive)
    new_row = np.where(alive, np.cumsum(alive) - 1, -1).astype(np.int32)
    kept = np.flatnonzero(alive).tolist()
    spaces: list[tuple[str, int, list[Block]]] = []
    for space in snapshot.spaces:
        blocks: list[Block] = []
        for block in space.blocks:
            inside = block.rows < total
            keep = inside & alive[np.where(inside, block.rows, 0)]
            some = block if keep.all() else block.cut(keep)
            if len(some.rows):
                blocks.append(some._replace(rows=new_row[some.rows]))
        spaces.append((space.model, space.dim, blocks))
    # Words that only dead rows held go with them: texts full of ids and times bring ever new ones.
    moved = renumber(frozen, new_row)
    holding = np.array(snapshot.holding, np.int32)
    used = (holding > 0) | (np.diff(moved.offsets) > 0)
    return Packed(
        [snapshot.entries[row] for row in kept],
        [word for word, keep in zip(snapshot.vocabulary, used.tolist(), strict=True) if keep],
        array("i", holding[used].tobytes()),
        array("i", np.array(snapshot.lengths, np.int32)[alive].tobytes()),
        snapshot.total_words,
        keep_words(moved, used),
        spaces,
    )
