"""The C library's heap: what is freed goes back to the system only when it is asked for."""

from __future__ import annotations

import ctypes


def return_freed_memory() -> None:
    """Gives freed memory back to the system, where the C library can (glibc).

    Takes up to tens of milliseconds for a heap of gigabytes, in which nothing else can
    allocate: for after something large was let go, never for a request's path.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
