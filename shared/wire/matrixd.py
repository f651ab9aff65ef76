"""matrixd: corpora, and searching them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, StringConstraints, model_validator

from shared.wire.base import Request, Response

# Leaves room for what an index name adds to it.
CORPUS_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}$"
Column = Annotated[str, StringConstraints(min_length=1, max_length=512)]
# Of an object, or the beginning of several.
Key = Annotated[str, StringConstraints(max_length=1024)]
CorpusName = Annotated[str, StringConstraints(pattern=CORPUS_NAME)]
# A corpus asked for, which may not be there.
Named = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Source(Request):
    """Where a corpus's rows come from: exactly one of a dataset, a SELECT, or objects.

    `objects` is a prefix of keys, or a list of keys. An object is one row with the columns
    `key`, `text`, `size`, `content_type`; one whose key ends in `.jsonl` (or all, with
    `format` jsonl) has a row a line, an object each, its own keys as columns.
    """

    dataset: str | None = Field(default=None, min_length=1, max_length=128)
    sql: str | None = Field(default=None, min_length=1, max_length=100_000)
    objects: Key | list[Key] | None = None
    format: Literal["auto", "text", "jsonl"] = "auto"

    @model_validator(mode="after")
    def _check_one(self) -> Source:
        given = [n for n in ("dataset", "sql", "objects") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of dataset, sql and objects")
        if self.objects in ("", []):
            raise ValueError("objects: give a prefix or keys; an empty one means nothing")
        if self.format != "auto" and self.objects is None:
            raise ValueError("format is for objects only")
        return self


class Chunking(Request):
    """Texts longer than `words` words become several items that overlap by `overlap` words."""

    words: int = Field(default=160, ge=8, le=10_000)
    overlap: int = Field(default=20, ge=0, le=5_000)

    @model_validator(mode="after")
    def _check_overlap(self) -> Chunking:
        if self.overlap * 2 > self.words:
            raise ValueError("overlap may be at most half of words")
        return self


class CorpusSpec(Request):
    """What a corpus is made of.

    `id` and `text` are columns or templates: `{role} in {city}`; `{{` and `}}` are braces.
    `metadata` are columns kept with each row, for filters and answers. `model` is embedd's
    name of a model (its default when absent). With `refresh` on_ingest the corpus is brought
    up to date whenever a dataset that it reads has changed.
    """

    name: CorpusName
    source: Source
    id: Column = "key"
    text: str = Field(min_length=1, max_length=20_000)
    metadata: list[Column] = Field(default=[], max_length=200)
    chunking: Chunking | None = None
    model: str | None = Field(default=None, min_length=1, max_length=300)
    refresh: Literal["manual", "on_ingest"] = "manual"


JobStatus = Literal["running", "waiting", "done", "failed"]
Phase = Literal["read", "embed", "delete", "calibrate", "done"]


class Job(Response):
    """The latest build or refresh of a corpus.

    `waiting` is running while a daemon that it needs does not answer; `error` says which.
    `total` rows are to be embedded, `done` of them are; `unchanged` needed nothing, `deleted`
    were in the corpus and vanished from the source. `progress` goes from 0 to 1.
    """

    status: JobStatus = "running"
    phase: Phase = "read"
    rows_read: int = 0
    total: int = 0
    done: int = 0
    unchanged: int = 0
    deleted: int = 0
    progress: float = 0.0
    error: str | None = None
    started_at: str = ""
    finished_at: str | None = None


class Left(Response):
    """Rows of the source that are not in the corpus, and why; `examples` by the same names.

    rows = documents + duplicate_ids + null_ids + empty_texts + unusable, always. Of several
    rows with one id the first counts. `truncated_texts` are in, but the model read only their
    beginning: chunking helps.
    """

    rows: int = 0
    documents: int = 0
    duplicate_ids: int = 0
    null_ids: int = 0
    empty_texts: int = 0
    unusable: int = 0
    truncated_texts: int = 0
    examples: dict[str, list[str]] = {}


class Tuning(Request):
    """How a corpus is searched; what is absent is as matrixd's own default.

    `lexical` is the weight of words beside meaning in a document's score; `candidates` how
    many documents are looked at.
    """

    lexical: float | None = Field(default=None, ge=0, le=10, allow_inf_nan=False)
    candidates: int | None = Field(default=None, ge=10, le=1000)


class CorpusInfo(Response):
    """A corpus: its spec, what it holds, and its latest job.

    `status`: building until its index was filled once, then ready, also while it is refreshed;
    failed when that ended without success. An index made anew is filled anew.
    `items` are the documents' chunks.
    """

    name: str
    status: Literal["building", "ready", "failed"]
    source: Source
    id: str
    text: str
    metadata: list[str]
    chunking: Chunking | None = None
    refresh: str
    model: str
    dim: int
    index: str
    documents: int
    items: int
    report: Left
    job: Job
    calibrated: bool
    tuning: Tuning
    snapshots: dict[str, str] = {}
    created_at: str
    refreshed_at: str | None = None


class CorpusList(Response):
    """All corpora by name."""

    corpora: list[CorpusInfo]


class CorpusDeleted(Response):
    """Answer to DELETE: `deleted` is false when there was none."""

    name: str
    deleted: bool


class MatrixSearch(Request):
    """A query over corpora; all that are built when `corpora` is absent.

    `filters` are vectord's, over metadata, for all corpora alike. With `use_playbook` what
    was recorded for the same need moves documents. With `explain` each hit says why. What
    `tuning` says counts for this search before what each corpus has been tuned to.
    """

    query: str = Field(min_length=1, max_length=20_000)
    corpora: list[Named] | None = Field(default=None, min_length=1)
    k: int = Field(default=10, ge=1, le=200)
    filters: dict[str, Any] | None = Field(
        default=None, validation_alias=AliasChoices("filters", "filter")
    )
    use_playbook: bool = False
    explain: bool = False
    tuning: Tuning | None = None


class MatrixHit(Response):
    """One document. `score` is a probability of relevance, comparable between corpora.

    `chunk` is the number of the best matching chunk, whose text is shown; null where the
    document is one item.
    """

    corpus: str
    id: str
    score: float
    rank: int
    text: str | None
    metadata: dict[str, Any]
    chunk: int | None = None
    explain: dict[str, Any] | None = None


class CorpusAnswer(Response):
    """How one corpus took part: its hits among those returned, the candidates it gave."""

    status: Literal["ok", "building", "unknown", "unavailable"]
    hits: int = 0
    candidates: int = 0
    reason: str | None = None


class NoteUsed(Response):
    """A recorded episode that took part: how near its query is, how surely the same need."""

    episode_id: str
    query: str
    similarity: float
    probability: float


class PlaybookAnswer(Response):
    """What the playbook did for a search."""

    activated: bool = False
    notes: list[NoteUsed] = []


class MatrixAnswer(Response):
    """Hits of all corpora merged, best first; ties by corpus and id."""

    hits: list[MatrixHit]
    corpora: dict[str, CorpusAnswer]
    playbook: PlaybookAnswer
