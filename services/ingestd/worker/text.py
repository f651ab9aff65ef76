"""The file as UTF-8 text: encoding found out or obeyed, everything read in blocks."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from services.ingestd.core.encoding import (
    CP1252_TABLE,
    TextCount,
    check_format,
    detect_mark,
    detect_wide,
)
from services.ingestd.core.records import RecordTooLong
from shared.errors import Unprocessable

# Large enough that a block's cost is its bytes, small enough to stay in the cache.
BLOCK = 1024 * 1024
HEAD = 64 * 1024
# Places beside the beginning where a sample is taken, and its bytes at each.
WINDOWS = 24
WINDOW = 4 * 1024
# Error handler that puts a lone surrogate for each byte an encoding does not have.
MARK_DAMAGE = "lakehouse.mark_damage"
UTF8 = "utf-8"


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file in UTF-8 (perhaps with damaged lines).

    Attributes:
        path: where it lies.
        start: bytes of byte order mark to pass over.
        size: bytes in all.
        assumed: nobody said that it is UTF-8, and all of it is yet to prove it.
        warnings: what the caller should know.
    """

    path: Path
    start: int
    size: int
    assumed: bool
    warnings: tuple[str, ...] = ()

    def blocks(self) -> Iterator[bytes]:
        """The text in pieces, without the mark."""
        return read_blocks(self.path, self.start)

    def head(self) -> bytes:
        """Whole lines from the beginning; all of it when the file is small."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            data = file.read(HEAD)
            if self.start + len(data) >= self.size:
                return data
            # A first line longer than the sample is read to its end, within reason.
            while b"\n" not in data and b"\r" not in data and len(data) < 64 * HEAD:
                more = file.read(HEAD)
                if not more:
                    return data
                data += more
        end = data.rfind(b"\n")
        if end < 0:
            end = data.rfind(b"\r")
        return data if end < 0 else data[: end + 1]

    def windows(self) -> Iterator[bytes]:
        """Whole lines from places spread over the rest of the file."""
        first = self.start + HEAD
        room = self.size - first - WINDOW
        if room <= 0:
            return
        with self.path.open("rb") as file:
            for index in range(WINDOWS):
                file.seek(first + room * (index + 1) // WINDOWS)
                data = file.read(WINDOW)
                begin, end = data.find(b"\n"), data.rfind(b"\n")
                if 0 <= begin < end:
                    yield data[begin + 1 : end + 1]


def read_blocks(path: Path, start: int = 0) -> Iterator[bytes]:
    """A file's bytes in pieces, from `start`."""
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while block := file.read(BLOCK):
            yield block


def open_text(source: Path, folder: Path, encoding: str | None) -> TextFile:
    """The file as UTF-8, transcoded into `folder` where it is in something else.

    Args:
        source: what was sent.
        folder: for the transcoded copy.
        encoding: what the caller says it is, None to find out.

    Raises:
        UnsupportedMediaType: it is no text.
        Unprocessable: it is empty.
    """
    size = source.stat().st_size
    with source.open("rb") as file:
        head = file.read(4096)
    check_format(head)
    mark = detect_mark(head)
    length = mark[1] if mark else 0
    if size <= length:
        raise Unprocessable("The file is empty. Send a header and at least one row.")
    if encoding is None:
        named = mark[0] if mark else detect_wide(head)
        if named in (None, UTF8):
            return TextFile(source, length, size, assumed=True)
        assert named is not None
        warning = None if mark else f"The file seems to be {named}; pass encoding if it is not."
        return transcode(source, folder, named, length, warning)
    if codecs.lookup(encoding).name in (UTF8, "utf-8-sig", "ascii"):
        start = length if mark and mark[0] == UTF8 else 0
        return TextFile(source, start, size, assumed=False)
    # "utf-16" and "utf-32" find the byte order in the mark themselves; the others must not
    # see one.
    matching = mark is not None and mark[0] == codecs.lookup(encoding).name
    return transcode(source, folder, encoding, length if matching else 0, None)


def transcode(
    source: Path, folder: Path, encoding: str, start: int, warning: str | None
) -> TextFile:
    """A copy in UTF-8.

    Bytes that the encoding does not have come out as bytes that UTF-8 does not have, so
    that the lines they are on are found and kept as rejects like any damaged line.
    """
    target = folder / "text.csv"
    decoder = codecs.getincrementaldecoder(encoding)(errors=MARK_DAMAGE)
    with target.open("wb", buffering=0) as file:
        for block in read_blocks(source, start):
            file.write(decoder.decode(block).encode("utf-8", "surrogatepass"))
        file.write(decoder.decode(b"", True).encode("utf-8", "surrogatepass"))
    warnings = (warning,) if warning else ()
    return TextFile(target, 0, target.stat().st_size, assumed=False, warnings=warnings)


def transcode_cp1252(source: TextFile, folder: Path) -> TextFile:
    """A copy in UTF-8 of a file in cp1252, all 256 bytes of it."""
    target = folder / "text.csv"
    # A text of 256 characters is a mapping too, which the stubs do not know.
    table = cast("Any", CP1252_TABLE)
    with target.open("wb", buffering=0) as file:
        for block in source.blocks():
            file.write(codecs.charmap_decode(block, "strict", table)[0].encode())
    warning = (
        "The file is not UTF-8 and was read as cp1252 (Windows Western European). "
        "Pass encoding if it is something else."
    )
    return TextFile(
        target, 0, target.stat().st_size, assumed=False, warnings=(*source.warnings, warning)
    )


def is_damaged_utf8(text: TextFile, limit: int) -> bool:
    """Whether a file with invalid bytes is UTF-8 with damage, not another encoding."""
    count = TextCount()
    held = b""
    lines = 1
    for block in text.blocks():
        data = held + block
        end = data.rfind(b"\n") + 1
        held = data[end:]
        if len(held) > limit:
            raise RecordTooLong(lines + data.count(b"\n"), limit)
        count.feed(data[:end])
        lines += data.count(b"\n")
    count.feed(held)
    return count.is_utf8


def _mark_damage(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    damaged = error.object[error.start : error.end]
    return "".join(chr(0xDC00 + byte) for byte in damaged), error.end


codecs.register_error(MARK_DAMAGE, _mark_damage)
