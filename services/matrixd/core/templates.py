"""Templates that make a text out of a row's columns: `{role} in {city}`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from shared.errors import Invalid

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_BLANKS = re.compile(r"[^\S\n]+")


@dataclass(frozen=True, slots=True)
class Template:
    """Literal texts and column names in order; `(True, name)` stands for a column."""

    pieces: tuple[tuple[bool, str], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it needs, each once, in order."""
        return tuple(dict.fromkeys(text for is_column, text in self.pieces if is_column))

    def render(self, row: Mapping[str, Any]) -> str:
        """The text of a row; nothing when all of its columns are null or blank.

        Blanks are run together, since a null in the middle leaves two.
        """
        return _BLANKS.sub(" ", self.fill(row)).strip()

    def fill(self, row: Mapping[str, Any]) -> str:
        """Like `render`, with every blank as it stands in the row."""
        filled = [(c, to_text(row.get(text)) if c else text) for c, text in self.pieces]
        if not any(text.strip() for is_column, text in filled if is_column):
            return ""
        return "".join(text for _, text in filled)


def parse_template(text: str, field: str) -> Template:
    """Reads a template; a bare word of the field `id` or `text` is taken for one column.

    Raises:
        Invalid: a brace without its partner, an empty name, or no column at all.
    """
    if "{" not in text and "}" not in text:
        if field == "id" or re.fullmatch(r"\S+", text):
            return Template(((True, text.strip()),))
        raise Invalid(
            f"{field}: {text[:80]!r} names no column, so that every row would have the same. "
            "Write columns in braces: {role} in {city}.",
            details={"field": field},
        )
    pieces: list[tuple[bool, str]] = []
    for match in _PIECE.finditer(text):
        piece, name = match.group(), match.group(1)
        if piece in ("{{", "}}"):
            pieces.append((False, piece[0]))
        elif name is not None:
            if not name.strip():
                raise Invalid(f"{field}: empty braces at {match.start()}; name a column in them.")
            pieces.append((True, name.strip()))
        elif piece in "{}":
            raise Invalid(
                f"{field}: a lone {piece!r} at character {match.start()}. "
                "Write {column}, or double it to mean the brace itself.",
                details={"field": field, "position": match.start()},
            )
        else:
            pieces.append((False, piece))
    found = Template(tuple(pieces))
    if not found.columns:
        raise Invalid(f"{field}: {text[:80]!r} names no column. Write {{column}} in braces.")
    return found


def check_columns(wanted: Mapping[str, Iterable[str]], known: Sequence[str]) -> None:
    """Passes when the source has every column that is asked for.

    Args:
        wanted: columns by the field of the spec that names them.
        known: the columns that the source has.

    Raises:
        Invalid: naming each unknown column, where it was asked for, and what there is.
    """
    unknown = {
        field: missing
        for field, names in wanted.items()
        if (missing := [name for name in names if name not in known])
    }
    if not unknown:
        return
    told: list[str] = []
    for field, names in unknown.items():
        for name in names:
            near = get_close_matches(name, known, 1)
            told.append(f"{field} names {name!r}" + (f" (did you mean {near[0]}?)" if near else ""))
    raise Invalid(
        f"The source has no such column: {'; '.join(told)}. It has: {', '.join(known[:60])}.",
        details={"unknown": unknown, "columns": list(known)},
    )


def to_text(value: object) -> str:
    """A value as it reads in a sentence; nothing for null."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, list):
        items: list[object] = value  # pyright: ignore[reportUnknownVariableType]
        return ", ".join(text for item in items if (text := to_text(item)))
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
