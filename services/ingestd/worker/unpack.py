"""Files packed by gzip or Zstandard, unpacked onto the disk within bounds."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from services.ingestd.core.encoding import find_packing
from services.ingestd.core.job import Limits
from shared.errors import TooLarge, Unprocessable, UnsupportedMediaType

_BLOCK = 1024 * 1024
# A file may always unpack to this much: a ratio says little about small ones. Bytes.
_FREE_BYTES = 64 * 1024 * 1024


def unpack(source: Path, folder: Path, limits: Limits) -> Path:
    """The file unpacked into `folder`; itself where it is not packed.

    Raises:
        Unprocessable: it is damaged or cut off.
        TooLarge: it unpacks to more than is allowed: outright, or for its size.
        UnsupportedMediaType: what was packed is packed again.
    """
    packing = find_packing(_head(source))
    if packing is None:
        return source
    target = folder / "unpacked"
    packed = source.stat().st_size
    most = min(limits.unpacked_bytes, max(packed * limits.unpack_ratio, _FREE_BYTES))
    size = 0
    try:
        with _open(source, packing) as read, target.open("wb", buffering=0) as writer:
            while block := read(_BLOCK):
                size += len(block)
                if size > most:
                    raise TooLarge(
                        f"The {packing} file of {packed} bytes unpacks to more than {most} bytes. "
                        "Send it in parts, or raise ingestd.max_unpacked_mb or max_unpack_ratio.",
                        details={"packed_bytes": packed, "limit_bytes": most},
                    )
                writer.write(block)
    except _DamagedError as error:
        raise Unprocessable(
            f"The {packing} file is damaged or cut off; {size} bytes could be unpacked ({error}). "
            "Nothing was stored. Send it again whole.",
            details={"unpacked_bytes": size},
        ) from None
    again = find_packing(_head(target))
    if again is not None:
        raise UnsupportedMediaType(
            f"This {packing} file holds a {again} file. Pack the table once, or not at all."
        )
    return target


class _DamagedError(Exception):
    """What the reader of a packed file said of it."""


@contextmanager
def _open(source: Path, packing: str) -> Generator[Callable[[int], bytes]]:
    """A function that reads so many unpacked bytes, fewer at the end."""
    if packing == "gzip":
        with gzip.open(source, "rb") as file:
            yield lambda size: _read(file, size)
        return
    # Loaded for who sends such a file. The zstandard package would take a cut one for whole.
    import pyarrow as pa

    with pa.input_stream(str(source), compression="zstd") as stream:
        yield lambda size: _read(stream, size)


def _read(file: IO[bytes], size: int) -> bytes:
    try:
        return file.read(size)
    except (EOFError, zlib.error, OSError) as error:
        raise _DamagedError(str(error) or "it ended") from None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)
