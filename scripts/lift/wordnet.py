"""WordNet's database files as documents and queries: a judged set that nothing was tuned on.

A document is what a synset's gloss says it means; a query is one of its words that stands in
no other synset. Words that only differ in their endings or order count once, synsets with
names are left out, and a need has four words at least. Every system with Debian's package
`wordnet-base` has the files (format: wndb(5WN)).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PARTS = ("noun", "verb", "adj", "adv")
# Words of a need, letters of a word, and words of a gloss that says enough.
LEAST_WORDS, LEAST_LETTERS, LEAST_GLOSS = 4, 4, 6
# All needs, and synsets beside them up to so many documents.
DOCUMENTS = 5000
_MARKER = re.compile(r"\((?:a|p|ip)\)$")
_EXAMPLES = re.compile(r';\s*"')
_ENDING = re.compile(r"(ies|es|s|ing|ed)$")


@dataclass(frozen=True, slots=True)
class Synset:
    """One meaning: its words, and what they mean."""

    id: str
    words: tuple[str, ...]
    gloss: str


def read_synsets(folder: Path) -> list[Synset]:
    """All synsets of the files data.noun, data.verb, data.adj and data.adv.

    Raises:
        OSError: a file is missing.
        ValueError: a line is not as wndb(5WN) has it.
    """
    found: list[Synset] = []
    for part in PARTS:
        path = folder / f"data.{part}"
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1):
            if line.startswith("  "):
                continue  # the licence
            try:
                found.append(_read_line(part, line))
            except (ValueError, IndexError):
                raise ValueError(f"{path}, line {number}: not a synset.") from None
    return found


def choose_needs(synsets: list[Synset]) -> tuple[list[Synset], list[Synset]]:
    """Synsets with words enough to be needs, with only these words; and others beside them."""
    senses = Counter(word.lower() for each in synsets for word in set(each.words))
    needs: list[Synset] = []
    others: list[Synset] = []
    for each in synsets:
        if len(each.gloss.split()) < LEAST_GLOSS or any(w != w.lower() for w in each.words):
            continue
        kept = tuple(_keep_unlike(word for word in each.words if senses[word] == 1))
        if len(kept) >= LEAST_WORDS:
            needs.append(Synset(each.id, kept, each.gloss))
        else:
            others.append(each)
    # By digest, so that they have nothing to do with their place in the file.
    others.sort(key=lambda each: hashlib.sha256(each.id.encode()).digest())
    return needs, others[: max(0, DOCUMENTS - len(needs))]


def _read_line(part: str, line: str) -> Synset:
    head, bar, gloss = line.partition(" | ")
    fields = head.split()
    count = int(fields[3], 16)
    words = [_MARKER.sub("", fields[4 + 2 * at]).replace("_", " ") for at in range(count)]
    if not bar or not words:
        raise ValueError
    meaning = _EXAMPLES.split(gloss.strip())[0].strip().strip('"')
    return Synset(part + fields[0], tuple(words), meaning)


def _keep_unlike(words: Iterator[str]) -> Iterator[str]:
    seen: set[frozenset[str]] = set()
    for word in words:
        key = frozenset(_ENDING.sub("", each) for each in re.split(r"[ \-]", word))
        if len(word) >= LEAST_LETTERS and key not in seen:
            seen.add(key)
            yield word
