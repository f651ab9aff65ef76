"""Notes near a query, put together into needs, and each need's evidence.

Two notes are of one need when their queries are alike and half of the pairs between their
groups have the same words or believe in the same documents (average link: single link would
chain needs that merely touch). Only the notes near the query at hand are grouped, so that
nothing depends on notes far away, and a retired one leaves no trace.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from services.matrixd.core.cold import Floats, Ref
from services.matrixd.core.playbook.notes import Note, name_question, to_logit
from services.matrixd.core.playbook.trust import Trust

# Mean cosine from which groups may be one need.
ALIKE = 0.5
LINKED = 0.5
# Part of the fewer documents that two notes must both believe in: needs whose answers merely
# overlap are not one.
COMMON = 0.5
# Log odds that two notes are of one need: for each point of cosine above what their parts of the
# corpus are crowded to, at none, and from where they count as one.
CROWDED = 22.0
UNRELATED = -2.0
LIKELY = 2.0
# Evidence of one need for one document is bounded. Log odds.
MOST = 6.0
# What is left of a vote that a later one of a source that never errs contradicts.
OUTDATED = 0.3
# From this clarity on, a source that takes its praise back is believed to have seen a change.
CAREFUL = 0.7


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
    count = len(notes)
    holders: dict[Ref, list[int]] = {}
    for at, (note, trust) in enumerate(zip(notes, trusts, strict=True)):
        for ref in note.believe(trust):
            holders.setdefault(ref, []).append(at)
    common = np.zeros((count, count))
    for places in holders.values():
        if len(places) > 1:
            common[np.ix_(places, places)] += 1.0
    sizes = np.array([len(note.believe(trust)) for note, trust in zip(notes, trusts, strict=True)])
    least = COMMON * np.minimum(sizes[:, None], sizes)
    agreed = (common > 0) & (common >= least)
    likely = weigh_pairs(notes, trusts, between) >= LIKELY
    # Nearness alone would not do: what differs in one word may be nearer than what differs in none.
    numbers: dict[str, int] = {}
    wordings = np.array([numbers.setdefault(note.wording, len(numbers)) for note in notes])
    same = wordings[:, None] == wordings
    shared = (same | agreed | likely).astype(np.float64)
    np.fill_diagonal(shared, 0.0)
    groups: list[tuple[int, ...]] = []
    for component in _components((shared > 0) & (between >= ALIKE), count):
        groups.extend(_link(component, shared, between))
    return sorted(groups)


def join_groups(notes: Sequence[Note], trusts: Sequence[Trust], own: Set[int]) -> set[int]:
    """Places of `own` notes, and of those that are of one need with any of them."""
    stack = np.stack([note.profile.vector for note in notes])
    groups = group_notes(notes, trusts, stack @ stack.T)
    return {at for group in groups if not own.isdisjoint(group) for at in group}


def weigh_pairs(notes: Sequence[Note], trusts: Sequence[Trust], between: Floats) -> Floats:
    """How much speaks for each two notes being of one need, as log odds.

    How near their queries lie for so crowded a part of the corpus; and, for each document that
    both rated, how much likelier their ratings are if it helps both or neither than if it
    helps each by itself. Judges that err leave few positives in common, but many such hints.
    """
    count = len(notes)
    crowds = np.array([note.profile.crowd for note in notes])
    odds = CROWDED * (between - (crowds[:, None] + crowds) / 2) + UNRELATED
    columns: dict[Ref, int] = {}
    for note in notes:
        for ref in note.votes:
            columns.setdefault(ref, len(columns))
    relevant = np.zeros((count, len(columns)))
    ratio = np.zeros((count, len(columns)))
    for at, (note, trust) in enumerate(zip(notes, trusts, strict=True)):
        praise, blame = math.exp(trust.positive), math.exp(-trust.negative)
        for ref, (vote, logit) in note.votes.items():
            relevant[at, columns[ref]] = 1 / (1 + math.exp(-logit))
            ratio[at, columns[ref]] = praise if vote > 0 else blame
    rows, others = np.triu_indices(count, 1)
    pairs, refs = np.nonzero((ratio[rows] > 0) & (ratio[others] > 0))
    one, other = rows[pairs], others[pairs]
    first, second = relevant[one, refs], relevant[other, refs]
    both = np.sqrt(first * second)
    ratios = ratio[one, refs], ratio[other, refs]
    apart = (first * ratios[0] + 1 - first) * (second * ratios[1] + 1 - second)
    hints = np.log((both * ratios[0] * ratios[1] + 1 - both) / apart)
    total = np.zeros(len(rows))
    np.add.at(total, pairs, hints)
    odds[rows, others] += total
    odds[others, rows] += total
    return odds


def weigh_evidence(group: Sequence[int], notes: Sequence[Note], trusts: Sequence[Trust]) -> Need:
    """The need of a group of notes."""
    order = sorted(group, key=lambda at: (notes[at].episode.seq, notes[at].episode.id))
    overruled = _find_overruled(order, notes, trusts)
    praise: dict[Ref, float] = {}
    blame: dict[Ref, float] = {}
    logits: dict[Ref, float] = {}
    for at in order:
        trust = trusts[at]
        # A careful source's later word outdates earlier ones; a careless one's hardly does.
        kept = 1 - (1 - OUTDATED) * trust.clarity**4
        for ref, (vote, logit) in notes[at].votes.items():
            logits[ref] = max(logit, logits.get(ref, logit))
            if (at, ref) in overruled:
                praise.setdefault(ref, 0.0)
                continue
            if vote > 0:
                praise[ref] = praise.get(ref, 0.0) + trust.positive
                blame[ref] = blame.get(ref, 0.0) * kept
            else:
                blame[ref] = blame.get(ref, 0.0) + trust.negative
                praise[ref] = praise.get(ref, 0.0) * kept
    evidence = {
        ref: min(max(praise[ref] - blame.get(ref, 0.0), -MOST), MOST) for ref in sorted(praise)
    }
    believed = to_logit(0.3)
    positives = tuple(
        ref for ref, odds in evidence.items() if odds > 0 and odds + logits[ref] >= believed
    )
    return Need(tuple(order), evidence, positives)


def _find_overruled(
    order: Sequence[int], notes: Sequence[Note], trusts: Sequence[Trust]
) -> set[tuple[int, Ref]]:
    """Votes that their own source has taken back since.

    Asked the very same again, a source's later word on a document stands. And where it takes
    back all that an earlier episode praised and it has judged again, the need has changed: what
    that episode blamed was blamed beside an answer that is none any more, so none of it counts.
    """
    said: dict[str, dict[Ref, int]] = {}
    repeated: dict[tuple[str, str], dict[Ref, int]] = {}
    overruled: set[tuple[int, Ref]] = set()
    for at in reversed(order):
        episode, votes = notes[at].episode, notes[at].votes
        later = said.setdefault(episode.source, {})
        same = repeated.setdefault(name_question(episode), {})
        known = later if trusts[at].clarity >= CAREFUL else same
        praised = {known[ref] for ref, (vote, _) in votes.items() if vote > 0 and ref in known}
        if praised == {-1}:
            overruled.update((at, ref) for ref in votes)
            continue
        overruled.update(
            (at, ref) for ref, (vote, _) in votes.items() if same.get(ref, vote) != vote
        )
        for ref, (vote, _) in votes.items():
            later.setdefault(ref, vote)
            same.setdefault(ref, vote)
    return overruled


def _components(
    linked: np.ndarray[tuple[int, int], np.dtype[np.bool_]], count: int
) -> list[list[int]]:
    label = list(range(count))
    pairs: list[list[int]] = np.argwhere(linked).tolist()
    for one, other in pairs:
        if other < one and label[one] != label[other]:
            old, new = label[one], label[other]
            label = [new if each == old else each for each in label]
    parts: dict[int, list[int]] = {}
    for at, each in enumerate(label):
        parts.setdefault(each, []).append(at)
    return [parts[each] for each in sorted(parts)]


def _link(component: list[int], shared: Floats, between: Floats) -> list[tuple[int, ...]]:
    if len(component) == 1:
        return [tuple(component)]
    shares = shared[np.ix_(component, component)]
    cosines = between[np.ix_(component, component)].copy()
    count = len(component)
    rows, columns = np.triu_indices(count, 1)
    if shares[rows, columns].min() > 0 and cosines[rows, columns].min() >= ALIKE:
        return [tuple(component)]
    # Sums over pairs of groups are kept, so that a merge adds two rows (Lance and Williams);
    # `best` holds the mean cosine of each pair of groups that may merge, above the diagonal.
    groups: list[list[int]] = [[at] for at in component]
    sizes = np.ones(count)
    above = np.triu(np.ones((count, count), np.bool_), 1)
    best = np.where(above & (shares >= LINKED), cosines, -1.0)
    while True:
        one, other = divmod(int(best.argmax()), count)
        if best[one, other] < ALIKE:
            break
        for sums in (shares, cosines):
            sums[one] += sums[other]
            sums[:, one] += sums[:, other]
        groups[one].extend(groups[other])
        groups[other] = []
        sizes[one] += sizes[other]
        sizes[other] = np.inf
        best[other] = best[:, other] = -1.0
        pairs = sizes[one] * sizes
        mean = np.where(shares[one] / pairs >= LINKED, cosines[one] / pairs, -1.0)
        best[one, one + 1 :] = mean[one + 1 :]
        best[:one, one] = mean[:one]
    return [tuple(sorted(group)) for group in groups if group]
