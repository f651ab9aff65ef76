"""All that is known, in memory: the traces and their index, kept in step by the log's records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from services.pathwayd.core.records import Change, Retire, Vectors, Write
from services.pathwayd.core.state import State
from services.pathwayd.store.index import Index
from shared.filters.language import Field

# Vectors that callers brought, taken together while loading.
_BULK = 2000


class Memory:
    """Applies records, in whatever order those of different traces come.

    Args:
        keys_kept: Idempotency-Keys that are remembered.
        text_chars: characters of a trace that are searched.
    """

    def __init__(self, keys_kept: int, text_chars: int) -> None:
        self.state = State(keys_kept)
        self.index = Index(text_chars)
        # The model of the newest vectors.
        self.model: str | None = None
        # What filters named before the last checkpoint, to be made ready again.
        self.fields: list[Field] = []
        # Vectors that fit nothing: of another length than their model's others.
        self.misfits = 0
        self._bulk: list[Write] | None = None

    def load(self, changes: Iterable[tuple[int, Change]]) -> None:
        """Takes many changes, as `apply` does one by one; vectors are taken in bulk."""
        self._bulk = []
        for seq, change in changes:
            self.apply(seq, change)
            if len(self._bulk) >= _BULK:
                self._take_bulk()
        self._take_bulk()
        self._bulk = None

    def apply(self, seq: int, change: Change) -> None:
        """Takes one change; one that was taken before changes nothing."""
        if isinstance(change, Vectors):
            # The vector that came first counts; but embedd knows how long its vectors are.
            self._take_bulk()
            space = self.index.spaces.get(change.model)
            if space is not None and space.dim != change.dim:
                self.misfits += space.count
                self.index.drop_space(change.model)
            data = np.frombuffer(change.data, "<f4").reshape(-1, change.dim)
            self._add_vectors(change.model, change.dim, change.of, data)
            return
        if isinstance(change, Retire):
            changed = self.state.retire(seq, change)
        else:
            changed = self.state.write(seq, change)
        for trace in changed:
            self.index.put(trace)
        if isinstance(change, Write) and change.vector is not None and changed:
            if self._bulk is None:
                self._take_own([change])
            else:
                self._bulk.append(change)

    def _take_bulk(self) -> None:
        alike: dict[tuple[str, int], list[Write]] = {}
        for write in self._bulk or ():
            assert write.vector is not None
            alike.setdefault((write.vector.model, len(write.vector.data)), []).append(write)
        for writes in alike.values():
            self._take_own(writes)
        if self._bulk is not None:
            self._bulk = []

    def _take_own(self, writes: Sequence[Write]) -> None:
        """Takes the vectors that callers brought, of one model and length."""
        vectors = [write.vector for write in writes if write.vector is not None]
        data = np.frombuffer(b"".join(vector.data for vector in vectors), "<f4")
        dim = len(data) // len(writes)
        of = tuple((write.id, write.version) for write in writes)
        self._add_vectors(vectors[0].model, dim, of, data.reshape(-1, dim))

    def _add_vectors(
        self,
        model: str,
        dim: int,
        of: tuple[tuple[str, int], ...],
        data: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    ) -> None:
        self.model = model
        space = self.index.spaces.get(model)
        if dim < 1 or (space is not None and space.dim != dim):
            self.misfits += len(of)
        else:
            self.index.add_vectors(model, dim, of, data)
