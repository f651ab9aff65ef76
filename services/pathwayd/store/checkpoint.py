"""A memory as bytes, so that a start need not read the whole log.

A JSON line with counts and sizes, the contents, a JSON line a trace, a line an
Idempotency-Key, then the words and the arrays, one behind the other. The journal guards the
file with a checksum; the log itself is never cut, so a checkpoint only saves time.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from services.pathwayd.core.traces import Trace
from services.pathwayd.store.index import Index, Packed
from services.pathwayd.store.memory import Memory
from services.pathwayd.store.planes import Block
from services.pathwayd.store.postings import Frozen
from shared.filters.language import Field

FORM = 1
_LINES = 2000


class Books(NamedTuple):
    """What a checkpoint keeps beside the index, taken at once."""

    traces: list[Trace]
    keys: list[tuple[str, str, str]]
    model: str | None
    fields: list[Field]


def take_books(memory: Memory) -> Books:
    """The traces by their last change, the keys, and the fields that filters have named."""
    state = memory.state
    return Books(
        [state.traces[name] for name in state.order],
        [(name, digest, of) for name, (digest, of) in state.keys.items()],
        memory.model,
        memory.index.columns.fields,
    )


def write_memory(books: Books, packed: Packed, text_chars: int) -> Iterator[bytes]:
    """The checkpoint's bytes, piece by piece."""
    row_of = {trace.id: row for row, trace in enumerate(packed.entries)}
    words = "\n".join(packed.vocabulary).encode("utf-8")
    frozen = packed.frozen
    header = {
        "form": FORM,
        "text_chars": text_chars,
        "model": books.model,
        "fields": [list(field) for field in books.fields],
        "traces": len(books.traces),
        "keys": len(books.keys),
        "rows": len(packed.entries),
        "words": len(packed.vocabulary),
        "words_bytes": len(words),
        "contents_bytes": sum(len(trace.content) for trace in books.traces),
        "total_words": packed.total_words,
        "postings": len(frozen.rows),
        "offsets": len(frozen.offsets),
        "spaces": [
            {"model": model, "dim": dim, "blocks": [len(block.rows) for block in blocks]}
            for model, dim, blocks in packed.spaces
        ],
    }
    yield orjson.dumps(header, option=orjson.OPT_APPEND_NEWLINE)
    for start in range(0, len(books.traces), _LINES):
        yield b"".join(trace.content for trace in books.traces[start : start + _LINES])
    yield from _lines(_plain(trace, row_of.get(trace.id, -1)) for trace in books.traces)
    yield from _lines(books.keys)
    yield words
    yield packed.holding.tobytes()
    yield packed.lengths.tobytes()
    for part in frozen:
        yield part.tobytes()
    for _, _, blocks in packed.spaces:
        for block in blocks:
            for part in block:
                yield part.tobytes()


def read_memory(chunks: Iterable[bytes], keys_kept: int, text_chars: int) -> Memory:
    """The memory that was written.

    Raises:
        ValueError, KeyError: it is of another form; the log has everything all the same.
    """
    source = _Source(chunks)
    header: dict[str, Any] = orjson.loads(source.line())
    if header["form"] != FORM or header["text_chars"] != text_chars:
        raise ValueError("a checkpoint of another form or setting")
    memory = Memory(keys_kept, text_chars)
    memory.model = header["model"]
    contents = memoryview(source.take(header["contents_bytes"]))
    entries: list[Any] = [None] * header["rows"]
    at = 0
    for _ in range(header["traces"]):
        fields = orjson.loads(source.line())
        row, size = fields[-2:]
        trace = _trace(fields, bytes(contents[at : at + size]))
        at += size
        memory.state.put(trace)
        if row >= 0:
            entries[row] = trace
    if None in entries:
        raise ValueError("a checkpoint with rows that no trace has")
    for _ in range(header["keys"]):
        name, digest, of = orjson.loads(source.line())
        memory.state.keys[name] = (digest, of)
    memory.index = Index.restore(_read_packed(source, header, entries), text_chars)
    memory.fields = [Field(scope, name) for scope, name in header["fields"]]
    return memory


def _read_packed(source: _Source, header: dict[str, Any], entries: Sequence[Trace]) -> Packed:
    words = source.take(header["words_bytes"]).decode("utf-8")
    holding = array("i", source.take(4 * header["words"]))
    lengths = array("i", source.take(4 * header["rows"]))
    frozen = Frozen(
        source.array(np.int64, header["offsets"]),
        source.array(np.int32, header["postings"]),
        source.array(np.uint16, header["postings"]),
    )
    spaces: list[tuple[str, int, list[Block]]] = []
    for space in header["spaces"]:
        dim = space["dim"]
        blocks: list[Block] = []
        for count in space["blocks"]:
            high = source.array(np.int8, count * dim).reshape(count, dim)
            low = source.array(np.int8, count * dim).reshape(count, dim)
            scale = source.array(np.float32, count)
            slack = source.array(np.float32, count)
            blocks.append(Block(high, low, scale, slack, source.array(np.int32, count)))
        spaces.append((space["model"], dim, blocks))
    vocabulary = words.split("\n") if words else []
    return Packed(
        list(entries), vocabulary, holding, lengths, header["total_words"], frozen, spaces
    )


def _plain(trace: Trace, row: int) -> list[Any]:
    return [
        trace.id,
        trace.surface,
        trace.version,
        trace.digest.hex(),
        trace.tags,
        trace.text,
        trace.created,
        trace.updated,
        trace.supersedes,
        trace.superseded_by,
        trace.retired,
        trace.reason,
        trace.seqs,
        trace.seq,
        row,
        len(trace.content),
    ]


def _trace(fields: list[Any], content: bytes) -> Trace:
    name, surface, version, digest, tags, *rest = fields[:-2]
    text, created, updated, supersedes, superseded_by, retired, reason, seqs, seq = rest
    # By position: there may be a million of them.
    return Trace(
        name,
        surface,
        version,
        content,
        bytes.fromhex(digest),
        tuple(tags),
        text,
        created,
        updated,
        supersedes,
        superseded_by,
        retired,
        reason,
        tuple(seqs),
        seq,
    )


def _lines(rows: Iterable[Any]) -> Iterator[bytes]:
    batch: list[bytes] = []
    for row in rows:
        batch.append(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        if len(batch) >= _LINES:
            yield b"".join(batch)
            batch.clear()
    yield b"".join(batch)


class _Source:
    """Bytes that come in chunks, read by line and by length."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._held = b""
        self._at = 0

    def line(self) -> bytes:
        """The next line, without its newline."""
        while True:
            stop = self._held.find(b"\n", self._at)
            if stop >= 0:
                found = self._held[self._at : stop]
                self._at = stop + 1
                return found
            self._held = self._held[self._at :] + self._next()
            self._at = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        parts = [self._held[self._at : self._at + size]]
        self._at += len(parts[0])
        left = size - len(parts[0])
        while left > 0:
            self._held = self._next()
            parts.append(self._held[:left])
            self._at = len(parts[-1])
            left -= self._at
        return b"".join(parts)

    def array(self, kind: Any, count: int) -> Any:
        """The next `count` numbers."""
        return np.frombuffer(self.take(np.dtype(kind).itemsize * count), kind)

    def _next(self) -> bytes:
        for found in self._chunks:
            if found:
                return found
        raise ValueError("a checkpoint that is too short")
