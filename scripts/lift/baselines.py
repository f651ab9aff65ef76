"""What simpler memories would have made of the same recordings.

Each sees what our playbook saw: recorded queries, the ten documents shown, the ratings. It
reorders the cold candidates of a query. Parameters are those that are usual.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scripts.lift.edge import Found, Ref
from scripts.lift.judge import judge_honestly
from scripts.lift.judged import JudgedSet, Query
from scripts.lift.measures import Comparison, Pair, compare, score_list
from scripts.lift.trial import Trial

Vectors = Mapping[str, NDArray[np.float32]]
NEIGHBOURS = 5
VOTE_COSINE = 0.6
VOTE = 0.3
POPULARITY = 0.05
ROCCHIO_COSINE = 0.7
ALPHA, BETA, GAMMA = 1.0, 0.75, 0.15


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded query with its ratings."""

    text: str
    vector: NDArray[np.float32]
    ratings: list[tuple[Ref, int]]


def compare_baselines(trial: Trial, turns: int) -> dict[str, dict[str, Comparison]]:
    """Each baseline on repeats, held-out paraphrases and unseen queries."""
    plan, judged = trial.plan, trial.judged
    recorded = [q for queries in plan.recorded.values() for q in queries[:turns]]
    tested: dict[str, Sequence[Query]] = {
        "exact": trial.repeated,
        "paraphrase": trial.held,
        "unseen": plan.unseen,
    }
    asked = {query.id: query for group in tested.values() for query in group}
    texts = sorted({q.text for q in [*recorded, *asked.values()]})
    queries = _embed(trial, texts)
    wanted = {ref for identifier in asked for ref in trial.shown[identifier].refs}
    by_id = {document.id: document.text for document in judged.documents}
    needed = sorted({by_id[identifier] for _, identifier in wanted})
    documents = _embed(trial, needed)
    vectors = {ref: documents[by_id[ref[1]]] for ref in wanted}
    notes = [
        Recorded(
            query.text,
            queries[query.text],
            judge_honestly(trial.shown[query.id].refs[:10], judged.relevant[query.id]),
        )
        for query in recorded
    ]
    ways: dict[str, Callable[[Query, Found], list[Ref]]] = {
        "cache": lambda query, cold: _use_cache(query, cold, notes),
        "popularity": lambda query, cold: _use_popularity(cold, notes),
        "kNN vote": lambda query, cold: _use_votes(queries[query.text], cold, notes),
        "Rocchio": lambda query, cold: _use_rocchio(queries[query.text], cold, notes, vectors),
    }
    return {
        name: {arm: _compare(group, trial, judged, way) for arm, group in tested.items() if group}
        for name, way in ways.items()
    }


def _compare(
    group: Sequence[Query],
    trial: Trial,
    judged: JudgedSet,
    way: Callable[[Query, Found], list[Ref]],
) -> Comparison:
    pairs: list[Pair] = []
    for query in group:
        cold, relevant = trial.shown[query.id], judged.relevant[query.id]
        before = score_list(cold.ids, relevant).ndcg
        after = score_list([identifier for _, identifier in way(query, cold)], relevant).ndcg
        pairs.append(Pair(query.topic, before, after))
    return compare(pairs)


def _embed(trial: Trial, texts: Sequence[str]) -> Vectors:
    found = trial.edge.embed(texts)
    return dict(zip(texts, np.array(found, np.float32), strict=True))


def _use_cache(query: Query, cold: Found, notes: Sequence[Recorded]) -> list[Ref]:
    for note in notes:
        if note.text == query.text:
            first = [ref for ref, rating in note.ratings if rating > 0]
            wrong = {ref for ref, rating in note.ratings if rating < 0}
            rest = [ref for ref in cold.refs if ref not in first]
            return first + [r for r in rest if r not in wrong] + [r for r in rest if r in wrong]
    return list(cold.refs)


def _use_popularity(cold: Found, notes: Sequence[Recorded]) -> list[Ref]:
    praised: dict[Ref, int] = {}
    for note in notes:
        for ref, rating in note.ratings:
            praised[ref] = praised.get(ref, 0) + (rating > 0)
    added = [POPULARITY * math.log1p(praised.get(ref, 0)) for ref in cold.refs]
    return _reorder(cold, added)


def _use_votes(vector: NDArray[np.float32], cold: Found, notes: Sequence[Recorded]) -> list[Ref]:
    near = sorted(((float(n.vector @ vector), n) for n in notes), key=lambda pair: -pair[0])
    votes: dict[Ref, float] = {}
    for cosine, note in near[:NEIGHBOURS]:
        if cosine >= VOTE_COSINE:
            for ref, rating in note.ratings:
                votes[ref] = votes.get(ref, 0.0) + VOTE * cosine * rating
    return _reorder(cold, [votes.get(ref, 0.0) for ref in cold.refs])


def _use_rocchio(
    vector: NDArray[np.float32],
    cold: Found,
    notes: Sequence[Recorded],
    vectors: Mapping[Ref, NDArray[np.float32]],
) -> list[Ref]:
    near = [note for note in notes if float(note.vector @ vector) >= ROCCHIO_COSINE]
    good = [vectors[r] for n in near for r, rating in n.ratings if rating > 0 and r in vectors]
    bad = [vectors[r] for n in near for r, rating in n.ratings if rating < 0 and r in vectors]
    if not good:
        return list(cold.refs)
    moved = ALPHA * vector + BETA * np.mean(good, axis=0)
    if bad:
        moved = moved - GAMMA * np.mean(bad, axis=0)
    scores = [float(moved @ vectors[ref]) for ref in cold.refs]
    order = sorted(range(len(cold.refs)), key=lambda at: -scores[at])
    return [cold.refs[at] for at in order]


def _reorder(cold: Found, added: Sequence[float]) -> list[Ref]:
    scores = [each["p0"] + more for each, more in zip(cold.explained, added, strict=True)]
    return [cold.refs[at] for at in sorted(range(len(scores)), key=lambda at: -scores[at])]
