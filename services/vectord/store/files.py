"""Files of an index: written durably, hashed, and told apart when damaged."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from services.vectord.core.snapshots import FileEntry

_BLOCK = 1 << 20


class Damaged(Exception):
    """A snapshot cannot be used; the message says which file and why."""


def to_blocks(data: memoryview | bytes) -> Iterator[memoryview | bytes]:
    """Large data piece by piece."""
    for start in range(0, len(data), _BLOCK):
        yield data[start : start + _BLOCK]


def write_blocks(path: Path, blocks: Iterable[memoryview | bytes]) -> FileEntry:
    """Writes a file durably; gives its size and hash."""
    digest, size = hashlib.sha256(), 0
    with path.open("wb", buffering=0) as file:
        for block in blocks:
            digest.update(block)
            size += len(block)
            rest = memoryview(block)
            while len(rest):
                rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    return FileEntry(size=size, sha256=digest.hexdigest())


def hash_file(path: Path, *, sync: bool = False) -> FileEntry:
    """Size and hash of a file as it lies there."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
        if sync:
            os.fsync(file.fileno())
    return FileEntry(size=size, sha256=digest.hexdigest())


def explain(error: Exception) -> str:
    """Why a file cannot be used, for people."""
    # Never the path: the message is shown to callers.
    return (error.strerror or "cannot be read") if isinstance(error, OSError) else "is damaged"


def sync_folder(folder: Path) -> None:
    """Makes names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(path: Path, content: bytes) -> None:
    """Puts a small file in place, whole and durable."""
    partial = path.with_name(f"{path.name}.partial")
    write_blocks(partial, [content])
    partial.rename(path)
    sync_folder(path.parent)
