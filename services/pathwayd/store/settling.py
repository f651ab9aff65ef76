"""Background work on a memory: taking up new words, checkpoints, an index made anew.

What is taken at one instant is worked on in a thread; what happened meanwhile is carried
over in one step before the new index takes the old one's place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from services.pathwayd.store.checkpoint import Books, take_books, write_memory
from services.pathwayd.store.index import Index, Packed, Snapshot, pack
from services.pathwayd.store.memory import Memory
from services.pathwayd.store.planes import Space
from services.pathwayd.store.postings import Frozen
from shared.journal import Journal


class Taken(NamedTuple):
    """A memory as of one instant, and what merges its new words with the old ones."""

    merge: Callable[[], Frozen]
    parts: int
    snapshot: Snapshot
    books: Books
    text_chars: int
    spaces: dict[str, Space]


def begin(memory: Memory) -> Taken:
    """Takes everything at once; to be called by whoever changes the memory."""
    index = memory.index
    sealed, snapshot, books = index.postings.seal(), index.snapshot(), take_books(memory)
    return Taken(*sealed, snapshot, books, index.text_chars, dict(index.spaces))


def pack_taken(taken: Taken, frozen: Frozen) -> Packed:
    """What was taken, without its dead rows."""
    return pack(taken.snapshot, frozen)


def write_checkpoint(journal: Journal, seq: int, taken: Taken, packed: Packed) -> None:
    """Stores what was taken as of record `seq`; what is newer in it does no harm.

    Raises:
        InsufficientStorage: there is no room; the log goes on.
    """
    journal.write_checkpoint(seq, write_memory(taken.books, packed, taken.text_chars))


def make_index(memory: Memory, packed: Packed) -> Index:
    """A new index of what was packed."""
    fresh = Index.restore(packed, memory.index.text_chars)
    fresh.warm(memory.index.columns.fields)
    return fresh


def catch_up(memory: Memory, fresh: Index, taken: Taken, packed: Packed) -> None:
    """Carries over what happened since, and puts the new index in place."""
    old = memory.index
    for trace in packed.entries:
        here = old.row_of.get(trace.id)
        now = memory.state.traces[trace.id] if here is None else old.entries[here]
        if now is not trace:
            fresh.put(now)
    for trace_id, row in old.row_of.items():
        if trace_id not in fresh.row_of:
            fresh.put(old.entries[row])
    counts = {s.model: sum(len(b.rows) for b in s.blocks) for s in taken.snapshot.spaces}
    # What was let go of meanwhile is not to come back, though one of its name may have.
    for model in list(fresh.spaces):
        if old.spaces.get(model) is not taken.spaces.get(model):
            fresh.drop_space(model)
    for model, space in old.spaces.items():
        left = counts.get(model, 0) if taken.spaces.get(model) is space else 0
        for block in space.view().blocks:
            skip = min(left, len(block.rows))
            left -= skip
            _carry(old, fresh, model, space.dim, block.cut(slice(skip, None)))
    memory.index = fresh


def _carry(old: Index, fresh: Index, model: str, dim: int, block: Any) -> None:
    """Takes over the vectors of rows that are still alive."""
    rows: list[int] = []
    keep: list[int] = []
    for at, row in enumerate(block.rows.tolist()):
        trace = old.entries[row]
        if old.row_of.get(trace.id) == row:
            keep.append(at)
            rows.append(fresh.row_of[trace.id])
    if rows:
        fresh.make_space(model, dim).add_block(
            block.cut(np.array(keep))._replace(rows=np.array(rows, np.int32))
        )
