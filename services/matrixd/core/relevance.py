"""Which candidates are about the query, and which are only near it in vector space.

A candidate's support is its cosine with the query, the share of the query's telling words and
letter runs that it holds, and its nearness to what the best candidates have in common. None of
these is judged by its height, which differs from query to query, but by the distance to the
best candidate in units of the list's own spread. The line is closer below a best one that is
itself near the query; one that is not may be the wrong one.

The weights were fitted on two public sets (ESCO occupations, questions of Stack Exchange) and
checked on others that had no part in it; `docs/matrixd.md` has the figures. Same input, same
answer: nothing here is random or learnt at run time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# What a share of words, a share of letter runs and the common direction weigh beside cosine.
WORDS, RUNS, COMMON = 0.018, 0.191, 0.606
# The unit of distance: a constant and the list's standard deviation.
UNIT_BASE, UNIT_SPREAD = 0.032, 0.298
# How far below the best a candidate may stay: less far the nearer the best one is to the query,
# since one that is not near may be the wrong one; and what `strictness` moves that by.
LINE, CERTAINTY, STRICTNESS_SPAN = -6.5, 3.0, 3.0
# Below this cosine, and without a word in common, nothing is about the query, alone or not.
FLOOR = 0.0
# How sharply the best candidates define what is common, in cosine.
SHARPNESS = 0.05
RUN = 4

_WORD = re.compile(r"[^\W_]+")
_STOP = frozenset(
    "a an the of in on to for and or is are be do does did i my me you your it its with at by "
    "from as that this these those how what which who when where why can could should would "
    "will am was were there any some if not no so up out get have has had about into than then "
    "them they we our us please want need".split()
)
_ENDINGS = (
    *("ations", "ation", "ments", "ment", "ings", "ing", "ers", "ors"),
    *("er", "or", "ies", "ed", "es", "s", "ly"),
)


@dataclass(frozen=True, slots=True)
class Judged:
    """One candidate's verdict: kept or not, a relevance of 0 to 1 (.5 is the line), and why."""

    kept: bool
    relevance: float
    reason: str


def judge(
    query: str, vector: Floats, texts: Sequence[str], vectors: Floats, strictness: float = 0.5
) -> list[Judged]:
    """A verdict for each candidate.

    Args:
        query: the words asked for; vector: its unit vector.
        texts: the candidates'; vectors: theirs, unit, a row each.
        strictness: 0 to 1; .5 is the fitted line.
    """
    if not texts:
        return []
    cosine = vectors @ vector
    words, runs, missing = _share_words(query, texts)
    support = cosine + WORDS * words + RUNS * runs + COMMON * _share_direction(cosine, vectors)
    unit = UNIT_BASE + UNIT_SPREAD * float(support.std())
    distance = (support - support.max()) / unit
    best = float(cosine.max())
    line = LINE + CERTAINTY * best + STRICTNESS_SPAN * (strictness - 0.5)
    verdicts: list[Judged] = []
    for at, far in enumerate(distance.tolist()):
        near = float(cosine[at])
        strange = near < FLOOR and words[at] == 0
        kept = far >= line and not strange
        relevance = 1 / (1 + math.exp(-max(-60.0, min(60.0, far - line))))
        if strange:
            relevance = min(relevance, 0.01)
        verdicts.append(
            Judged(kept, round(relevance, 6), _explain(near, best, far, line, missing[at], strange))
        )
    return verdicts


def _explain(
    near: float, best: float, far: float, line: float, missing: Sequence[str], strange: bool
) -> str:
    if strange:
        return f"off topic: similarity {near:.2f}, and no word of the query"
    if far >= line:
        return f"on topic: similarity {near:.2f}, {abs(far):.1f} units below the best of {best:.2f}"
    lacking = f"; lacks {', '.join(missing)}" if missing else ""
    return (
        f"adjacent topic: similarity {near:.2f} beside {best:.2f} of the best, "
        f"{abs(far):.1f} units below it where {-line:.1f} are allowed{lacking}"
    )


def _share_direction(cosine: Floats, vectors: Floats) -> Floats:
    """How near each candidate is to what the best ones have in common."""
    weights = np.exp((cosine - cosine.max()) / SHARPNESS)
    common = (weights / weights.sum()) @ vectors
    length = float(np.sqrt(common @ common))
    return (vectors @ common) / max(length, 1e-12)


def _share_words(query: str, texts: Sequence[str]) -> tuple[Floats, Floats, list[list[str]]]:
    """Shares of the query's words and letter runs in each text, the rarer the heavier.

    A word weighs by how few of the candidates hold it: what all of them share tells nothing.
    Also the words that each text lacks.
    """
    asked = {stem_word(word): word for word in reversed(split_words(query))}
    # Of each text only what the query has too: all of it, for long texts, takes much memory.
    held = [asked.keys() & {stem_word(word) for word in split_words(text)} for text in texts]
    words = _weigh(sorted(asked), held)
    wanted = _cut_runs(query)
    runs = _weigh(sorted(wanted), [wanted & _cut_runs(text) for text in texts])
    missing = [[word for stem, word in sorted(asked.items()) if stem not in one] for one in held]
    return words, runs, missing


def _weigh(wanted: Sequence[str], held: Sequence[set[str]]) -> Floats:
    count = len(held)
    weights = [
        math.log(1 + (count + 0.5) / (sum(1 for one in held if part in one) + 0.5))
        for part in wanted
    ]
    whole = math.fsum(weights) or 1.0
    return np.array(
        [
            math.fsum(w for part, w in zip(wanted, weights, strict=True) if part in one) / whole
            for one in held
        ],
        np.float64,
    )


def split_words(text: str) -> list[str]:
    """The words that tell something, in lower case."""
    return [word for word in _WORD.findall(text.lower()) if word not in _STOP]


def stem_word(word: str) -> str:
    """A word without its ending, so that driver, driving and drives are one."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def _cut_runs(text: str) -> set[str]:
    line = f" {' '.join(split_words(text))} "
    return {line[at : at + RUN] for at in range(len(line) - RUN + 1)}
