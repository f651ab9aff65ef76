"""Notes near a query, put together into needs, and each need's evidence.

Two notes are of one need when their queries are alike and half of the pairs between their
groups believe in a common document (average link: single link would chain needs that merely
touch). Only the notes near the query at hand are grouped, so that nothing depends on notes
far away, and a retired one leaves no trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.matrixd.core.cold import Floats, Ref
from services.matrixd.core.playbook.notes import Note, to_logit
from services.matrixd.core.playbook.trust import Trust

# Mean cosine from which groups may be one need, and from which two queries are the same one.
ALIKE = 0.5
SAME = 0.98
LINKED = 0.5
# Evidence of one need for one document is bounded. Log odds.
MOST = 6.0
# What is left of a vote that a later one of a source that never errs contradicts.
OUTDATED = 0.3


@dataclass(frozen=True, slots=True)
class Need:
    """Notes that ask for the same thing.

    Attributes:
        members: their places in the list of near notes, by (seq, id).
        evidence: log odds for each document that was rated.
        positives: documents that the need holds relevant.
    """

    members: tuple[int, ...]
    evidence: Mapping[Ref, float]
    positives: tuple[Ref, ...]


def group_notes(
    notes: Sequence[Note], trusts: Sequence[Trust], between: Floats
) -> list[tuple[int, ...]]:
    """Places of the notes of each need. `between` are the cosines of all pairs."""
    believed = [note.believe(trust) for note, trust in zip(notes, trusts, strict=True)]
    count = len(notes)
    shared = np.zeros((count, count))
    for one in range(count):
        for other in range(one):
            same = between[one, other] >= SAME
            if same or not believed[one].isdisjoint(believed[other]):
                shared[one, other] = shared[other, one] = 1.0
    groups: list[tuple[int, ...]] = []
    for component in _components((shared > 0) & (between >= ALIKE)):
        groups.extend(_link(component, shared, between))
    return sorted(groups)


def weigh_evidence(group: Sequence[int], notes: Sequence[Note], trusts: Sequence[Trust]) -> Need:
    """The need of a group of notes."""
    order = sorted(group, key=lambda at: (notes[at].episode.seq, notes[at].episode.id))
    votes: dict[Ref, list[float]] = {}
    logits: dict[Ref, float] = {}
    for at in order:
        trust = trusts[at]
        # A careful source's later word outdates earlier ones; a careless one's hardly does.
        kept = 1 - (1 - OUTDATED) * trust.clarity**4
        for ref, (vote, logit) in notes[at].votes.items():
            worth = trust.positive if vote > 0 else -trust.negative
            earlier = votes.setdefault(ref, [])
            earlier[:] = [each * kept if each * worth < 0 else each for each in earlier]
            earlier.append(worth)
            logits[ref] = max(logit, logits.get(ref, logit))
    evidence = {ref: min(max(sum(worths), -MOST), MOST) for ref, worths in sorted(votes.items())}
    believed = to_logit(0.3)
    positives = tuple(
        ref for ref, odds in evidence.items() if odds > 0 and odds + logits[ref] >= believed
    )
    return Need(tuple(order), evidence, positives)


def _components(linked: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> list[list[int]]:
    count = len(linked)
    label = list(range(count))
    for one in range(count):
        for other in np.flatnonzero(linked[one, :one]).tolist():
            if label[one] != label[other]:
                old, new = label[one], label[other]
                label = [new if each == old else each for each in label]
    return [[at for at in range(count) if label[at] == each] for each in sorted(set(label))]


def _link(component: list[int], shared: Floats, between: Floats) -> list[tuple[int, ...]]:
    if len(component) == 1:
        return [tuple(component)]
    inner = shared[np.ix_(component, component)]
    alike = between[np.ix_(component, component)]
    rows, columns = np.triu_indices(len(component), 1)
    if inner[rows, columns].min() > 0 and alike[rows, columns].min() >= ALIKE:
        return [tuple(component)]
    # Sums over pairs of groups are kept, so that a merge adds two rows (Lance and Williams).
    groups = [[at] for at in component]
    shares, cosines = inner.copy(), alike.copy()
    while len(groups) > 1:
        sizes = np.array([len(group) for group in groups], np.float64)
        pairs = np.outer(sizes, sizes)
        mean = np.where(shares / pairs >= LINKED, cosines / pairs, -1.0)
        mean[np.tril_indices(len(groups))] = -1.0
        best = int(mean.argmax())
        one, other = divmod(best, len(groups))
        if mean[one, other] < ALIKE:
            break
        for sums in (shares, cosines):
            sums[one] += sums[other]
            sums[:, one] += sums[:, other]
        shares = np.delete(np.delete(shares, other, 0), other, 1)
        cosines = np.delete(np.delete(cosines, other, 0), other, 1)
        groups[one].extend(groups.pop(other))
    return [tuple(sorted(group)) for group in groups]
