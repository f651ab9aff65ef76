"""pathwayd: versioned traces and their search."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from shared.wire.base import Request, Response

TRACE_ID = r"^[A-Za-z0-9][A-Za-z0-9_.:\-]{0,127}$"

Status = Literal["live", "superseded", "retired"]
Mode = Literal["hybrid", "semantic", "lexical"]
Event = Literal["add", "update", "revise", "retire"]


class WithVector(Request):
    """What may come with a vector of the caller's own.

    `vector` is a list of numbers, or base64 of little-endian float32; `vector_model` is the
    id of the model that made it, which must be the one in use here. Without a vector
    pathwayd has the text embedded.
    """

    vector: list[float] | str | None = None
    vector_model: str | None = Field(default=None, max_length=300)


class TraceAdd(WithVector):
    """A trace to add.

    `content` is any JSON but null, and is never interpreted. What is searched is `text`, or
    else the strings and numbers in `content`. With `dedupe` a live trace of the same content
    is given back in place of a second one. `id` is made when it is left out.
    """

    content: Any
    tags: list[str] = []
    text: str | None = None
    id: str | None = Field(default=None, pattern=TRACE_ID)
    dedupe: bool = False


class TraceBatch(Request):
    """Traces to add in one request; each is as if it were sent alone."""

    traces: list[TraceAdd] = Field(min_length=1)


class TraceUpdate(WithVector):
    """The next version of a trace, in place: all of its content, and its tags if given.

    `expected_version` refuses the update (409) when the trace has moved on.
    """

    content: Any
    tags: list[str] | None = None
    text: str | None = None
    expected_version: int | None = Field(default=None, ge=1)


class TraceRevise(WithVector):
    """A new trace that takes the place of another; it inherits the tags unless it has some."""

    content: Any
    tags: list[str] | None = None
    text: str | None = None
    id: str | None = Field(default=None, pattern=TRACE_ID)
    expected_version: int | None = Field(default=None, ge=1)


class TraceRetire(Request):
    """Why a trace is retired."""

    reason: str | None = Field(default=None, max_length=2000)
    expected_version: int | None = Field(default=None, ge=1)


class Trace(Response):
    """One trace as it is now, or one version of it.

    `hash` is the SHA-256 of its content as canonical JSON. `embedded` says whether meaning
    finds it already; words always do. `duplicate` marks an answer to a request that had been
    carried out before.
    """

    id: str
    version: int
    status: Status
    surface: Literal["pathway", "mem0"] = "pathway"
    content: Any
    tags: list[str]
    text: str | None = None
    hash: str
    created_at: str
    updated_at: str
    retired_at: str | None = None
    reason: str | None = None
    supersedes: str | None = None
    superseded_by: str | None = None
    embedded: bool = False
    duplicate: bool = False


class TraceList(Response):
    """Traces, newest change first; `cursor` asks for what follows, null at the end."""

    traces: list[Trace]
    cursor: str | None = None


class TracesAdded(Response):
    """Answer to a batch: the traces in the order of the request, without their content."""

    traces: list[TraceRef]


class TraceRef(Response):
    """What became of one trace of a batch."""

    id: str
    version: int
    embedded: bool
    duplicate: bool


class HistoryEntry(Response):
    """One thing that happened to a trace. `content` is null where the log has lost it."""

    id: str
    version: int
    event: Event
    at: str | None
    content: Any = None
    tags: list[str] = []
    reason: str | None = None
    lost: bool = False


class History(Response):
    """A trace's past, newest first, through the traces that it supersedes.

    `chain` are the ids from this one backwards. `problems` says what is not right in damaged
    data: a cycle (then `cycle` holds its ids), a predecessor or a version that is lost.
    """

    id: str
    chain: list[str]
    entries: list[HistoryEntry]
    cycle: list[str] | None = None
    truncated: bool = False
    problems: list[str] = []


class PathwaySearch(WithVector):
    """A search.

    Without `query` and `vector` it lists what `filter` keeps, newest first. `threshold` drops
    hits of a lower score. `explain` adds how each score came about.
    """

    query: str | None = None
    k: int = Field(default=10, ge=1)
    filter: dict[str, Any] | None = None
    mode: Mode = "hybrid"
    threshold: float | None = Field(default=None, ge=0, le=1)
    include_superseded: bool = False
    explain: bool = False


class TermScore(Response):
    """What one word of the query adds: its weight in this memory, and its count in the trace."""

    word: str
    idf: float
    count: int
    adds: float


class Explanation(Response):
    """score = semantic_weight * max(0, cosine) + lexical_weight * lexical.

    `lexical` is tanh(bm25 / idf_sum): 0.76 for a trace of usual length that holds each word
    of the query once.
    """

    semantic_weight: float
    lexical_weight: float
    cosine: float | None
    semantic_rank: int | None
    bm25: float
    idf_sum: float
    lexical: float
    lexical_rank: int | None
    terms: list[TermScore]


class PathwayHit(Response):
    """One hit. `semantic` is the cosine (null without a vector), `lexical` the words' part."""

    id: str
    score: float
    rank: int
    semantic: float | None = None
    lexical: float | None = None
    version: int
    status: Status
    content: Any
    tags: list[str]
    created_at: str
    updated_at: str
    supersedes: str | None = None
    superseded_by: str | None = None
    explain: Explanation | None = None


class SemanticState(Response):
    """How meaning took part: ok, partial (not all traces have a vector of this model yet),
    unavailable (then `reason` says why, and words alone were searched), or off."""

    status: Literal["ok", "partial", "unavailable", "off"]
    model: str | None = None
    embedded: int = 0
    pending: int = 0
    reason: str | None = None


class PathwayResults(Response):
    """Hits, best first. `mode` is what was done, which may be less than what was asked."""

    hits: list[PathwayHit]
    mode: Literal["hybrid", "semantic", "lexical", "filter"]
    degraded: bool = False
    semantic: SemanticState
    matched: int


class LogReport(Response):
    """What the log holds, and what reading it has met.

    `missing` counts records that are in no intact place, `gaps` their numbers as first and
    last, `damaged` runs of unreadable bytes (copied to the quarantine). `checked` says
    whether all of the log has been read since the start.
    """

    last_seq: int
    segments: int
    bytes: int
    checkpoint_seq: int
    checked: bool
    damaged: int = 0
    damaged_bytes: int = 0
    missing: int = 0
    gaps: list[tuple[int, int]] = []
    torn: int = 0
    duplicates: int = 0
    unknown: int = 0
    quarantined: int = 0


class PathwayStats(Response):
    """Figures: traces by status, vectors, what they take in memory, and the log."""

    status: Literal["loading", "ready", "failed"]
    live: int = 0
    superseded: int = 0
    retired: int = 0
    vectors: SemanticState
    unembeddable: int = 0
    memory_bytes: dict[str, int] = {}
    log: LogReport | None = None
    problems: list[str] = []
