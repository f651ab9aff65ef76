"""How strict to be, from the notes themselves.

Each note of a sample is asked for again as if its need had never been recorded: whatever
then activates is another need, and what it costs the note's own positives is what an unseen
query would pay. The least strictness at which that cost is bearable is used.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from services.matrixd.core.cold import Floats, Ref
from services.matrixd.core.playbook.fusion import mix_scores, order_scores
from services.matrixd.core.playbook.identity import Considered
from services.matrixd.core.playbook.notes import Note

GRID = np.arange(0.25, 3.51, 0.25)
# Notes that are asked for again.
SAMPLE = 300
# Mean nDCG@10 that an unseen query may lose.
BEARABLE = 0.004
# What is expected before notes tell: the loss halves with each step of ln 2 / DECAY. It counts
# as much as so many notes, because what few notes tell is mostly chance.
EXPECTED = 0.008
DECAY = 0.7
EXPECTED_NOTES = 400
# Power of a source's clarity by which its notes count.
CARELESS = 6
DEPTH = 10


def measure_losses(
    note: Note, believed: Iterable[Ref], considered: Considered, clarity: float
) -> Floats:
    """nDCG@10 that the note's positives lose to other needs, at each strictness of the grid."""
    cold = note.episode.cold
    wanted = frozenset(believed)
    places = {ref: at for at, ref in enumerate(cold.refs)}
    before = _gain(cold.refs, range(len(cold.refs)), wanted)
    losses = np.zeros(len(GRID))
    likely = np.flatnonzero(considered.weigh(float(GRID[0]))).tolist()
    evidence = {each: considered.find_evidence(each, cold) for each in likely}
    for number, strictness in enumerate(GRID.tolist()):
        changes = mix_scores(cold.p0, places, evidence, considered.weigh(strictness), clarity)
        if not changes:
            # Stricter still changes nothing either.
            break
        order, _ = order_scores(cold.p0, changes)
        losses[number] = max(0.0, before - _gain(cold.refs, order, wanted))
    return losses


def choose_strictness(losses: Sequence[tuple[Floats, float]]) -> float:
    """The least strictness whose expected cost is bearable.

    Args:
        losses: of each note, and the clarity of its source. What a careless source praised is
            often wrong, and losing it no loss: such notes count for little.
    """
    total = EXPECTED_NOTES * EXPECTED * np.exp(-DECAY * GRID)
    notes = float(EXPECTED_NOTES)
    for each, clarity in losses:
        weight = clarity**CARELESS
        total = total + weight * each
        notes += weight
    bearable = np.flatnonzero(total / notes <= BEARABLE)
    return float(GRID[bearable[0]]) if len(bearable) else float(GRID[-1])


def _gain(refs: Sequence[Ref], order: Iterable[int], wanted: frozenset[Ref]) -> float:
    found = 0.0
    for rank, at in enumerate(order, start=1):
        if rank > DEPTH:
            break
        if refs[at] in wanted:
            found += 1 / math.log2(rank + 1)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(wanted), DEPTH) + 1))
    return found / ideal if ideal else 0.0
