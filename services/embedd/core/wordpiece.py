"""BERT's uncased WordPiece, to the letter of the reference and no further than needed.

Text is cleaned (control characters out, every kind of white space one space), CJK ideographs
stand alone, accents go (canonical decomposition without its nonspacing marks), characters
are lowered one by one, and punctuation splits words; each word is then cut greedily into
the longest pieces that the vocabulary holds (Wu et al. 2016, section 4.1).

White space, ASCII punctuation and ideographs end a word whatever surrounds them, so a long
text is read in windows that end at one, and reading stops when the model's length is full:
a megabyte costs what its first page costs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from services.embedd.core.unicode8 import IDEOGRAPH, MARK, PUNCTUATION, REMOVED, SPACE

UNKNOWN, START, END = "[UNK]", "[CLS]", "[SEP]"
# A longer word is one unknown token.
MAX_WORD_CHARS = 100
# A window ends at the first break after so many characters.
WINDOW = 2048
# Without a break the text is worked on in slices of so many characters: each step of the work
# holds the interpreter for its whole length.
SLICE = 16_384
# Words whose pieces are remembered; text repeats itself.
REMEMBERED_WORDS = 20_000

# Where a window may end: after white space, ASCII punctuation or an ideograph.
_BREAKS = re.compile(r"[ \t\n\r\u3000!-/:-@\[-`{-~\u3400-\u4dbf\u4e00-\u9fff]")
_ASCII_WORDS = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")
_ASCII_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Encoding(NamedTuple):
    """Token ids with the start and end tokens; `truncated` when text was left out."""

    ids: list[int]
    truncated: bool


class _Cleaning(dict[int, str]):
    """What each character becomes before decomposition; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        if code in REMOVED:
            becomes = ""
        elif code in SPACE:
            becomes = " "
        else:
            becomes = f" {char} " if code in IDEOGRAPH else char
        self[code] = becomes
        return becomes


class _Folding(dict[int, str]):
    """What each character becomes after decomposition."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        becomes = "" if code in MARK else f" {char} " if code in PUNCTUATION else char.lower()
        self[code] = becomes
        return becomes


class WordPiece:
    """Turns texts into token ids of one vocabulary.

    Args:
        vocabulary: tokens in the order of their ids.
        max_tokens: longest encoding, start and end tokens included.

    Raises:
        ValueError: the vocabulary lacks one of the special tokens.
    """

    def __init__(self, vocabulary: Iterable[str], max_tokens: int) -> None:
        self._ids = {token: number for number, token in enumerate(vocabulary)}
        missing = [token for token in (UNKNOWN, START, END) if token not in self._ids]
        if missing:
            raise ValueError(f"the vocabulary has no {' or '.join(missing)}")
        self.max_tokens = max_tokens
        self._unknown = (self._ids[UNKNOWN],)
        self._start, self._end = self._ids[START], self._ids[END]
        self._pieces: dict[str, tuple[int, ...]] = {}
        self._cleaning = _Cleaning()
        self._folding = _Folding()

    def encode(self, text: str) -> Encoding:
        """Ids of the text's tokens between start and end, cut off at `max_tokens`."""
        room = self.max_tokens - 2
        ids = [self._start]
        remembered = self._pieces
        for word in self._words(text):
            pieces = remembered.get(word)
            if pieces is None:
                pieces = self._cut(word)
            ids += pieces
            if len(ids) > room + 1:
                return Encoding([*ids[: room + 1], self._end], True)
        ids.append(self._end)
        return Encoding(ids, False)

    def _words(self, text: str) -> Iterator[str]:
        for window in read_windows(text):
            if len(window) <= SLICE and window.isascii():
                if _ASCII_CONTROLS.search(window):
                    window = _ASCII_CONTROLS.sub("", window)
                yield from _ASCII_WORDS.findall(window.lower())
            else:
                yield from self._fold(window)

    def _fold(self, window: str) -> Iterator[str]:
        begun = ""  # a word that goes on in the next slice
        for part in read_slices(window):
            clean = unicodedata.normalize("NFD", part.translate(self._cleaning))
            folded = begun + clean.translate(self._folding)
            words = folded.split()
            # More of it than makes it unknown need not be kept.
            ends = not folded or folded[-1] == " "
            begun = "" if ends else words.pop()[: MAX_WORD_CHARS + 1]
            yield from words
        if begun:
            yield begun

    def _cut(self, word: str) -> tuple[int, ...]:
        """Pieces of one word, longest match first; unknown as a whole if any part is."""
        if len(word) > MAX_WORD_CHARS:
            return self._unknown
        ids = self._ids
        found: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                piece = ids.get(prefix + word[start:end])
                if piece is not None:
                    found.append(piece)
                    start = end
                    break
            else:
                found = [*self._unknown]
                break
        if len(self._pieces) >= REMEMBERED_WORDS:
            self._pieces.clear()
        pieces = self._pieces[word] = tuple(found)
        return pieces


def read_windows(text: str, size: int = WINDOW) -> Iterator[str]:
    """The text in pieces that no word crosses, each cut only when it is asked for."""
    start = 0
    while start < len(text):
        found = _BREAKS.search(text, start + size - 1)
        end = found.end() if found else len(text)
        yield text[start:end]
        start = end


def read_slices(text: str, size: int = SLICE) -> Iterator[str]:
    """The text in pieces that part no character from its combining marks."""
    start = 0
    while start < len(text):
        end = start + size
        while end < len(text) and unicodedata.combining(text[end]):
            end += 1
        yield text[start:end]
        start = end
