"""Blocks of a file as blocks of whole lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from services.ingestd.core.records import RecordTooLong

# Bytes that are taken apart at once.
_GATHERED = 4 * 1024 * 1024


def _gather(blocks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """Blocks joined to some MiB: what is done once a block and column is then done seldom."""
    most = min(_GATHERED, limit // 2)
    held: list[bytes] = []
    size = 0
    for block in blocks:
        held.append(block)
        size += len(block)
        if size >= most:
            yield b"".join(held)
            held.clear()
            size = 0
    if held:
        yield b"".join(held)


def cut_at_lines(blocks: Iterable[bytes], newline: bytes, limit: int) -> Iterator[bytes]:
    """The blocks joined to some MiB, and cut anew where lines end.

    Args:
        newline: what ends a line.
        limit: longest line.

    Raises:
        RecordTooLong: one is longer.
    """
    held: list[bytes] = []
    size = lines = 0
    for block in _gather(blocks, limit):
        end = block.rfind(newline) + 1
        if end:
            whole = b"".join((*held, block[:end]))
            yield whole
            lines += whole.count(newline)
            held, size = [block[end:]], len(block) - end
            continue
        held.append(block)
        size += len(block)
        if size > limit:
            raise RecordTooLong(lines + 1, limit)
    if size:
        yield b"".join(held)
