"""Evidence for documents that nobody rated, from those that somebody did.

A document that is more like those that helped than like those that did not is likelier to help
too (Rocchio's idea, 1971, put as log odds, and only where the need is the query's own).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from services.matrixd.core.cold import Ref
from services.matrixd.core.playbook.kindred import SCALE
from services.matrixd.core.playbook.notes import Note

# Log odds for each point of cosine that a document is nearer to helpful ones, and their bound,
# lower than what one careful rating is worth.
STEEPNESS = 12.0
MOST = 3.0
# Notes of a need that are asked, nearest first.
ASKED = 4


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
