"""What an episode is on paper: its identity, its entry, and who is meant by a retirement."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count

from shared.errors import Conflict, Invalid
from shared.wire.matrixd_playbook import EpisodeInfo, RatedDocument, RecordRequest, RetireRequest


@dataclass(slots=True)
class Entry:
    """An episode as the log has it, without its vectors.

    `basis` is what it is recognised by when it is sent again; `body` a hash of what it says.
    """

    id: str
    seq: int
    basis: str
    body: str
    query: str
    ratings: tuple[RatedDocument, ...]
    source: str
    run_id: str | None
    corpora: tuple[str, ...]
    models: tuple[str, ...]
    recorded_at: str
    retired_at: str | None = None
    retire_reason: str | None = None

    def describe(self, note: dict[str, object] | None) -> EpisodeInfo:
        """As it is answered."""
        return EpisodeInfo(
            episode_id=self.id,
            seq=self.seq,
            query=self.query,
            ratings=list(self.ratings),
            source=self.source,
            run_id=self.run_id,
            corpora=list(self.corpora),
            models=list(self.models),
            recorded_at=self.recorded_at,
            retired_at=self.retired_at,
            retire_reason=self.retire_reason,
            note=note,
        )


def check_ratings(request: RecordRequest, limit: int) -> tuple[RatedDocument, ...]:
    """The ratings, each document once, ordered, so that their order never matters.

    Raises:
        Invalid: too many, or one document rated in two ways, or the query is blank.
    """
    if not request.query.strip():
        raise Invalid("The query is blank. Record the query that was searched for.")
    if len(request.ratings) > limit:
        raise Invalid(f"{len(request.ratings)} ratings in one episode; at most {limit}.")
    found: dict[tuple[str, str], RatedDocument] = {}
    for one in request.ratings:
        held = found.setdefault((one.corpus, one.id), one)
        if held.rating != one.rating:
            raise Invalid(
                f"Document {one.id!r} of {one.corpus!r} is rated both {held.rating} and "
                f"{one.rating}. Record one judgment for each document.",
                details={"corpus": one.corpus, "id": one.id},
            )
    return tuple(found[key] for key in sorted(found))


def hash_body(request: RecordRequest, ratings: Sequence[RatedDocument]) -> str:
    """A hash of all that an episode says."""
    said = [
        request.query,
        [[one.corpus, one.id, one.rating] for one in ratings],
        request.source,
        request.run_id,
        sorted(set(request.corpora or ())),
    ]
    return _digest(json.dumps(said, ensure_ascii=False))


def name_episode(body: str, key: str | None, existing: Iterable[Entry]) -> tuple[str, str]:
    """The id and basis of an episode: its key's, or its content's.

    What was retired may be recorded anew, under another id; a key always means the same one.

    Args:
        body: as of `hash_body`. key: the Idempotency-Key.
        existing: the entries of the same basis.
    """
    if key is not None:
        basis = _digest(f"key:{key}")
        return f"ep-{basis[:24]}", basis
    known = {entry.id: entry for entry in existing}
    in_force = [name for name, entry in known.items() if entry.retired_at is None]
    if in_force:
        return in_force[0], body
    # The first that is free: a damaged log may have lost any of them.
    names = (f"ep-{_digest(f'{body}:{number}')[:24]}" for number in count())
    return next(name for name in names if name not in known), body


def basis_of(body: str, key: str | None) -> str:
    """What an episode is recognised by."""
    return body if key is None else _digest(f"key:{key}")


def check_repeat(entry: Entry, body: str) -> None:
    """Passes when an episode sent again says the same.

    Raises:
        Conflict: the Idempotency-Key was used for something else.
    """
    if entry.body != body:
        raise Conflict(
            f"This Idempotency-Key recorded another episode, {entry.id}. Send a new key.",
            details={"episode_id": entry.id},
        )


def choose_retired(request: RetireRequest, entries: Iterable[Entry]) -> list[Entry]:
    """The entries that a retirement means, already retired ones included.

    Raises:
        Invalid: it names nothing, or in more than one way.
    """
    ways = [
        request.episode_ids is not None,
        bool(request.source),
        bool(request.run_id),
        request.all,
    ]
    if sum(ways) != 1:
        raise Invalid("Say which episodes: give one of episode_ids, source, run_id, or all: true.")
    wanted = set(request.episode_ids or ())
    return [
        entry
        for entry in entries
        if request.all
        or entry.id in wanted
        or (request.source is not None and entry.source == request.source)
        or (request.run_id is not None and entry.run_id == request.run_id)
    ]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
