"""Notes: what an episode says once it is known how far its source can be believed."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from services.matrixd.core.cold import ColdList, Floats, Ref, find_first
from services.matrixd.core.playbook.episodes import Episode
from services.matrixd.core.playbook.trust import Trust

# A rating counts only of a document that stood so high in its own query's cold list, or among
# those of its corpus, or in what search with the playbook showed then: what stands elsewhere was
# not seen among the results.
SEEN, SEEN_OF_CORPUS = 20, 10
# Documents whose mean cosine tells how crowded the corpus is around a query.
CROWD = 10
# A note holds a document relevant from this probability on.
BELIEVED = 0.3
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Profile:
    """A query as cold retrieval sees it.

    Attributes:
        vector: its unit vector, in double precision.
        crowd: mean cosine of its nearest documents.
        best: cosine of its nearest document.
    """

    vector: Floats
    crowd: float
    best: float


def make_profile(vector: Floats, cold: ColdList) -> Profile:
    """The profile of a query from its cold list."""
    if not cold.refs:
        return Profile(vector, 0.0, 0.0)
    near = np.sort(cold.cosine)[::-1][:CROWD]
    return Profile(vector, float(near.mean()), float(near[0]))


@dataclass(frozen=True, slots=True)
class Note:
    """An episode made ready for search.

    Attributes:
        episode: what it stands for.
        profile: its query.
        wording: the words of its query.
        votes: rated documents that count: +1 or -1, and the logit of their p0.
        documents: unit vectors of those rated above 0, in double precision.
        digest: of its episode's id, an order that has nothing to do with when it came.
        believed: what `believe` gave, by what a rating above 0 was worth.
        hints: what it tells of corpora, by what ratings above and below 0 were worth.
    """

    episode: Episode
    profile: Profile
    wording: str
    votes: Mapping[Ref, tuple[int, float]]
    documents: Mapping[Ref, Floats]
    digest: str
    believed: dict[float, frozenset[Ref]] = field(default_factory=dict[float, frozenset[Ref]])
    hints: dict[tuple[float, float], Mapping[str, float]] = field(
        default_factory=dict[tuple[float, float], Mapping[str, float]]
    )

    def believe(self, trust: Trust) -> frozenset[Ref]:
        """Documents that it makes likely relevant to its query, given its source's trust."""
        found = self.believed.get(trust.positive)
        if found is None:
            least = to_logit(BELIEVED) - trust.positive
            found = frozenset(
                ref for ref, (vote, logit) in self.votes.items() if vote > 0 and logit >= least
            )
            self.believed[trust.positive] = found
        return found


def find_shown(cold: ColdList, order: Sequence[Ref], rated: Collection[Ref]) -> tuple[Ref, ...]:
    """Rated documents that only search with the playbook showed.

    Args:
        cold: all candidates of the query.
        order: the same as the playbook ranks them.
    """
    before, after = (
        {refs[at] for at in find_first(refs, SEEN, SEEN_OF_CORPUS)} for refs in (cold.refs, order)
    )
    return tuple(sorted((after - before).intersection(rated)))


def make_note(episode: Episode) -> Note:
    """The note of an episode; the last rating of a document wins."""
    vector = np.asarray(episode.vector, np.float64)
    kept = episode.cold.keep(SEEN, SEEN_OF_CORPUS, episode.shown)
    seen = dict(zip(kept.refs, kept.p0.tolist(), strict=True))
    votes: dict[Ref, tuple[int, float]] = {}
    for each in episode.ratings:
        ref = (each.corpus, each.id)
        if ref in seen:
            votes.pop(ref, None)
            if each.rating:
                votes[ref] = (1 if each.rating > 0 else -1, to_logit(seen[ref]))
    documents = {
        ref: np.asarray(vector, np.float64)
        for ref, vector in sorted(episode.documents.items())
        if votes.get(ref, (0, 0.0))[0] > 0
    }
    return Note(
        episode,
        make_profile(vector, episode.cold),
        read_wording(episode.query),
        dict(sorted(votes.items())),
        documents,
        digest(episode.id),
    )


def read_wording(query: str) -> str:
    """The words of a query: the same for queries that differ in case, marks or spaces alone."""
    return " ".join(_WORD.findall(query.casefold())) or query.strip()


def name_question(episode: Episode) -> tuple[str, str]:
    """Who asked what: the same for a query that its source judges again."""
    return episode.source, " ".join(episode.query.split()).lower()


def digest(text: str) -> str:
    """SHA-256 of a text, in hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def to_logit(probability: float) -> float:
    """ln(p / (1 - p)), finite."""
    clipped = min(max(probability, 1e-9), 1 - 1e-9)
    return math.log(clipped / (1 - clipped))
