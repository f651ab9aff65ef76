"""Checkpoints: a caller's state as of one seq, so that older segments may go.

A checkpoint is one file `checkpoint-<seq>.ckpt`: a JSON line with its seq and time, the
caller's bytes, and a last line of fixed length with the CRC-32 and the length of all that
stands before it. It is written beside its name, synced and renamed, so that a crash leaves
either the whole new one or none, and it is read only after its CRC was found right.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

import orjson

from shared.journal.disk import Disk, sync_directory, write_fully

_NAME = re.compile(r"checkpoint-(\d{20})\.ckpt")
_PARTIAL = ".partial"
_TRAILER = b'\n{"crc":"%08x","bytes":"%020d"}\n'
_TRAILER_BYTES = len(_TRAILER % (0, 0))
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An intact checkpoint: the state after the record `seq`, taken at `t` (microseconds)."""

    seq: int
    t: int
    path: Path
    start: int
    stop: int

    def chunks(self) -> Iterator[bytes]:
        """The caller's bytes, in blocks of no particular length."""
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.start)
            yield from _read_blocks(file, self.stop - self.start)

    def lines(self) -> Iterator[bytes]:
        """The caller's bytes line by line, newlines removed: for a state kept as JSONL."""
        rest = b""
        for block in self.chunks():
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
        if rest:
            yield rest


def write_checkpoint(
    directory: Path, seq: int, t: int, chunks: Iterable[bytes], disk: Disk
) -> Checkpoint:
    """Writes the state after `seq` and returns when it is durable under its name.

    Raises:
        OSError: it could not be written; no trace of it is left if that was possible.
    """
    path = directory / f"checkpoint-{seq:020d}.ckpt"
    partial = path.with_name(path.name + _PARTIAL)
    header = orjson.dumps({"v": 1, "seq": seq, "t": t}) + b"\n"
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        try:
            crc, size = crc32(header), len(header)
            write_fully(disk, fd, header)
            for chunk in chunks:
                write_fully(disk, fd, chunk)
                crc, size = crc32(chunk, crc), size + len(chunk)
            write_fully(disk, fd, _TRAILER % (crc, size))
            disk.fsync(fd)
        finally:
            os.close(fd)
        partial.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    sync_directory(disk, directory)
    return Checkpoint(seq, t, path, len(header), size)


def list_checkpoints(directory: Path) -> list[tuple[int, Path]]:
    """The checkpoints by name, oldest first, whether intact or not."""
    found = ((_NAME.fullmatch(path.name), path) for path in directory.iterdir())
    return sorted((int(match[1]), path) for match, path in found if match)


def latest_checkpoint(directory: Path) -> Checkpoint | None:
    """The newest intact checkpoint; a damaged one is passed over for the one before it."""
    for seq, path in reversed(list_checkpoints(directory)):
        checkpoint = _verify(seq, path)
        if checkpoint is not None:
            return checkpoint
    return None


def remove_partial(directory: Path) -> None:
    """Removes what a crash in the middle of `write_checkpoint` left behind."""
    for path in directory.glob(f"checkpoint-*{_PARTIAL}"):
        path.unlink(missing_ok=True)


def _verify(seq: int, path: Path) -> Checkpoint | None:
    with path.open("rb", buffering=0) as file:
        stop = os.fstat(file.fileno()).st_size - _TRAILER_BYTES
        if stop < 0:
            return None
        crc = 0
        for block in _read_blocks(file, stop):
            crc = crc32(block, crc)
        if file.read(_TRAILER_BYTES) != _TRAILER % (crc, stop):
            return None
        file.seek(0)
        header = file.read(256).partition(b"\n")[0]
    try:
        fields = orjson.loads(header)
        intact = fields["v"] == 1 and fields["seq"] == seq
        return Checkpoint(seq, int(fields["t"]), path, len(header) + 1, stop) if intact else None
    except (ValueError, KeyError, TypeError):
        return None


def _read_blocks(file: BinaryIO, length: int) -> Iterator[bytes]:
    while length > 0:
        block = file.read(min(_BLOCK, length))
        if not block:
            return
        length -= len(block)
        yield block
