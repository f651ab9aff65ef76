"""Keys of other people's services, each in a file that only its owner reads."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from shared.errors import Unavailable


def read_key(path: Path, name: str = "") -> str:
    """The key in an environment file (`NAME=key`, or the bare key on a line).

    Args:
        path: the file.
        name: the variable wanted; the first line that has a key when empty.

    Raises:
        Unavailable: it is missing, empty, or open to others; the message says what to do and
            never what is in it.
    """
    try:
        with path.open("rb") as file:
            # Of the opened file, so that nobody can exchange it in between.
            mode = os.fstat(file.fileno()).st_mode
            lines = file.read(65536).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise Unavailable("Its key file cannot be read. Create it with mode 0600.") from None
    if stat.S_IMODE(mode) & 0o077:
        raise Unavailable("Its key file can be read by others. Run chmod 600 on it.")
    for line in lines:
        text = line.strip().removeprefix("export ").strip()
        if not text or text.startswith("#"):
            continue
        variable, equals, value = text.partition("=")
        key = value.strip().strip("\"'") if equals else text
        if not key.isascii() or not key.isprintable():
            raise Unavailable("Its key file holds a key with characters that no header can carry.")
        if key and (not name or not equals or variable.strip() == name):
            return key
    raise Unavailable(f"Its key file is empty. Put {name or 'NAME'}=key into it.")
