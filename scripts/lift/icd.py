"""ICD-10-CM's tabular list as documents and queries: diagnoses by what else they are called.

A document is what a code says, with the codes above it; a query is one of its inclusion terms
(what the code also covers) that stands at no other code. A need has four terms at least, and
terms that are the code's own words do not count. The list is public domain: the XML that the
CDC publishes each year (icd10cm_tabular_YEAR.xml).
"""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Terms of a need, and documents in all: the needs, and other codes beside them.
LEAST_TERMS = 4
DOCUMENTS = 5000
_WORD = re.compile(r"\w+")
# "Not otherwise specified" is no part of a name.
_SPARE = frozenset({"nos"})


@dataclass(frozen=True, slots=True)
class Code:
    """One diagnosis.

    Attributes:
        id: the code.
        text: its description, then those of the codes above it.
        terms: its inclusion terms.
    """

    id: str
    text: str
    terms: tuple[str, ...]


def read_codes(path: Path) -> list[Code]:
    """All codes of the tabular list, in its order.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not XML, or holds no code.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: not XML ({error}).") from None
    found: list[Code] = []
    for section in root.iter("section"):
        above = [section.findtext("desc", "").partition(" (")[0]]
        for each in section.findall("diag"):
            found.extend(_read_code(each, above))
    if not found:
        raise ValueError(f"{path}: no <section> with a <diag>; is it the tabular list?")
    return found


def choose_needs(codes: list[Code]) -> tuple[list[Code], list[Code]]:
    """Codes with terms enough to be needs, with only these terms; and others beside them."""
    times = Counter(words for code in codes for words in {_normalise(each) for each in code.terms})
    needs: list[Code] = []
    others: list[Code] = []
    for code in codes:
        own = {_normalise(part) for part in code.text.split("; ")}
        kept: dict[frozenset[str], str] = {}
        for term in code.terms:
            words = _normalise(term)
            if words and words not in own and times[words] == 1:
                kept.setdefault(words, term)
        if len(kept) >= LEAST_TERMS:
            needs.append(Code(code.id, code.text, tuple(kept.values())))
        else:
            others.append(code)
    # By digest, so that they have nothing to do with their place in the list.
    others.sort(key=lambda code: hashlib.sha256(code.id.encode()).digest())
    return needs, others[: max(0, DOCUMENTS - len(needs))]


def _read_code(node: ElementTree.Element, above: list[str]) -> Iterator[Code]:
    said = node.findtext("desc", "")
    terms = [
        note.text.strip()
        for kind in ("includes", "inclusionTerm")
        for group in node.findall(kind)
        for note in group.findall("note")
        if note.text
    ]
    path = list(dict.fromkeys([said, *reversed(above)]))
    yield Code(node.findtext("name", ""), "; ".join(filter(None, path)), tuple(terms))
    for each in node.findall("diag"):
        yield from _read_code(each, [*above, said])


def _normalise(term: str) -> frozenset[str]:
    return frozenset(_WORD.findall(term.lower())) - _SPARE
