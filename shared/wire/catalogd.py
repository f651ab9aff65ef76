"""catalogd: datasets as Iceberg tables."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from shared.wire.base import Request, Response, WithSchema

# Names that every engine takes unquoted in lower case, short enough for any file system.
DATASET_NAME = r"^[a-z][a-z0-9_]{0,62}$"
# A tag begins with a letter, so that it is neither a snapshot id nor a time.
TAG_NAME = r"^[A-Za-z][A-Za-z0-9._-]{0,62}$"
Mode = Literal["append", "replace", "rewrite"]
# An ingest id may be anything printable; it stands percent-encoded in a path.
INGEST_ID = r"^[^\x00-\x1f\x7f]+$"
ObjectKey = Annotated[str, Field(min_length=1, max_length=4096)]
# A data file of a snapshot: its `uri` as `files` tells it, or its object's key.
DataFileName = Annotated[str, Field(min_length=1, max_length=4096)]


class Rejects(Response):
    """Rows kept out of the table: how many, and the object that holds them (none if 0)."""

    count: int = 0
    object: str | None = None


class FileCount(Response):
    """What one of an ingest's several files became. `rows_in = rows_out + rejects`."""

    name: str
    rows_in: int
    rows_out: int
    rejects: int


class IngestRecord(Request):
    """What one ingest did; kept with its id so that a retry gets the same answer."""

    rows_in: int = Field(ge=0)
    rows_out: int = Field(ge=0)
    rejects: Rejects = Rejects()
    source_bytes: int = Field(default=0, ge=0)
    source_sha256: str = ""
    warnings: list[str] = []
    inserted: int | None = Field(default=None, ge=0)
    updated: int | None = Field(default=None, ge=0)
    files: list[FileCount] = Field(default=[], max_length=10_000)


class RegisterRequest(Request):
    """Makes Parquet objects that storaged holds part of a dataset.

    `ingest_id` names the write: the same id again changes nothing. Without it the id is
    derived from the dataset, the mode and the objects' keys and etags. `evolve` lets the
    table's schema grow (new columns, lossless widening) instead of answering 409; with
    mode=replace it becomes that of the objects. `uuid`, when given, is the identity under
    which the write began: 409 if the dataset was deleted since.

    mode=rewrite takes the files in `removes` out and puts the objects in, in one snapshot; all
    other files stay. A file that the current snapshot does not hold is 409 and changes
    nothing: somebody has rewritten it. `base_snapshot` makes any write conditional: 409 when
    the dataset's current snapshot is another (empty: when it has one).
    """

    name: str = Field(pattern=DATASET_NAME)
    objects: list[ObjectKey] = Field(max_length=10_000)
    mode: Mode = "append"
    ingest_id: str | None = Field(default=None, min_length=1, max_length=200, pattern=INGEST_ID)
    evolve: bool = False
    uuid: str | None = Field(default=None, max_length=36)
    record: IngestRecord | None = None
    removes: list[DataFileName] = Field(default=[], max_length=10_000)
    base_snapshot: str | None = Field(default=None, max_length=20, pattern=r"^\d*$")

    @model_validator(mode="after")
    def _check_removes(self) -> RegisterRequest:
        if self.removes and self.mode != "rewrite":
            raise ValueError("removes needs mode=rewrite")
        return self


class RegisterResponse(WithSchema):
    """`status`: created (201), updated or unchanged (200).

    `superseded` (of an unchanged one): a later replace took away the rows of this ingest.
    """

    dataset: str
    uuid: str
    snapshot_id: str
    fingerprint: str
    status: Literal["created", "updated", "unchanged"]
    record: IngestRecord | None = None
    superseded: bool = False


class Identity(Response):
    """The folder name of a dataset under `datasets/`, fixed until it is deleted."""

    dataset: str
    uuid: str


class IngestFound(WithSchema):
    """An ingest that a dataset holds already.

    `superseded`: a later replace took away its rows, so that sending it again under a new
    id would change the dataset.
    """

    dataset: str
    ingest_id: str
    snapshot_id: str
    record: IngestRecord | None = None
    superseded: bool = False


