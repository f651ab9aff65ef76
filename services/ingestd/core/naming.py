"""What the files of one ingest are called, in messages, rejects and answers."""

from __future__ import annotations

from contextlib import suppress

from shared.wire.ingestd import MOST_NAME


def name_file(given: str | None, number: int) -> str:
    """A file's name without folders and control characters; `file-3` where it has none.

    Args:
        given: as the form's header has it, read as latin-1; browsers write UTF-8.
        number: its place, from 1.
    """
    name = given or ""
    # What was written otherwise, or decoded as RFC 2231 has it, stays.
    with suppress(UnicodeError):
        name = name.encode("latin-1").decode("utf-8")
    # How a quote is written in a form's header.
    name = name.replace("%22", '"').replace("\\", "/").rpartition("/")[2]
    name = "".join(letter for letter in name if letter.isprintable()).strip()
    return shorten_name(name) or f"file-{number}"


def shorten_name(name: str) -> str:
    """A name or key within bounds: what tells files apart is mostly at the end."""
    return name if len(name) <= MOST_NAME else f"…{name[1 - MOST_NAME :]}"
