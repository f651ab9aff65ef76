"""Vectors of one model, two bytes a number, compared exactly by scanning.

A vector of length 1 is kept as 16-bit integers times a scale of its own, split into a high
and a low byte in two arrays. A search scans the high bytes (a quarter of float32's memory
traffic) and knows by Cauchy and Schwarz how far each score can be off, |low . q| <= |low|
for |q| = 1; only what may be among the best is compared with both bytes. So what is found
are the true nearest of the 16-bit vectors, whose cosines differ from float32's by less than
1e-4. Scores do not depend on where a vector lies, so they are the same after a restart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float32]]
Doubles = np.ndarray[Any, np.dtype[np.float64]]
Bytes = np.ndarray[Any, np.dtype[np.int8]]
Rows = np.ndarray[Any, np.dtype[np.int32]]
Slots = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

# Vectors compared in one go: their high bytes as float32 stay in the cache.
BLOCK = 2048
# The greatest 16-bit value whose high byte, rounded, is at most 127.
_TOP = 127 * 256
# Rounding of the scan, which is done in float32.
_SCAN_ERROR = 2e-5


class Block(NamedTuple):
    """Some vectors: high and low bytes, scales, how far a scan may be off, and their rows."""

    high: Bytes
    low: Bytes
    scale: Floats
    slack: Floats
    rows: Rows

    def cut(self, keep: slice | Mask) -> Block:
        """Some of them; a slice shares memory."""
        return Block(*(part[keep] for part in self))


def to_unit(vectors: Floats) -> Floats:
    """The vectors at length 1. They must be finite and not zero (see `check_directions`)."""
    wide = vectors.astype(np.float64)
    return (wide / np.linalg.norm(wide, axis=1)[:, None]).astype(np.float32)


def check_directions(vectors: Floats) -> Mask:
    """Which vectors have a direction: finite numbers, and a length that float32 can tell."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return np.isfinite(norms) & (norms > 1e-18)


def quantise(unit: Floats, rows: Rows) -> Block:
    """Vectors of length 1 as a block."""
    scale = np.abs(unit).max(axis=1) / _TOP
    whole = np.rint(unit / scale[:, None]).astype(np.int32)
    high = (whole + 128) >> 8
    low = whole - (high << 8)
    norms = np.sqrt(np.einsum("ij,ij->i", low, low, dtype=np.float64))
    slack = (scale * norms).astype(np.float32) + np.float32(_SCAN_ERROR)
    return Block(high.astype(np.int8), low.astype(np.int8), scale.astype(np.float32), slack, rows)


class Space:
    """All vectors of one model. One thread adds; any number read views."""

    def __init__(self, model: str, dim: int, blocks: Sequence[Block] = ()) -> None:
        self.model = model
        self.dim = dim
        self._full = list(blocks)
        self._open = self._make_block()
        self._filled = 0
        self.count = sum(len(block.rows) for block in blocks)
        # Which rows have a vector, a byte each.
        self.known = bytearray()
        for block in blocks:
            self._note(block.rows)

    def _make_block(self) -> Block:
        wide = (BLOCK, self.dim)
        return Block(
            np.empty(wide, np.int8),
            np.empty(wide, np.int8),
            np.empty(BLOCK, np.float32),
            np.empty(BLOCK, np.float32),
            np.empty(BLOCK, np.int32),
        )

    def add(self, rows: Sequence[int], vectors: Floats) -> None:
        """Takes vectors (any length but zero) for rows."""
        self.add_block(quantise(to_unit(vectors), np.array(rows, np.int32)))

    def add_block(self, made: Block) -> None:
        """Takes vectors as another space keeps them."""
        at, total = 0, len(made.rows)
        while at < total:
            take = min(BLOCK - self._filled, total - at)
            for target, source in zip(self._open, made, strict=True):
                target[self._filled : self._filled + take] = source[at : at + take]
            self._filled += take
            at += take
            if self._filled == BLOCK:
                self._full.append(self._open)
                self._open, self._filled = self._make_block(), 0
        self.count += total
        self._note(made.rows)

    def _note(self, rows: Rows) -> None:
        if len(rows):
            self.known.extend(bytes(max(0, int(rows.max()) + 1 - len(self.known))))
            for row in rows.tolist():
                self.known[row] = 1

    def has(self, row: int) -> bool:
        """Whether a row has a vector here."""
        return row < len(self.known) and self.known[row] == 1

    def view(self) -> SpaceView:
        """The vectors as they are now; what is added later does not show in it."""
        blocks = list(self._full)
        if self._filled:
            blocks.append(self._open.cut(slice(0, self._filled)))
        return SpaceView(self.model, self.dim, blocks)

    @property
    def memory_bytes(self) -> int:
        """What it takes in memory."""
        return sum(part.nbytes for block in (*self._full, self._open) for part in block)


