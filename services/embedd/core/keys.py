"""The name a vector is cached under: a hash of everything that changes it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

# 160 bits: no collision is to be expected among 2^64 texts.
KEY_BYTES = 20


class KeyMaker:
    """Keys for texts under one recipe.

    Args:
        recipe: all that changes a vector beside the text, as text: provider, endpoint, model
            and its hash, dimensions, normalisation, options, the runtime that computes it.
    """

    def __init__(self, recipe: Iterable[str]) -> None:
        self._start = hashlib.blake2b(digest_size=KEY_BYTES)
        for part in recipe:
            encoded = part.encode()
            # Lengths keep ("ab", "c") and ("a", "bc") apart.
            self._start.update(len(encoded).to_bytes(8, "little"))
            self._start.update(encoded)

    def key(self, text: str) -> bytes:
        """The key of one text."""
        hashed = self._start.copy()
        hashed.update(text.encode())
        return hashed.digest()
