"""Texts as words: runs of letters and digits, in one case, without accents."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

_WORD = re.compile(r"[^\W_]+")
# Longer ones are encodings rather than words.
MAX_WORD_CHARS = 64


def split_words(text: str) -> list[str]:
    """The words of a text, in order."""
    if text.isascii():
        plain = text.lower()
    else:
        apart = unicodedata.normalize("NFKD", text.casefold())
        plain = "".join(c for c in apart if not unicodedata.combining(c))
    return [word for word in _WORD.findall(plain) if len(word) <= MAX_WORD_CHARS]


def count_words(text: str) -> tuple[dict[str, int], int]:
    """How often each word occurs, and how many there are."""
    words = split_words(text)
    return Counter(words), len(words)
