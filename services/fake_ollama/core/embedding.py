"""Embeddings without a model: hashed words, so that texts that share words are near.

Each word and each of its letter triples adds to a few numbers that a hash of it chooses
(feature hashing, Weinberger et al. 2009). The same text gives the same vector everywhere.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from functools import lru_cache

_TOKENS = re.compile(r"\w+|[^\w\s]")
# A word's letters count for a little, so that "nurse" and "nurses" are near.
TRIPLE_WEIGHT = 0.25
# Short words are mostly grammar.
SHORT, SHORT_WEIGHT = 3, 0.3
NOISE = 0.01 / 127.5
# Numbers of the vector that one feature touches.
TOUCHED = 4


def tokenize(text: str) -> list[str]:
    """Words and marks; the fake's idea of tokens."""
    return _TOKENS.findall(text)


def truncate(text: str, tokens: int) -> str:
    """The text up to so many tokens."""
    for number, match in enumerate(_TOKENS.finditer(text)):
        if number == tokens:
            return text[: match.start()]
    return text


def embed(text: str, dim: int) -> list[float]:
    """The text's vector, as long as its words make it; never zero."""
    # A little of the text's own hash in every number, so that a part of the vector is a
    # vector as well.
    noise = hashlib.shake_128(text.encode("utf-8", "replace")).digest(dim)
    vector = [(byte - 127.5) * NOISE for byte in noise]
    for feature, weight in _features(text).items():
        digest = _digest(feature)
        for at in range(0, TOUCHED * 3, 3):
            position = int.from_bytes(digest[at : at + 2], "little") % dim
            vector[position] += weight if digest[at + 2] & 1 else -weight
    return vector


def normalize(vector: list[float]) -> list[float]:
    """The vector at length 1."""
    length = max(math.sqrt(sum(x * x for x in vector)), 1e-12)
    return [x / length for x in vector]


@lru_cache(maxsize=10_000)
def _digest(feature: str) -> bytes:
    return hashlib.blake2b(feature.encode("utf-8", "replace"), digest_size=TOUCHED * 3).digest()


def _features(text: str) -> dict[str, float]:
    words = Counter(token for token in tokenize(text.lower()) if token[0].isalnum())
    features: dict[str, float] = {}
    for word, count in words.items():
        weight = math.sqrt(count) * (SHORT_WEIGHT if len(word) <= SHORT else 1.0)
        features[word] = features.get(word, 0.0) + weight
        padded = f"^{word}$"
        for start in range(len(padded) - 2):
            triple = f"3:{padded[start : start + 3]}"
            features[triple] = features.get(triple, 0.0) + weight * TRIPLE_WEIGHT
    return features
