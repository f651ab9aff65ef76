"""matrixd: the playbook, what worked or failed for a query."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator

from shared.wire.base import Request, Response
from shared.wire.matrixd import CorpusName

SourceName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class RatedDocument(Request):
    """A judgment: 1 it answered the query, 0 it did not matter, -1 it was wrong."""

    corpus: CorpusName
    id: str = Field(min_length=1, max_length=512)
    rating: Literal[1, 0, -1]

    @field_validator("rating", mode="before")
    @classmethod
    def _refuse_booleans(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("a rating is 1, 0 or -1")
        return value


class RecordRequest(Request):
    """One episode: a query, and how documents did for it.

    `source` names the judge; how far it can be trusted is estimated from its own records.
    `corpora` are those that were searched (all that are built when absent).
    """

    query: str = Field(min_length=1, max_length=20_000)
    ratings: list[RatedDocument] = Field(min_length=1)
    source: SourceName = "human"
    run_id: str | None = Field(default=None, min_length=1, max_length=200)
    corpora: list[CorpusName] | None = Field(default=None, min_length=1)


class Recorded(Response):
    """Answer to a record: durable. `duplicate`: it was there already, nothing was added."""

    episode_id: str
    duplicate: bool = False
    retired: bool = False
    seq: int
    recorded_at: str


class EpisodeInfo(Response):
    """One recorded episode. `note` is what the playbook derived from it, while in force."""

    episode_id: str
    seq: int
    query: str
    ratings: list[RatedDocument]
    source: str
    run_id: str | None = None
    corpora: list[str]
    models: list[str]
    recorded_at: str
    retired_at: str | None = None
    retire_reason: str | None = None
    note: dict[str, Any] | None = None


class EpisodeList(Response):
    """Episodes, newest first, and what is known of their sources."""

    episodes: list[EpisodeInfo]
    total: int
    retired: int
    sources: dict[str, dict[str, Any]]
    next_cursor: str | None = None


class RetireRequest(Request):
    """Which episodes are withdrawn: by id, by source, by run, or all of them."""

    episode_ids: list[str] | None = Field(default=None, min_length=1, max_length=100_000)
    source: SourceName | None = None
    run_id: str | None = Field(default=None, min_length=1, max_length=200)
    all: bool = False
    reason: str = Field(default="", max_length=2000)


class RetireReason(Request):
    """Why one episode is withdrawn."""

    reason: str = Field(default="", max_length=2000)


class Retired(Response):
    """Answer to a retirement: how many are withdrawn by it, and how many were already."""

    retired: int
    already: int
    episode_ids: list[str]