class SpaceView:
    """The vectors of one instant."""

    def __init__(self, model: str, dim: int, blocks: Sequence[Block]) -> None:
        self.model = model
        self.dim = dim
        self.blocks = blocks

    def find_nearest(self, query: Floats, allowed: Mask, k: int) -> list[tuple[int, float]]:
        """The `k` nearest of the allowed rows as (row, cosine), nearest first, ties by row."""
        slots, near, slack = self._scan(query, allowed)
        if len(slots) > k:
            floor = np.partition(near - slack, len(slots) - k)[len(slots) - k]
            keep = near + slack >= floor
            slots, near = slots[keep], near[keep]
            near = near + self._scan_low(slots, query)
            floor = np.partition(near, len(slots) - k)[len(slots) - k]
            slots = slots[near >= floor - 2 * _SCAN_ERROR]
        rows, scores = self._compare(slots, query)
        order = np.lexsort((rows, -scores))[:k]
        return list(zip(rows[order].tolist(), scores[order].tolist(), strict=True))

    def score_rows(self, query: Floats, rows: Sequence[int], total: int) -> dict[int, float]:
        """The cosines of some rows; those without a vector are left out."""
        wanted = np.zeros(total, np.bool_)
        wanted[np.array(rows, np.int64)] = True
        slots = [np.flatnonzero(wanted[block.rows]) + start for start, block in self._each_block()]
        found, scores = self._compare(_join(slots), query)
        return dict(zip(found.tolist(), scores.tolist(), strict=True))

    def _each_block(self) -> Iterator[tuple[int, Block]]:
        start = 0
        for block in self.blocks:
            yield start, block
            start += len(block.rows)

    def _scan(self, query: Floats, allowed: Mask) -> tuple[Slots, Floats, Floats]:
        """Slots of allowed rows, their cosines nearly, and how far off these may be."""
        slots: list[Slots] = []
        near: list[Floats] = []
        slack: list[Floats] = []
        wide = np.empty((BLOCK, self.dim), np.float32)
        total = len(allowed)
        for start, block in self._each_block():
            known = block.rows < total
            keep = np.flatnonzero(allowed[np.where(known, block.rows, 0)] & known)
            if not len(keep):
                continue
            some = block.high[keep] if len(keep) * 2 < len(block.rows) else block.high
            scores = _dot(some, query, wide)
            if len(some) != len(keep):
                scores = scores[keep]
            slots.append(keep + start)
            near.append(scores * (block.scale[keep] * np.float32(256)))
            slack.append(block.slack[keep])
        return _join(slots), _join(near, np.float32), _join(slack, np.float32)

    def _scan_low(self, slots: Slots, query: Floats) -> Floats:
        wide = np.empty((BLOCK, self.dim), np.float32)
        parts = [_dot(b.low, query, wide) * b.scale for b in self._gather(slots)]
        return _join(parts, np.float32)

    def _compare(self, slots: Slots, query: Floats) -> tuple[Rows, Doubles]:
        """Rows and cosines of slots, summed in one order whatever else is compared."""
        exact = query.astype(np.float64)
        rows: list[Rows] = []
        scores: list[Doubles] = []
        for block in self._gather(slots):
            wide = block.high.astype(np.float64) * 256 + block.low
            scores.append((wide * exact).sum(axis=1) * block.scale)
            rows.append(block.rows)
        return _join(rows, np.int32), _join(scores, np.float64)

    def _gather(self, slots: Slots) -> Iterator[Block]:
        at = 0
        for start, block in self._each_block():
            stop = int(np.searchsorted(slots, start + len(block.rows)))
            if stop > at:
                chosen = slots[at:stop] - start
                yield Block(*(part[chosen] for part in block))
                at = stop


def _dot(some: Bytes, query: Floats, wide: Floats) -> Floats:
    part = wide[: len(some)]
    np.copyto(part, some)
    return part @ query


def _join(parts: Sequence[Any], kind: Any = np.int64) -> Any:
    return np.concatenate(parts) if parts else np.empty(0, kind)
