"""What the playbook tells of itself and of what it did to a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.matrixd.core.cold import Floats, Ref


@dataclass(frozen=True, slots=True)
class NoteUse:
    """A note that took part in a search.

    `probability` is that of its need to be the query's own; `need` numbers the needs.
    """

    episode_id: str
    query: str
    similarity: float
    probability: float
    need: int


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one note added to one document's score."""

    episode_id: str
    delta: float


@dataclass(frozen=True, slots=True)
class Reranked:
    """A cold list after the playbook: the same documents, best first.

    Without activation refs and scores are cold's own. `routing` holds the log odds that each
    corpus gained or lost, where notes tell which corpus answers such a query.
    """

    refs: tuple[Ref, ...]
    scores: Floats
    activated: bool
    notes: tuple[NoteUse, ...] = ()
    contributions: Mapping[Ref, list[Contribution]] = field(
        default_factory=dict[Ref, list[Contribution]]
    )
    routing: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class NoteView:
    """A note as it stands: its counts, and how far its source is believed."""

    id: str
    seq: int
    query: str
    source: str
    run_id: str
    helpful: int
    harmful: int
    ignored: int
    accuracy: float


@dataclass(frozen=True, slots=True)
class SourceView:
    """What is believed of a source: estimated from its own ratings alone.

    `accuracy` is the probability that a rating is right; `share` the part of its ratings that
    has to do with the documents; `positive` and `negative` the log odds a rating is worth.
    """

    source: str
    episodes: int
    ratings: int
    accuracy: float
    error: float
    share: float
    positive: float
    negative: float
