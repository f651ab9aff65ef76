"""ingestd: files become tables."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from shared.wire.base import Request, Response, WithSchema
from shared.wire.catalogd import DATASET_NAME, FileCount, Rejects

INGEST_PATH = "/ingest"
JOBS_PATH = "/ingest/jobs"
JOB_ID = r"^j[0-9a-f]{16}$"
# The multipart field that holds a file; several have one each.
FILE_FIELD = "file"
# Characters of a file's name that are kept.
MOST_NAME = 255

Mode = Literal["append", "replace", "upsert"]
Contract = Literal["evolve", "freeze", "discard_row", "discard_value"]
JobStatus = Literal["queued", "running", "done", "failed", "cancelled"]


class IngestQuery(Request):
    """What to do with the file, as query parameters.

    The values are texts so that a refusal can name what is supported. Those about the file
    (`header` and after) are found out from it when they are left out.
    """

    dataset: str = Field(
        description="Name of the dataset: a lower-case letter, then letters, digits, _",
        json_schema_extra={"pattern": DATASET_NAME},
    )
    mode: str = Field(
        default="append",
        description="append adds the rows to the dataset; replace puts them in place of all "
        "others; upsert puts them in place of those with their keys, and adds the rest",
        json_schema_extra={"enum": ["append", "replace", "upsert"]},
    )
    contract: str = Field(
        default="freeze",
        description="What becomes of columns and values that do not go with the dataset: freeze "
        "refuses the file, evolve lets the schema grow, discard_row keeps such rows as rejects, "
        "discard_value makes such values NULL and lists them",
        json_schema_extra={"enum": ["evolve", "freeze", "discard_row", "discard_value"]},
    )
    key: str | None = Field(
        default=None, description="For mode=upsert: the columns that tell rows apart, by commas"
    )
    format: str | None = Field(
        default=None,
        description="What the file is; found out otherwise",
        json_schema_extra={"enum": ["csv", "jsonl", "parquet"]},
    )
    header: str = Field(default="auto", description="Whether there is one: true, false or auto")
    delimiter: str | None = Field(default=None, description="Between fields: , ; | tab or another")
    quote: str | None = Field(default=None, description="Around fields; none for no quotes")
    escape: str | None = Field(default=None, description="double or backslash: quotes in fields")
    encoding: str | None = Field(default=None, description="Of the text: utf-8, cp1252, utf-16, …")


ObjectKey = Annotated[str, Field(min_length=1, max_length=4096, pattern="^uploads/.+")]


class IngestReference(Request):
    """Files that lie in storage, beneath `uploads/`, in place of the file itself.

    One of the three: `object`, the key of one; `objects`, those of several, taken in this
    order; `prefix`, which takes all whose keys begin so, in the order of their keys.
    """

    object: ObjectKey | None = None
    objects: list[ObjectKey] | None = None
    prefix: str | None = Field(default=None, max_length=4096, pattern="^uploads/")


class IngestResult(WithSchema):
    """What one ingest did. `rows_in = rows_out + rejects.count`, always.

    `rejects.object` is a Parquet object in storaged that lists what was left out: line_number,
    column_name, error_type, message, raw_line. Under contract=discard_value it also lists
    the values that became NULL (error_type `discarded_value`), which `rejects.count` does not
    count, because their rows were kept. `duplicate`: the same input was ingested before with
    the same options, and nothing was written. `inserted` and `updated`, of an upsert alone, add
    up to `rows_out`: rows with a key that was new, and rows that took others' place. `files`
    says what became of each where several were sent; their rejects begin with file_name.
    """

    dataset: str
    snapshot_id: str
    ingest_id: str
    rows_in: int
    rows_out: int
    rejects: Rejects
    warnings: list[str] = []
    duplicate: bool = False
    inserted: int | None = None
    updated: int | None = None
    files: list[FileCount] = []


class JobSource(Response):
    """What a job ingests: so many bytes, in so many files, that were received or lie in storage.

    `object` is the key of the one, or the prefix of all of them, where the request named it.
    """

    bytes: int
    object: str | None = None
    files: int = 1


class JobProgress(Response):
    """How far a job is.

    `stage` is one of queued, fetching (an object), sampling, reading, converting, matching and
    rewriting (an upsert), storing, registering, done, failed, cancelled. `bytes_read` of
    `bytes_total` is the stage's own pass over the file; `rows` and `rejects` are counted while
    it is read, and in the end are those of the result. Of several files the figures are those
    of all, and `files_done` of `files_total` are converted. `note` says why a job waits.
    """

    stage: str
    bytes_read: int = 0
    bytes_total: int | None = None
    rows: int = 0
    rejects: int = 0
    parts_stored: int = 0
    parts_total: int | None = None
    files_done: int = 0
    files_total: int | None = None
    note: str | None = None


class JobFailure(Response):
    """Why a job failed: what the request would have been answered with."""

    code: str
    status: int
    message: str
    details: dict[str, Any] = {}


class IngestJob(Response):
    """An ingest that goes on by itself, also when ingestd is killed and started again.

    `result` is there once it is `done`, `error` once it has `failed`; lists leave the result
    out. Times are RFC 3339 in UTC.
    """

    job_id: str
    status: JobStatus
    dataset: str
    mode: str
    contract: str
    source: JobSource
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None
    progress: JobProgress
    result: IngestResult | None = None
    error: JobFailure | None = None


class IngestJobs(Response):
    """Jobs, newest first. `next_cursor` asks for what follows."""

    jobs: list[IngestJob]
    next_cursor: str | None = None
