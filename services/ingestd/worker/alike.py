"""Blocks of JSON lines written like one, cut into columns without touching their values.

In lines like `{"id": 1, "name": "Ann"}` everything but the values is the same text again and
again. Where a colon stands right after a quote a member's name has ended, so the colons of a
block say where all of its values lie. Whether that is true is then seen: the text between the
values must be the pattern's, byte by byte, and each value one token of JSON. What passes can be
read in no other way; what does not is left to those who look closer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from services.ingestd.core.jsonlines import Kind, LinePattern

# A value that is neither text, object nor array.
_BARE = r"^(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null)$"
_QUOTE, _COLON, _BACKSLASH, _LINE_END, _RETURN, _NULL = 34, 58, 92, 10, 13, 110
_BLANK = 32
# What the first character of a value that is no text says.
_SAYS = {_NULL: Kind.NONE, ord("t"): Kind.BOOLEAN, ord("f"): Kind.BOOLEAN}

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cut:
    """A column of a block.

    Attributes:
        texts: its values as rows have them.
        kinds: what they are. `empties`: whether some is an empty text.
        nuls: whether some text holds a NUL.
    """

    texts: pa.Array
    kinds: Kind
    empties: bool
    nuls: bool


class Cutter:
    """Cuts blocks of lines that are written like one.

    Args:
        pattern: of the line.
    """

    def __init__(self, pattern: LinePattern) -> None:
        *before, self._last = pattern.literals
        self._literals = before
        # A blank before the colon, or a name that holds one, and the colons do not say enough.
        self._usable = all(literal.count(b'":') == 1 for literal in before)
        self._heads = np.array([literal.find(b":", literal.find(b'":')) for literal in before])
        self._tails = np.array([len(literal) for literal in before]) - self._heads

    def cut(self, block: bytes) -> list[Cut] | None:
        """The columns of a block of whole lines of UTF-8; None if its lines are not all alike."""
        if not self._usable:
            return None
        data = np.frombuffer(block, np.uint8)
        quotes = data == _QUOTE
        ends = np.flatnonzero(data == _LINE_END)
        colons = np.flatnonzero(quotes[:-1] & (data[1:] == _COLON)) + 1
        if colons.size != ends.size * len(self._literals):
            return None
        found = self._find_values(block, data, ends, colons.reshape(ends.size, -1))
        if found is None:
            return None
        starts, stops = found
        texts = data[starts] == _QUOTE
        if not ((data[stops - 1] == _QUOTE) & (stops - starts > 1) | ~texts).all():
            return None
        escaped = self._decode(block, data, starts, stops)
        if escaped is None:
            return None
        # Each text has two quotes and no more; so has each name.
        decoded, inner = escaped
        if np.count_nonzero(quotes) != 2 * (colons.size + np.count_nonzero(texts)) + inner:
            return None
        return _Columns(block, data, starts, stops, texts, decoded).take()

    def _find_values(
        self, block: bytes, data: NDArray[np.uint8], ends: Places, colons: Places
    ) -> tuple[Places, Places] | None:
        """Where values begin and end, line by line; None where it is not the pattern between."""
        last = self._last
        if ends[0] and data[ends[0] - 1] == _RETURN:
            last += b"\r"
        # No text holds a control character, and between the values there is none.
        if np.count_nonzero(data < _BLANK) != ends.size * (1 + last.endswith(b"\r")):
            return None
        before = colons - self._heads
        starts = colons + self._tails
        stops = np.empty_like(starts)
        stops[:, :-1] = before[:, 1:]
        stops[:, -1] = ends - len(last)
        if before[0, 0] or (before[1:, 0] != ends[:-1] + 1).any() or (stops <= starts).any():
            return None
        places = [*zip(before.T, self._literals, strict=True), (stops[:, -1], last)]
        if not all(_is_everywhere(block, at, literal) for at, literal in places):
            return None
        return starts, stops

    def _decode(
        self, block: bytes, data: NDArray[np.uint8], starts: Places, stops: Places
    ) -> tuple[dict[int, dict[int, str]], int] | None:
        """The texts with escapes by column and line, and how many quotes are within them.

        None if one is no text of JSON, or half a surrogate pair.
        """
        found: dict[int, dict[int, str]] = {}
        inner = 0
        if b"\\" not in block:
            return found, inner
        at = np.flatnonzero(data == _BACKSLASH)
        places = np.unique(np.searchsorted(starts.ravel(), at, "right") - 1)
        begin, end = starts.ravel()[places].tolist(), stops.ravel()[places].tolist()
        for place, first, last in zip(places.tolist(), begin, end, strict=True):
            token = block[first:last]
            try:
                text = orjson.loads(token)
            except orjson.JSONDecodeError:
                return None
            if not isinstance(text, str):
                return None
            line, column = divmod(place, starts.shape[1])
            found.setdefault(column, {})[line] = text
            inner += token.count(b'"') - 2
        return found, inner


class _Columns:
    """A block whose values are found, on the way to arrays."""

    def __init__(
        self,
        block: bytes,
        data: NDArray[np.uint8],
        starts: Places,
        stops: Places,
        texts: NDArray[np.bool_],
        escaped: dict[int, dict[int, str]],
    ) -> None:
        self._firsts = data[starts]
        self._texts = texts
        self._empties = (texts & (stops - starts == 2)).any(axis=0)
        self._escaped = escaped
        # The block as it lies, divided where a value, without its quotes, begins or ends: every
        # second piece is a value.
        bounds = np.empty((*starts.shape, 2), np.int32)
        bounds[..., 0] = starts + texts
        bounds[..., 1] = stops - texts
        buffers = [None, pa.py_buffer(bounds), pa.py_buffer(block)]
        self._pieces = pa.Array.from_buffers(pa.binary(), bounds.size - 1, buffers)

    def take(self) -> list[Cut] | None:
        """The columns; None if some value is no token of JSON."""
        cuts: list[Cut] = []
        for column in range(self._texts.shape[1]):
            cut = self._take_column(column)
            if cut is None:
                return None
            cuts.append(cut)
        return cuts

    def _take_column(self, column: int) -> Cut | None:
        lines, width = self._texts.shape
        places = (np.arange(lines) * width + column) * 2
        texts = self._texts[:, column]
        kinds = Kind.STRING if texts.any() else Kind.NONE
        nulls = None
        if not texts.all():
            bare = self._pieces.take(pa.array(places[~texts]))
            if not pc.all(pc.match_substring_regex(bare, _BARE)).as_py():
                return None
            firsts = self._firsts[:, column]
            for first in np.unique(firsts[~texts]).tolist():
                kinds |= _SAYS.get(first, Kind.NUMBER)
            nulls = firsts == _NULL
        values = self._pieces.take(pa.array(places, mask=nulls))
        escaped = self._escaped.get(column, {})
        if escaped:
            mask = np.zeros(lines, np.bool_)
            mask[list(escaped)] = True
            plain = pa.array(list(escaped.values()), pa.string()).view(pa.binary())
            values = pc.replace_with_mask(values, pa.array(mask), plain)
        return Cut(
            values.view(pa.string()),
            kinds,
            bool(self._empties[column]),
            any("\0" in text for text in escaped.values()),
        )


def _is_everywhere(block: bytes, places: Places, literal: bytes) -> bool:
    """Whether the literal stands at each of the places."""
    # Every run of so many bytes as one element; they overlap.
    runs = np.ndarray((len(block) - len(literal) + 1,), f"V{len(literal)}", block, strides=(1,))
    return runs[places].tobytes() == literal * places.size
