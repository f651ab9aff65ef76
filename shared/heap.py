"""Memory that a process holds without need goes back to the system only when it is asked for."""

from __future__ import annotations

import contextlib
import ctypes
import re
from pathlib import Path

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+ +(/.*)?")
_DONTNEED = 4


def return_freed_memory() -> None:
    """Gives freed memory back to the system, where the C library can (glibc).

    Takes up to tens of milliseconds for a heap of gigabytes, in which nothing else can
    allocate: for after something large was let go, never for a request's path.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def unmap_idle_code() -> None:
    """Lets go of the pages of libraries' code and constants that this process has touched.

    They stay in the system's page cache and come back by themselves when they are needed: for a
    process that has loaded much and from now on uses little of it. Pages that were ever written
    to, as the loader does, are left alone. Nothing happens where the system tells no mappings.
    """
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with contextlib.suppress(OSError):
        for start, size in _list_untouched(Path("/proc/self/smaps").read_text("utf-8", "replace")):
            madvise(start, size, _DONTNEED)


def _list_untouched(smaps: str) -> list[tuple[int, int]]:
    """Address and bytes of mapped files that cannot be written to and never were."""
    found: list[tuple[int, int]] = []
    mapping: tuple[int, int] | None = None
    for line in smaps.splitlines():
        if head := _MAPPING.fullmatch(line):
            start, end, mode, path = head.groups()
            wanted = path is not None and "w" not in mode and mode.endswith("p")
            mapping = (int(start, 16), int(end, 16) - int(start, 16)) if wanted else None
        elif mapping and line.split() == ["Anonymous:", "0", "kB"]:
            found.append(mapping)
    return found
