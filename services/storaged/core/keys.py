"""Object keys: which are allowed, and the file names they map to.

A key is 1 to 1,024 bytes of UTF-8, its segments divided by single slashes. Each segment
becomes one name in the file system, so that people find their files and engines see the
extension: ASCII letters, digits, `.`, `_` and `-` stand for themselves, any other byte is
`~` and two hexadecimal digits. A directory's name has one more `~` at its end, so the
objects `a` and `a/b` live side by side. A segment whose name would be too long for a file
system is `~_`, its stem in base64url, and its extension. Names are plain ASCII and free of
`%`, `=` and spaces: they read the same to engines that decode addresses and to those that
do not, look like no partition of a table, and do not depend on a locale.

The mapping is injective and `parse_name` reverses it.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from shared.errors import Invalid

MAX_KEY_BYTES = 1024
# What common file systems take for one name, less the mark of a directory.
MAX_NAME_BYTES = 254
DIRECTORY_MARK = "~"

_PLAIN = re.compile(r"[A-Za-z0-9._-]+")
_BROKEN_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPE = re.compile(r"~([0-9A-F]{2})")
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,16}$")
_DENSE = "~_"
_ESCAPES = {
    byte: chr(byte) if _PLAIN.fullmatch(chr(byte)) else f"~{byte:02X}" for byte in range(256)
}


class Name(NamedTuple):
    """What a name in the file system stands for."""

    segment: str
    is_directory: bool


def parse_raw_path(raw_path: bytes, mount: bytes) -> str:
    """The key in a request's path as it came over the wire, percent-decoded exactly once.

    Args:
        raw_path: the path without its query, not decoded.
        mount: what precedes the key, up to and including its slash.

    Raises:
        Invalid: the path is no such path, or its key is not allowed.
    """
    if not raw_path.startswith(mount):
        raise Invalid("Write the path before the key literally, without percent-encoding.")
    encoded = raw_path[len(mount) :]
    if _BROKEN_PERCENT.search(encoded):
        raise Invalid("A '%' in the path must begin an escape like %20; write %25 for a plain one.")
    try:
        key = unquote_to_bytes(encoded).decode("utf-8")
    except UnicodeDecodeError:
        raise Invalid("The key is not UTF-8. Percent-encode its UTF-8 bytes.") from None
    check_key(key)
    return key


def check_key(key: str) -> None:
    """Lets an allowed key pass.

    Raises:
        Invalid: with the reason.
    """
    try:
        size = len(key.encode("utf-8"))
    except UnicodeEncodeError:
        raise Invalid("The key holds a lone surrogate, which is no Unicode text.") from None
    if not key:
        raise Invalid("The key is empty. Name the object after /storage/objects/.")
    if size > MAX_KEY_BYTES:
        raise Invalid(
            f"The key is {size} bytes long; at most {MAX_KEY_BYTES} are allowed.",
            details={"key_bytes": size, "limit_bytes": MAX_KEY_BYTES},
        )
    if any(unicodedata.category(char) == "Cc" for char in key):
        raise Invalid("The key holds a control character (such as NUL or a line end).")
    for segment in key.split("/"):
        if not segment:
            raise Invalid("The key begins or ends with '/' or holds '//'. Drop the extra slash.")
        if segment in (".", ".."):
            raise Invalid("No segment of a key may be '.' or '..'. Choose another name.")
        if len(name_segment(segment)) > MAX_NAME_BYTES:
            raise Invalid(
                "A segment of the key is too long for a file name. "
                "Keep each part between slashes under 180 bytes.",
                details={"segment_bytes": len(segment.encode())},
            )


def name_segment(segment: str) -> str:
    """The file name of a segment, without the mark that a directory has."""
    if len(segment) <= MAX_NAME_BYTES and _PLAIN.fullmatch(segment):
        return segment
    name = "".join([_ESCAPES[byte] for byte in segment.encode("utf-8")])
    if len(name) <= MAX_NAME_BYTES:
        return name
    extension = _EXTENSION.search(segment)
    end = extension.start() if extension else len(segment)
    stem = base64.urlsafe_b64encode(segment[:end].encode("utf-8")).decode("ascii").rstrip("=")
    return f"{_DENSE}{stem}{segment[end:]}"


def name_path(key: str) -> tuple[str, ...]:
    """The names from the root down to the object's file; all but the last are directories."""
    *directories, file = [name_segment(segment) for segment in key.split("/")]
    return (*[name + DIRECTORY_MARK for name in directories], file)


def parse_name(name: str) -> Name | None:
    """The segment that a name stands for, or None when no segment has this name."""
    if "~" not in name and _PLAIN.fullmatch(name):
        # Nearly every file: it is its own segment, unless it is one that no key holds.
        is_own = name not in (".", "..") and len(name) <= MAX_NAME_BYTES
        return Name(name, False) if is_own else None
    is_directory = name.endswith(DIRECTORY_MARK)
    bare = name[: -len(DIRECTORY_MARK)] if is_directory else name
    try:
        segment = _decode(bare)
    except (ValueError, binascii.Error):
        return None
    # One segment, one name: whatever else decodes to it was not written by us.
    if segment in ("", ".", "..") or name_segment(segment) != bare or len(bare) > MAX_NAME_BYTES:
        return None
    return Name(segment, is_directory)


def parse_names(names: Iterable[str]) -> list[str]:
    """The segments that names of one folder stand for, those of folders with a slash.

    Foreign names are left out. Folders may hold very many names, nearly all of them plain.
    """
    found: list[str] = []
    is_plain = _PLAIN.fullmatch
    for name in names:
        if "~" not in name and is_plain(name) and len(name) <= MAX_NAME_BYTES:
            found.append(name)
        elif parsed := parse_name(name):
            found.append(parsed.segment + "/" * parsed.is_directory)
    return found


def _decode(bare: str) -> str:
    if bare.startswith(_DENSE):
        stem, dot, extension = bare[len(_DENSE) :].partition(".")
        padded = stem + "=" * (-len(stem) % 4)
        return base64.urlsafe_b64decode(padded).decode("utf-8") + dot + extension
    plain = bare.encode("ascii").decode("latin-1")
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), plain).encode("latin-1").decode()
