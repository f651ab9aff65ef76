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
_PIECE = re.compile(r"[A-Za-z]+|[0-9]+|[^\sA-Za-z0-9]|\s\s+|[^\S ]")
ELLIPSIS = " …"
# What has no blank for longer is no word: a script that knows none, or a key.
_LONGEST_WORD = 40


def count_tokens(text: str) -> int:
    """An estimate on the high side of a text's tokens under the byte-pair vocabularies in use.

    Runs of Latin letters take a token for every four (common words take one whatever their
    length, rare ones come in pieces), digits one for every two, and any other character as
    many as it has bytes in UTF-8, up to three. A single blank belongs to the word behind it;
    of more than that, and of line ends, each counts.
    """
    return sum(_count_piece(match.group()) for match in _PIECE.finditer(text))


def _count_piece(piece: str) -> int:
    if piece.isspace():
        return len(piece)
    if not piece.isascii():
        return min(3, len(piece.encode("utf-8", "surrogatepass")))
    if piece.isalpha():
        return (len(piece) + 3) // 4
    return (len(piece) + 1) // 2


def cut_text(text: str, budget: int) -> str:
    """The beginning of a text that takes at most `budget` tokens, ended at a word.

    Where blanks are far apart it may end between two signs. The whole text when it fits;
    nothing when not even a few words do.
    """
    if count_tokens(text) <= budget:
        return text
    budget -= count_tokens(ELLIPSIS)
    used = 0
    end = 0
    for match in re.finditer(r"\S+\s*", text):
        cost = count_tokens(match.group())
        if used + cost > budget:
            if len(match.group()) > _LONGEST_WORD:
                end = _cut_word(text, match.start(), budget - used) or end
            break
        used += cost
        end = match.end()
    return text[:end].rstrip() + ELLIPSIS if end else ""


def _cut_word(text: str, start: int, budget: int) -> int:
    """Where what begins at `start` must end to fit; 0 when nothing of it does."""
    end = 0
    for match in _PIECE.finditer(text, start):
        budget -= _count_piece(match.group())
        if budget < 0:
            break
        end = match.end()
    return end
