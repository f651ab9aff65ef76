"""The two bases of all wire models, and the shapes that several daemons share."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Request(BaseModel):
    """Base of what callers send: an unknown field is an error, so that a typo is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Response(BaseModel):
    """Base of what daemons answer: a newer daemon may add fields an older client ignores."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Column(Response):
    """One column of a table: its name and its SQL type as DuckDB writes it."""

    name: str
    type: str


class WithSchema(Response):
    """Base of answers that carry a table's columns under the JSON name `schema`.

    The attribute is `columns` because `schema` is a method of every pydantic model.
    """

    model_config = ConfigDict(populate_by_name=True)

    columns: list[Column] = Field(alias="schema", serialization_alias="schema")


class ErrorBody(BaseModel):
    """Inside of the error envelope."""

    code: str
    message: str
    details: dict[str, Any] = Field(default_factory=dict)
    service: str
    request_id: str


class ErrorEnvelope(BaseModel):
    """What every daemon answers with a status of 400 or more."""

    error: ErrorBody


class Health(Response):
    """`GET /health`: the process is alive. No detail, no auth."""

    status: str = "ok"
    service: str
    version: str
    uptime_s: float


class Ready(Response):
    """`GET /ready`: every dependency by name, "ok" or the reason why not."""

    status: str
    service: str
    checks: dict[str, str]
