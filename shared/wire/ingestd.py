"""ingestd: files become tables."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shared.wire.base import Request, WithSchema
from shared.wire.catalogd import DATASET_NAME, Rejects

INGEST_PATH = "/ingest"
# The multipart field that holds the file.
FILE_FIELD = "file"

Mode = Literal["append", "replace"]
Contract = Literal["evolve", "freeze", "discard_row", "discard_value"]


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
        description="append adds the rows to the dataset; replace puts them in place of all others",
        json_schema_extra={"enum": ["append", "replace"]},
    )
    contract: str = Field(
        default="freeze",
        description="What becomes of columns and values that do not go with the dataset: freeze "
        "refuses the file, evolve lets the schema grow, discard_row keeps such rows as rejects, "
        "discard_value makes such values NULL and lists them",
        json_schema_extra={"enum": ["evolve", "freeze", "discard_row", "discard_value"]},
    )
    key: str | None = Field(default=None, description="Not supported; for mode=upsert")
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


class IngestReference(Request):
    """A file that lies in storage, beneath `uploads/`, in place of the file itself."""

    object: str = Field(min_length=1, max_length=4096, pattern="^uploads/.+")


class IngestResult(WithSchema):
    """What one ingest did. `rows_in = rows_out + rejects.count`, always.

    `rejects.object` is a Parquet object in storaged that lists what was left out: line_number,
    column_name, error_type, message, raw_line. Under contract=discard_value it also lists
    the values that became NULL (error_type `discarded_value`), which `rejects.count` does not
    count, because their rows were kept. `duplicate`: the same input was ingested before with
    the same options, and nothing was written.
    """

    dataset: str
    snapshot_id: str
    ingest_id: str
    rows_in: int
    rows_out: int
    rejects: Rejects
    warnings: list[str] = []
    duplicate: bool = False
