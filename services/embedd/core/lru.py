"""Vectors kept in memory, as many as a number of bytes allows, the longest unused going first."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple


class Entry(NamedTuple):
    """What one text became: float32 numbers (little-endian), tokens read, whether cut off."""

    vector: bytes
    tokens: int
    truncated: bool


# What Python holds for an entry beside the vector's numbers: the key, the tuple, the headers
# of the objects and their places in the table. Measured; a test holds it to the truth. Bytes.
OVERHEAD = 400


class VectorCache:
    """A least-recently-used cache bounded by bytes; with a limit of 0 it keeps nothing."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.evictions = 0
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> Entry | None:
        """The entry, which counts as used now; None when it is not here."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: bytes, entry: Entry) -> None:
        """Keeps the entry, evicting the longest unused until it fits."""
        size = len(entry.vector) + OVERHEAD
        if size > self.max_bytes:
            return
        old = self._entries.pop(key, None)
        if old is not None:
            self.bytes -= len(old.vector) + OVERHEAD
        self._entries[key] = entry
        self.bytes += size
        while self.bytes > self.max_bytes:
            _, gone = self._entries.popitem(last=False)
            self.bytes -= len(gone.vector) + OVERHEAD
            self.evictions += 1
