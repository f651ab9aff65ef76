"""A source's rows as documents, and an account of those that cannot be one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal, cast

from services.matrixd.core.templates import Template, to_text
from shared.wire.matrixd import Left

# vectord takes ids of 512 characters; a chunk's number needs some of them.
MAX_ID = 480
# Rows named in the account for each reason.
EXAMPLES = 5
# vectord's limits, so that one row never fails a batch.
MAX_METADATA_BYTES = 60_000
MAX_TEXT_CHARS = 200_000
# Lists and objects in one another; what is nested far deeper cannot be sent to vectord.
MAX_DEPTH = 64

Reason = Literal["duplicate_ids", "null_ids", "empty_texts", "unusable"]


@dataclass(frozen=True, slots=True)
class Document:
    """One row as the corpus keeps it; `hash` changes when anything of it does."""

    id: str
    text: str
    metadata: dict[str, Any]
    hash: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a row becomes a document."""

    id: Template
    text: Template
    metadata: Sequence[str]
    salt: str

    def make(self, row: Mapping[str, Any]) -> Document | tuple[Reason, str]:
        """The document, or why there is none with an example to show."""
        if deep := _find_deep(row, self.id.columns):
            return "unusable", deep
        # Two ids that differ by blanks alone are two.
        name = self.id.fill(row)
        if not name:
            return "null_ids", _show(row)
        if len(name) > MAX_ID:
            return "unusable", f"{name[:60]}…: the id has more than {MAX_ID} characters"
        if deep := _find_deep(row, (*self.text.columns, *self.metadata)):
            return "unusable", f"{name}: {deep}"
        text = self.text.render(row)
        if not text:
            return "empty_texts", name
        if len(text) > MAX_TEXT_CHARS:
            return "unusable", f"{name}: the text has more than {MAX_TEXT_CHARS} characters"
        metadata = {column: row.get(column) for column in self.metadata}
        blob = json.dumps(metadata, ensure_ascii=False, sort_keys=True)
        if len(blob.encode("utf-8", "surrogatepass")) > MAX_METADATA_BYTES:
            return "unusable", f"{name}: the metadata takes more than {MAX_METADATA_BYTES} bytes"
        whole = json.dumps([self.salt, text, blob], ensure_ascii=False)
        return Document(
            name, text, metadata, sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()
        )


@dataclass(slots=True)
class Account:
    """Counts of a reading; `tell` gives them for the answer."""

    rows: int = 0
    documents: int = 0
    truncated: int = 0
    counts: dict[Reason, int] = field(default_factory=dict[Reason, int])
    examples: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def leave_out(self, reason: Reason, example: str) -> None:
        """Counts a row that is no document."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < EXAMPLES:
            shown.append(example)

    def tell(self) -> Left:
        """The account as it is answered."""
        return Left(
            rows=self.rows,
            documents=self.documents,
            duplicate_ids=self.counts.get("duplicate_ids", 0),
            null_ids=self.counts.get("null_ids", 0),
            empty_texts=self.counts.get("empty_texts", 0),
            unusable=self.counts.get("unusable", 0),
            truncated_texts=self.truncated,
            examples=self.examples,
        )


def _show(row: Mapping[str, Any]) -> str:
    """The beginning of a row, for someone who looks for it in the source."""
    told = ", ".join(
        f"{name}={'…' if _is_deeper(value, MAX_DEPTH) else to_text(value)}"
        for name, value in row.items()
        if value is not None
    )
    return told if len(told) <= 160 else told[:159] + "…"


def _find_deep(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    """What is wrong with the first of the columns that is nested too deep, if one is."""
    for column in columns:
        if _is_deeper(row.get(column), MAX_DEPTH):
            return f"column {column!r} is nested more than {MAX_DEPTH} deep"
    return ""


def _is_deeper(value: object, limit: int) -> bool:
    if isinstance(value, dict):
        inner = cast("Iterable[object]", value.values())
    elif isinstance(value, list):
        inner = cast("Iterable[object]", value)
    else:
        return False
    return limit == 0 or any(_is_deeper(one, limit - 1) for one in inner)
