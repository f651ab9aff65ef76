"""Long texts cut into pieces that a model reads whole."""

from __future__ import annotations

import re

_WORD = re.compile(r"\S+")
# Between a document's id and the number of its chunk in an item's id.
MARK = "#"


def split_text(text: str, words: int, overlap: int) -> list[str]:
    """Windows of at most `words` words, each beginning `overlap` words before the last ended.

    The characters between words stay as they are. The last window is moved back instead of
    being short, so that no piece is a mere scrap.
    """
    spans = [match.span() for match in _WORD.finditer(text)]
    if len(spans) <= words:
        return [text.strip()]
    step = words - overlap
    starts = [*range(0, len(spans) - words, step), len(spans) - words]
    return [text[spans[at][0] : spans[at + words - 1][1]] for at in starts]


def item_ids(document: str, count: int, chunked: bool) -> list[str]:
    """Ids under which a document's chunks stand in the index."""
    return [f"{document}{MARK}{n}" for n in range(count)] if chunked else [document]


def split_item_id(item: str, chunked: bool) -> tuple[str, int | None]:
    """The document and chunk number of an item's id."""
    if not chunked:
        return item, None
    document, _, number = item.rpartition(MARK)
    return document, int(number)
