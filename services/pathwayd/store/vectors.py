"""Vectors as callers bring them."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np

from services.pathwayd.store.planes import check_directions, to_unit
from shared.errors import Invalid

Floats = np.ndarray[Any, np.dtype[np.float32]]
MAX_DIM = 16_384


def read_vector(given: list[float] | str) -> Floats:
    """A vector of a request: numbers, or base64 of little-endian float32.

    Raises:
        Invalid: it is neither, or has no direction.
    """
    if isinstance(given, str):
        try:
            data = base64.b64decode(given, validate=True)
        except (binascii.Error, ValueError):
            raise Invalid("vector: expected numbers, or base64 of little-endian float32.") from None
        if len(data) % 4:
            raise Invalid("vector: its bytes are no whole number of float32.")
        vector = np.frombuffer(data, "<f4")
    else:
        with np.errstate(over="ignore"):
            vector = np.array(given, np.float64).astype(np.float32)
    if not 1 <= len(vector) <= MAX_DIM:
        raise Invalid(f"vector: {len(vector)} numbers; 1 to {MAX_DIM} are allowed.")
    if not check_directions(vector.reshape(1, -1))[0]:
        raise Invalid("vector: it holds NaN or infinity, or is zero and has no direction.")
    return vector


def unit_query(vector: Floats) -> Floats:
    """A query's vector at length 1."""
    return to_unit(vector.reshape(1, -1))[0]