class DataFile(Response):
    """One Parquet file of a snapshot.

    `key` is its object's key in storaged; null where the address does not tell it.
    """

    uri: str
    size: int
    rows: int
    key: str | None = None


class Dataset(WithSchema):
    """A dataset as its current snapshot shows it."""

    name: str
    uuid: str
    snapshot_id: str
    fingerprint: str
    rows: int
    bytes: int
    files: int
    updated_at: str
    properties: dict[str, str] = {}


class DatasetList(Response):
    """All datasets by name."""

    datasets: list[Dataset]


class Files(WithSchema):
    """The files that make up one snapshot, with the schema they are read by."""

    dataset: str
    uuid: str
    snapshot_id: str
    files: list[DataFile]


class Snapshot(Response):
    """One retained version of a dataset. `time` is RFC 3339 in UTC; `tags` name it."""

    snapshot_id: str
    parent_id: str | None
    time: str
    operation: str
    rows: int
    tags: list[str] = []
    summary: dict[str, Any] = {}


class Snapshots(Response):
    """Retained versions, oldest first."""

    dataset: str
    snapshots: list[Snapshot]


class DatasetDeleted(Response):
    """Answer to DELETE of a dataset."""

    dataset: str
    uuid: str
    deleted: bool = True


class RollbackRequest(Request):
    """The version to go back to: a snapshot id, an RFC 3339 time with a zone, or a tag."""

    snapshot: str = Field(min_length=1, max_length=64)


class RolledBack(WithSchema):
    """The dataset is as it was in snapshot `restored`, by a new snapshot `snapshot_id`.

    `status` is unchanged when it was so already. `previous` was current until then: rolling
    back to it undoes this.
    """

    dataset: str
    snapshot_id: str
    restored: str
    previous: str
    status: Literal["updated", "unchanged"]
    rows: int


class TagRequest(Request):
    """What a tag names: a snapshot id, a time or another tag; the current snapshot when null."""

    snapshot: str | None = Field(default=None, min_length=1, max_length=64)


class Tagged(Response):
    """A tag and its snapshot, which is kept as long as the tag is there.

    `status`: created, moved from another snapshot, or unchanged.
    """

    dataset: str
    tag: str
    snapshot_id: str
    status: Literal["created", "moved", "unchanged"]


class TagDeleted(Response):
    """Answer to DELETE of a tag; the snapshot it named."""

    dataset: str
    tag: str
    snapshot_id: str
    deleted: bool = True


class CompactRequest(Request):
    """How large files should become at most, MiB; as configured when null."""

    target_mb: int | None = Field(default=None, ge=1, le=128)


class Compacted(Response):
    """What a compaction did; `snapshot_id` is empty for a dataset without snapshots.

    `more`: there is more to merge than one round does. `skipped` says which files were left as
    they are, and why.
    """

    dataset: str
    snapshot_id: str
    status: Literal["updated", "unchanged"]
    files_before: int
    files_after: int
    merged_files: int
    merged_bytes: int
    more: bool = False
    skipped: list[str] = []


class ExpireRequest(Request):
    """How many of the newest snapshots stay; as configured when null."""

    keep: int | None = Field(default=None, ge=1, le=100_000)


class Expired(Response):
    """Snapshots that are no longer kept."""

    dataset: str
    expired: int
    kept: int


class CollectRequest(Request):
    """How long a file must have been nobody's, seconds; as configured when null."""

    grace_s: float | None = Field(default=None, ge=0, le=1e9)


class Collected(Response):
    """What a round of collection found and removed.

    `orphans` are files that no retained snapshot names and whose grace is not over, or that
    were too many for one round. `status` is busy when another catalogd collects just now.
    """

    status: Literal["done", "busy"]
    removed_objects: int = 0
    removed_metadata: int = 0
    removed_bytes: int = 0
    orphans: int = 0
