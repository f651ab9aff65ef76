"""How many tokens a text takes, and a text cut to fit.

No model's own tokeniser is at hand, so this estimates, on the high side: a budget that is
kept by this count is kept by the model's.
"""

from __future__ import annotations

import re

# Roles and separators that chat formats put around each message.
MESSAGE_TOKENS = 6
# Below this a shortened document says nothing.
MIN_CUT_TOKENS = 24
_PIECE = re.compile(r"[A-Za-z]+|\d+|[^\sA-Za-z\d]")
ELLIPSIS = " …"


def count_tokens(text: str) -> int:
    """An upper estimate of a text's tokens under any byte-pair vocabulary in use.

    Runs of Latin letters take a token for every four (common words take one whatever their
    length, rare ones come in pieces), digits one for every two, and any other character as
    many as it has bytes in UTF-8, up to three.
    """
    total = 0
    for match in _PIECE.finditer(text):
        piece = match.group()
        if piece[0].isascii() and piece[0].isalpha():
            total += (len(piece) + 3) // 4
        elif piece.isascii() and piece.isdigit():
            total += (len(piece) + 1) // 2
        else:
            total += min(3, len(piece.encode("utf-8", "surrogatepass")))
    return total


def cut_text(text: str, budget: int) -> str:
    """The beginning of a text that takes at most `budget` tokens, ended at a word.

    The whole text when it fits; nothing when not even a few words do.
    """
    if count_tokens(text) <= budget:
        return text
    budget -= count_tokens(ELLIPSIS)
    used = 0
    end = 0
    for match in re.finditer(r"\S+\s*", text):
        used += count_tokens(match.group())
        if used > budget:
            break
        end = match.end()
    return text[:end].rstrip() + ELLIPSIS if end else ""
