"""The C library's allocator, told that a relay frees large blocks only to ask for them again."""

from __future__ import annotations

import contextlib
import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def keep_large_blocks() -> None:
    """Has freed blocks of up to 2 MiB kept for the next, up to 8 MiB of them.

    By default glibc gives them back to the kernel, which hands them out again page by page:
    half of what relaying a large answer costs. Other C libraries are left as they are.
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 2 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 8 << 20)
