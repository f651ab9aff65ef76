"""vectord: indexes, items, searches."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from shared.wire.base import Request, Response

# Media type of Arrow IPC streams, in and out.
ARROW_STREAM = "application/vnd.apache.arrow.stream"

INDEX_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}$"
Metric = Literal["cosine", "l2", "ip"]
# Languages whose endings are taken off words, by Snowball's stemmers; "none" keeps them.
Language = Literal[
    "arabic", "danish", "dutch", "english", "finnish", "french", "german", "greek", "hungarian",
    "italian", "none", "norwegian", "portuguese", "romanian", "russian", "spanish", "swedish",
    "tamil", "turkish",
]  # fmt: skip
Include = Literal["text", "metadata", "vector", "dense", "lexical"]
DEFAULT_INCLUDE: tuple[Include, ...] = ("text", "metadata")


class IndexSpec(Request):
    """What an index is made of; none of it changes later.

    `m` and `ef_construction` are HNSW's: links per node, and candidates looked at when a
    node is linked. `model` names what made the vectors, so that others are refused. `language`
    is that of the texts: "welders" then finds "welder".
    """

    name: str = Field(pattern=INDEX_NAME)
    dim: int = Field(ge=1, le=16_384)
    metric: Metric = "cosine"
    m: int = Field(default=16, ge=2, le=128)
    ef_construction: int = Field(default=200, ge=8, le=4000)
    model: str = Field(default="", max_length=256)
    language: Language = "english"


class IndexInfo(Response):
    """One index as it is now.

    `count` are the items; `deleted_rows` wait for a rebuild; `delta_rows` are new and
    scanned beside the graph; `segments` are the graphs searched; `memory_bytes` is an
    estimate. `stored_seq` is the last journal record that a stored snapshot covers, of
    `seq` in all. `problems` tells what was found damaged and how it was mended.
    """

    name: str
    dim: int
    metric: Metric
    m: int
    ef_construction: int
    model: str
    language: Language
    status: Literal["ready", "loading", "failed"]
    count: int = 0
    deleted_rows: int = 0
    delta_rows: int = 0
    segments: int = 0
    memory_bytes: int = 0
    seq: int = 0
    stored_seq: int = 0
    created_at: str = ""
    problems: list[str] = []


class IndexList(Response):
    """All indexes by name."""

    indexes: list[IndexInfo]


class IndexDeleted(Response):
    """Answer to DELETE of an index: `deleted` is false when there was none."""

    name: str
    deleted: bool


class Item(Request):
    """One item to write. Its vector is kept as float32."""

    id: str = Field(min_length=1, max_length=512)
    vector: list[float]
    text: str | None = None
    metadata: dict[str, Any] = {}


class PutItems(Request):
    """Items to write; of several with one id the last wins."""

    items: list[Item]
    model: str | None = None


class ItemsWritten(Response):
    """Answer to PUT: `written` distinct items are durable and seen by every later search.

    `duplicates` in the request were overridden by a later item of the same id.
    """

    written: int
    duplicates: int
    count: int


class DeleteItems(Request):
    """Which items to remove: by `ids` or by `filter`, not both."""

    ids: list[str] | None = None
    filter: dict[str, Any] | None = None


class ItemsDeleted(Response):
    """Answer to DELETE of items: how many were there and are gone."""

    deleted: int
    count: int


class ItemFound(Response):
    """One item."""

    id: str
    vector: list[float]
    text: str | None = None
    metadata: dict[str, Any]


class Query(Request):
    """One query: a vector for nearest items, a text for BM25, or both for the two fused."""

    vector: list[float] | None = None
    text: str | None = None
    k: int = 10
    ef: int | None = Field(default=None, ge=1, le=10_000)
    filter: dict[str, Any] | None = None
    include: list[Include] = list(DEFAULT_INCLUDE)


class ArrowOptions(Request):
    """What a batch of queries that comes as Arrow asks for beside its vectors and texts."""

    k: int = 10
    ef: int | None = Field(default=None, ge=1, le=10_000)
    filter: str | None = Field(default=None, description="A filter as JSON")
    include: list[Include] = list(DEFAULT_INCLUDE)
    model: str | None = None


class SearchRequest(Query):
    """One query in place, or several in `queries`."""

    queries: list[Query] | None = None
    model: str | None = None


class Hit(Response):
    """One hit. `rank` counts from 1; a higher `score` is better.

    Score: cosine similarity, inner product, or minus the Euclidean distance; BM25 for text;
    the fused score for both.
    """

    id: str
    score: float
    rank: int
    text: str | None = None
    metadata: dict[str, Any] | None = None
    vector: list[float] | None = None


class SearchResponse(Response):
    """Answer to one query. `dense` and `lexical` are there when included and searched."""

    hits: list[Hit]
    dense: list[Hit] | None = None
    lexical: list[Hit] | None = None


class BatchResponse(Response):
    """Answers to a batch, in order."""

    results: list[SearchResponse]


class Candidates(Response):
    """One query's candidates in columns: dense hits, best first, then those words alone found.

    `dense` and `lexical` (BM25; 0 where no word occurs) are exact for every item, whichever
    search found it. `vectors`, when included, is base64 of little-endian float32 rows.
    """

    ids: list[str]
    dense: list[float]
    lexical: list[float]
    texts: list[str | None] | None = None
    metadata: list[dict[str, Any]] | None = None
    vectors: str | None = None


class CandidatesResponse(Response):
    """Candidates of each query, in order, and how many items the index held."""

    count: int
    results: list[Candidates]
