"""Who moved what: the notes behind a change of scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.matrixd.core.cold import Floats, Ref
from services.matrixd.core.playbook.identity import Considered, Near
from services.matrixd.core.playbook.views import Contribution, NoteUse


def tell_uses(
    near: Near, considered: Considered, probabilities: Floats, active: Sequence[int]
) -> tuple[NoteUse, ...]:
    """The notes of the active needs, those of the likeliest first."""
    uses: list[NoteUse] = []
    for number in active:
        for at in considered.needs[number].members:
            episode = near.notes[at].episode
            uses.append(
                NoteUse(
                    episode.id,
                    episode.query,
                    float(near.cosines[at]),
                    float(probabilities[number]),
                    number,
                )
            )
    return tuple(sorted(uses, key=lambda use: (-use.probability, -use.similarity, use.episode_id)))


def explain_changes(
    near: Near,
    considered: Considered,
    changes: Sequence[tuple[int, Floats]],
    refs: Sequence[Ref],
) -> dict[Ref, list[Contribution]]:
    """What each note added to each document, by what its own ratings are worth."""
    told: dict[Ref, list[Contribution]] = {}
    for number, change in changes:
        members = considered.needs[number].members
        for at in np.flatnonzero(change).tolist():
            worths: list[tuple[str, float]] = []
            for member in members:
                note, trust = near.notes[member], near.trusts[member]
                if refs[at] in note.votes:
                    vote = note.votes[refs[at]][0]
                    worth = trust.positive if vote > 0 else -trust.negative
                    worths.append((note.episode.id, worth))
            if not worths:
                # Nobody rated it: it is like what all of them rated.
                worths = [(near.notes[member].episode.id, 1.0) for member in members]
            total = sum(worth for _, worth in worths)
            for identifier, worth in worths:
                share = worth / total if total else 1 / len(worths)
                told.setdefault(refs[at], []).append(
                    Contribution(identifier, float(change[at]) * share)
                )
    return told
