"""Which text encoding a file is in, and which files are no text at all."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from shared.errors import Invalid, UnsupportedMediaType

# Longest first: the mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Packed files that are unpacked here, by their first bytes.
_PACKINGS = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "Zstandard"))
# Files that are often sent by mistake, by their first bytes.
_OTHER_FORMATS = (
    (b"BZh", "bzip2", "Unpack it first (bunzip2)."),
    (b"\xfd7zXZ\x00", "xz", "Unpack it first (unxz)."),
    (b"PK\x03\x04", "zip or Excel", "Unpack it, or save the sheet as CSV."),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Excel", "Save the sheet as CSV."),
    (b"ORC", "ORC", "Write it as Parquet."),
    (b"Obj\x01", "Avro", "Write it as Parquet or JSON lines."),
    (b"ARROW1\x00\x00", "Arrow", "Write it as Parquet."),
    (b"%PDF-", "PDF", "Send the table as CSV."),
    (b"\x89PNG", "PNG", "Send the table as CSV."),
    (b"SQLite format 3\x00", "SQLite", "Export the table as CSV."),
)
# What no text has in bytes of one character each.
_CONTROLS = re.compile(rb"[\x01-\x08\x0b\x0c\x0e-\x1f]")
# Encodings whose codecs are no encodings of text, or read state from elsewhere.
_REFUSED = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"})


def find_packing(head: bytes) -> str | None:
    """What a file is packed by: gzip, Zstandard, or None."""
    return next((name for magic, name in _PACKINGS if head.startswith(magic)), None)


def begins_parquet(head: bytes) -> bool:
    """Whether a file is Parquet, encrypted perhaps."""
    return head.startswith((b"PAR1", b"PARE"))


def check_format(head: bytes) -> None:
    """Refuses files whose first bytes say that they are no CSV.

    Raises:
        UnsupportedMediaType: naming what the file is.
    """
    for magic, name, advice in _OTHER_FORMATS:
        if head.startswith(magic):
            raise UnsupportedMediaType(f"This is a {name} file, not a table as text. {advice}")


def parse_encoding(name: str) -> str:
    """The codec's own name for what a caller calls an encoding.

    Raises:
        Invalid: there is no such text encoding.
    """
    try:
        found = codecs.lookup(name.strip())
    except (LookupError, ValueError):
        found = None
    if (
        found is None
        or found.name.replace("-", "_") in _REFUSED
        or not getattr(found, "_is_text_encoding", True)
        or not callable(found.incrementaldecoder)
    ):
        raise Invalid(
            f"There is no text encoding {name[:40]!r}. Use utf-8, utf-16, cp1252, iso8859-15, "
            "shift_jis or another of Python's names, or leave encoding out."
        )
    return found.name


def detect_mark(head: bytes) -> tuple[str, int] | None:
    """The encoding that a byte order mark names and the mark's length."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name, len(mark)
    return None


def detect_wide(head: bytes) -> str | None:
    """UTF-16 without a mark: it shows as NULs in every other byte.

    In Latin text most characters have one; in any other the line ends, delimiters and digits.
    """
    if len(head) < 8:
        return None
    half = len(head) // 2
    even, odd = head[0 : 2 * half : 2].count(0), head[1 : 2 * half : 2].count(0)
    for most, least, name in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if most > 0.7 * half and least < 0.05 * half:
            return name
        if most > 0.02 * half and not least and _is_wide_text(head[: 2 * half], name):
            return name
    return None


def _decodes(data: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return True


def _is_wide_text(data: bytes, encoding: str) -> bool:
    """Whether bytes are lines of text in a wide encoding, and in no other."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data)
    except UnicodeDecodeError:
        return False
    if not _CONTROLS.search(data) and _decodes(data[:-3]):
        # Plain text with a NUL here and there.
        return False
    printable = all(one >= " " or one in "\t\r\n" for one in text)
    return printable and "\n" in text and not any("\ue000" <= one <= "\uf8ff" for one in text)


@dataclass(slots=True)
class TextCount:
    """What of a whole file is UTF-8: characters past ASCII, and bytes that are damage."""

    valid: int = 0
    invalid: int = 0

    def feed(self, lines: bytes) -> None:
        """Counts whole lines."""
        if lines.isascii():
            return
        text = lines.decode("utf-8", "replace")
        damaged = text.count("\ufffd") - lines.count(b"\xef\xbf\xbd")
        ascii_length = len(lines) - len(lines.translate(None, _ASCII))
        self.invalid += damaged
        self.valid += len(text) - ascii_length - damaged

    @property
    def is_utf8(self) -> bool:
        """Whether the file is UTF-8, if with damaged lines, and not in a one-byte encoding.

        Letters of one-byte encodings hardly ever make up valid UTF-8 by chance, so a file
        with more valid characters than damaged ones is UTF-8.
        """
        return self.valid >= self.invalid


_ASCII = bytes(range(128))


def _decode_cp1252() -> str:
    """cp1252 with its five unused bytes mapped to themselves, as browsers do: no loss."""
    table: list[str] = []
    for value in range(256):
        try:
            table.append(bytes([value]).decode("cp1252"))
        except UnicodeDecodeError:
            table.append(chr(value))
    return "".join(table)


CP1252_TABLE = _decode_cp1252()
