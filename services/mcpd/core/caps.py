"""How much of an answer a model is given: it pays for every character, and forgets in the flood.

Whatever is left out is said: a value that was shortened ends in an ellipsis, and the answer
carries `truncated`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
Cell = str | int | float | bool | None
ELLIPSIS = "…"
# Whole numbers past this lose digits in JSON readers that know only doubles.
SAFE_INTEGER = 2**53


class Room:
    """Characters that are left for one answer.

    Args:
        chars: for all of it.
        cell_chars: for one text in it.
    """

    def __init__(self, chars: int, cell_chars: int) -> None:
        self.left = chars
        self.cell_chars = cell_chars
        self.truncated = False

    def cut(self, text: str) -> str:
        """The text, shortened when it is longer than one may be."""
        if len(text) <= self.cell_chars:
            return text
        self.truncated = True
        return text[: self.cell_chars - 1] + ELLIPSIS

    def take(self, size: int) -> bool:
        """Whether there is room for so many characters more; if not, the answer is truncated."""
        if size > self.left:
            self.truncated = True
            return False
        self.left -= size
        return True

    def fit(self, items: Iterable[T], size: Callable[[T], int]) -> list[T]:
        """The items that fit, from the first on. One is kept whatever its size."""
        kept: list[T] = []
        for item in items:
            if not self.take(size(item)):
                if kept:
                    break
                self.left = 0
            kept.append(item)
        return kept


def render_cell(value: Any, room: Room) -> Cell:
    """A value as a model reads it: scalars as they are, anything nested as JSON text."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) <= SAFE_INTEGER else str(value)
    if isinstance(value, str):
        return room.cut(value)
    return room.cut(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))


def fit_rows(rows: Sequence[Sequence[Any]], max_rows: int, room: Room) -> list[list[Cell]]:
    """Rows of a table within `max_rows` and the room that is left."""
    if len(rows) > max_rows:
        room.truncated = True
    rendered = ([render_cell(value, room) for value in row] for row in rows[:max_rows])
    # Quotes, brackets and commas are of the answer too.
    return room.fit(rendered, lambda row: sum(len(str(cell)) + 4 for cell in row) + 4)
