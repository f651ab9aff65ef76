"""Evidence for documents that nobody rated, from those that somebody did.

A document that is more like those that helped than like those that did not is likelier to help
too (Rocchio's idea, 1971, put as log odds, and only where the need is the query's own).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from services.matrixd.core.cold import ColdList, Ref
from services.matrixd.core.playbook.kindred import SCALE
from services.matrixd.core.playbook.notes import Note

# Log odds for each point of cosine that a document is nearer to helpful ones, and their bound,
# lower than what one careful rating is worth.
STEEPNESS = 12.0
MOST = 3.0
# Notes of a need that are asked, nearest first.
ASKED = 4
# Log odds of the document that has the most of the query's words, where all that the cold list
# put first was wrong, and how many wrong ones make that sure.
WORDS = 4.0
ALL_WRONG = 10


def spread_evidence(
    members: Sequence[int], notes: Sequence[Note], evidence: Mapping[Ref, float]
) -> dict[Ref, float]:
    """Log odds for documents of the members' cold lists that the evidence does not hold.

    Args:
        members: places of the need's notes; the list of notes is nearest first.
        notes: the notes near the query.
        evidence: of the need, for documents that were rated.
    """
    sums: dict[Ref, float] = {}
    times: dict[Ref, int] = {}
    for at in sorted(members)[:ASKED]:
        episode = notes[at].episode
        if not episode.kin.size:
            continue
        odds = np.tanh(np.array([evidence.get(ref, 0.0) for ref in episode.rated]) / 2)
        good, bad = np.maximum(odds, 0), np.maximum(-odds, 0)
        if not good.any() or not bad.any():
            continue
        kin = episode.kin.astype(np.float64) / SCALE
        nearer = good @ kin / good.sum() - bad @ kin / bad.sum()
        # One helpful document may well be the only one.
        sure = min(1.0, max(0.0, float(good.sum()) - 1), float(bad.sum()))
        spread = sure * np.clip(STEEPNESS * nearer, -MOST, MOST)
        for ref, each in zip(episode.cold.refs, spread.tolist(), strict=True):
            if ref not in evidence:
                sums[ref] = sums.get(ref, 0.0) + each
                times[ref] = times.get(ref, 0) + 1
    return {ref: sums[ref] / times[ref] for ref in sorted(sums)}


def trust_words(cold: ColdList, evidence: Mapping[Ref, float]) -> dict[Ref, float]:
    """Log odds for documents that have a query's words, where a need only knows wrong ones.

    What the cold list put first, mostly by meaning, did not help: the other signal is then
    likelier right. Such a need's repetition shows what was not tried yet.
    """
    blamed = [odds for odds in evidence.values() if odds < 0]
    most = float(cold.bm25.max(initial=0.0))
    if not blamed or most <= 0 or max(evidence.values()) > 0:
        return {}
    sure = min(1.0, math.fsum(math.tanh(-odds / 2) for odds in blamed) / ALL_WRONG)
    told = sure * WORDS * cold.bm25 / most
    return {
        ref: odds
        for ref, odds in zip(cold.refs, told.tolist(), strict=True)
        if odds > 0 and ref not in evidence
    }
