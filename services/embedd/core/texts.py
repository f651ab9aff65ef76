"""What may be embedded: checks that name the item at fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from shared.errors import Invalid


def check_texts(texts: Sequence[str], max_texts: int, field: str = "texts") -> None:
    """Refuses what has no vector.

    An empty text is refused rather than given the vector of nothing, which would lie near
    other short texts; a text of white space is the caller's and is embedded.

    Raises:
        Invalid: no texts, too many, or an empty one.
    """
    if not texts:
        raise Invalid(f"{field} is empty. Send at least one text.", details={"field": field})
    if len(texts) > max_texts:
        raise Invalid(
            f"{field} holds {len(texts)} texts; at most {max_texts} are taken at once. "
            "Send them in several requests.",
            details={"field": field, "limit": max_texts, "count": len(texts)},
        )
    if "" in texts:
        at = texts.index("")
        raise Invalid(
            f"{field}[{at}] is an empty string, which has no meaning to embed. Leave it out.",
            details={"field": field, "index": at},
        )


def read_input(given: Any, max_texts: int) -> list[str]:
    """The texts of an OpenAI `input`: one string or a list of them.

    Raises:
        Invalid: token arrays, other types, or what `check_texts` refuses.
    """
    if isinstance(given, str):
        texts = [given]
    elif isinstance(given, list):
        items = cast("list[object]", given)
        texts = [item for item in items if isinstance(item, str)]
        if len(texts) < len(items):
            raise _refuse(items)
    else:
        raise Invalid("input must be a string or a list of strings.", details={"field": "input"})
    check_texts(texts, max_texts, "input")
    return texts


def _refuse(items: list[object]) -> Invalid:
    at = next(i for i, item in enumerate(items) if not isinstance(item, str))
    found = items[at]
    if isinstance(found, list) or (isinstance(found, int) and not isinstance(found, bool)):
        return Invalid(
            "input holds token arrays, which belong to another model's tokenizer. Send the "
            "text itself; with LangChain set check_embedding_ctx_length=False.",
            details={"field": "input", "index": at},
        )
    return Invalid(
        f"input[{at}] is not a string. Send a string or a list of strings.",
        details={"field": "input", "index": at},
    )


def share_tokens(total: int, texts: Sequence[str]) -> list[int]:
    """A count that is known for a whole batch only, shared out by length; the sum is exact."""
    weights = [max(1, len(text)) for text in texts]
    whole = sum(weights)
    shares: list[int] = []
    given = passed = 0
    for weight in weights:
        passed += weight
        upto = total * passed // whole
        shares.append(upto - given)
        given = upto
    return shares
