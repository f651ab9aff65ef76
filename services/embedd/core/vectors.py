"""Vectors as bytes: float32, little-endian, as they are cached, sent and compared."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable


def pack_vector(numbers: Iterable[float]) -> bytes:
    """Float32 bytes of a vector from another server.

    Raises:
        ValueError: it is empty, or a number is not finite (in float32).
    """
    packed = array("f", numbers)
    if not packed or not all(map(math.isfinite, packed)):
        raise ValueError("a vector is empty or holds a number that is not finite")
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def check_widths(vectors: Iterable[bytes]) -> None:
    """Refuses vectors of unlike width.

    Raises:
        ValueError: they differ.
    """
    widths = sorted({len(vector) // 4 for vector in vectors})
    if len(widths) > 1:
        raise ValueError(f"vectors of {widths} dimensions in one answer")
