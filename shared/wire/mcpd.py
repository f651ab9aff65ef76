"""mcpd: what its tools take and give, and the protocol's frame around a call.

Descriptions stand on the fields: they are published as the tools' schemas, and are what a
model knows of them. Nested values are JSON text, so that every schema is complete.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from shared.wire.base import Request, Response

MCP_PATH = "/mcp"
PROTOCOL_VERSION = "2026-07-28"
Cell = str | int | float | bool | None


class Rating(Request):
    """How one document did for a query."""

    corpus: str = Field(min_length=1, max_length=100, description="Corpus that the document is of")
    id: str = Field(min_length=1, max_length=512, description="Its id, as search_corpora gave it")
    rating: Literal[1, 0, -1] = Field(
        description="1: it answered the query, 0: it did not matter, -1: it was wrong"
    )


class WorkflowNode(Request):
    """One step of a workflow."""

    model_config = ConfigDict(populate_by_name=True)

    id: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_\-]{0,99}$", description="Name of the step")
    mode: str = Field(
        min_length=1,
        max_length=100,
        description="What it does: see the resource lakehouse://workflows/modes",
    )
    depends_on: list[str] = Field(
        default=[], max_length=100, description="Steps that must have ended before"
    )
    inputs: dict[str, Any] = Field(
        default={},
        alias="with",
        description="The mode's inputs; $a.output.x is what step a gave, $inputs.x the run's",
    )


class ToolColumn(Response):
    """A column of a table."""

    name: str = Field(description="Its name")
    type: str = Field(description="Its SQL type")


class DatasetRow(Response):
    """One dataset in a list."""

    name: str = Field(description="Name, as SQL calls it")
    rows: int = Field(description="Rows that it holds")
    columns: int = Field(description="Columns that it has")
    updated_at: str = Field(description="When it last changed, RFC 3339")


class DatasetsListed(Response):
    """All datasets."""

    datasets: list[DatasetRow] = Field(description="By name")
    total: int = Field(description="How many there are")
    truncated: bool = Field(description="Whether some were left out")


class DatasetDescribed(Response):
    """One dataset in full."""

    name: str = Field(description="Name, as SQL calls it")
    rows: int = Field(description="Rows that it holds")
    snapshot_id: str = Field(description="Its current snapshot, for as_of")
    updated_at: str = Field(description="When it last changed, RFC 3339")
    columns: list[ToolColumn] = Field(description="In order")
    sample: list[list[Cell]] = Field(description="Its first few rows, in the columns' order")
    truncated: bool = Field(description="Whether the sample was shortened")


class SqlAnswered(Response):
    """A query's rows."""

    columns: list[ToolColumn] = Field(description="In order")
    rows: list[list[Cell]] = Field(
        description="In the columns' order; lists and structs as JSON text"
    )
    row_count: int = Field(description="Rows in this answer")
    truncated: bool = Field(description="Whether rows or parts of values were left out")
    elapsed_ms: float = Field(description="Milliseconds that the query took")


class CorpusRow(Response):
    """One corpus in a list."""

    name: str = Field(description="Name, for search_corpora")
    status: str = Field(description="ready, building or failed")
    documents: int = Field(description="Documents in it")
    text: str = Field(description="Template that its texts are made by")
    metadata: list[str] = Field(description="Fields that filters may name")
    refreshed_at: str | None = Field(description="When it was last brought up to date")


class CorporaListed(Response):
    """All corpora."""

    corpora: list[CorpusRow] = Field(description="By name")
    total: int = Field(description="How many there are")
    truncated: bool = Field(description="Whether some were left out")


class FoundDocument(Response):
    """A document that a search found."""

    corpus: str = Field(description="Where it was found")
    id: str = Field(description="Its id there")
    rank: int = Field(description="Place in the list, from 1")
    score: float = Field(description="Probability of relevance, comparable between corpora")
    text: str = Field(description="Its text, or the best matching part")
    metadata: dict[str, Cell] = Field(description="Its fields")
    why: str | None = Field(description="How the score came about, as JSON, when asked for")


class CorpusTook(Response):
    """How a corpus took part in a search."""

    name: str = Field(description="Its name")
    status: str = Field(description="ok, building, unknown or unavailable")
    hits: int = Field(description="How many of the hits are its own")
    reason: str | None = Field(description="Why it took no part")


class CorporaSearched(Response):
    """Hits of all corpora as one list, best first."""

    hits: list[FoundDocument] = Field(description="Best first")
    corpora: list[CorpusTook] = Field(description="How each corpus took part")
    playbook_used: bool = Field(description="Whether what was recorded before moved documents")
    truncated: bool = Field(description="Whether hits or parts of texts were left out")


class ContextMessage(Response):
    """One chat message."""

    role: Literal["system", "user", "assistant"] = Field(description="Who speaks")
    content: str = Field(description="What is said")


class ContextCitation(Response):
    """A document in the context."""

    number: int = Field(description="The number that the messages cite it by")
    corpus: str = Field(description="Where it is from")
    id: str = Field(description="Its id there")


class ContextComposed(Response):
    """Messages that hold what a model needs for a query."""

    messages: list[ContextMessage] = Field(description="To be sent to the model as they are")
    citations: list[ContextCitation] = Field(description="Documents in the messages")
    left_out: int = Field(description="Documents found but not taken in")
    mode: str = Field(description="composed, or isolated where context would harm the model")
    reason: str = Field(description="Why this mode")
    tokens: int = Field(description="What the messages take, estimated")
    truncated: bool = Field(description="Whether a message was shortened")


class EpisodeRecorded(Response):
    """The playbook has the episode."""

    episode_id: str = Field(description="For retiring it")
    duplicate: bool = Field(description="Whether it had been recorded before; nothing was added")
    recorded_at: str = Field(description="When, RFC 3339")


class FoundTrace(Response):
    """A trace of the pathway memory."""

    id: str = Field(description="Its id")
    rank: int = Field(description="Place in the list, from 1")
    score: float = Field(description="How well it fits, from 0 to 1")
    content: str = Field(description="What was kept, as JSON")
    tags: list[str] = Field(description="Its tags")
    version: int = Field(description="How often it was written")
    status: str = Field(description="live or superseded")
    updated_at: str = Field(description="When it last changed, RFC 3339")


class PathwaySearched(Response):
    """Traces, best first."""

    hits: list[FoundTrace] = Field(description="Best first")
    mode: str = Field(description="hybrid, semantic, lexical or filter: what was done")
    degraded: bool = Field(description="Whether meaning could not take part")
    truncated: bool = Field(description="Whether traces or parts of them were left out")


class TraceKept(Response):
    """The pathway memory has the trace."""

    id: str = Field(description="Its id")
    version: int = Field(description="Its version")
    duplicate: bool = Field(description="Whether a live trace of this content was there already")


class WorkflowStep(Response):
    """One step of a workflow run."""

    id: str = Field(description="Name of the step")
    mode: str = Field(description="What it does")
    state: str = Field(description="pending, running, completed, failed, skipped or cancelled")
    attempts: int = Field(description="How often it was tried")
    output: str | None = Field(description="What it gave, as JSON")
    error: str | None = Field(description="Why it failed")


class WorkflowShown(Response):
    """A workflow run."""

    run_id: str = Field(description="For get_workflow")
    name: str = Field(description="Name of the workflow")
    status: str = Field(description="queued, running, completed, failed or cancelled")
    outcome: str | None = Field(description="The outcome that its author names, as JSON")
    steps: list[WorkflowStep] = Field(description="All steps, in the workflow's order")
    truncated: bool = Field(description="Whether steps or parts of outputs were left out")


class ModelAnswered(Response):
    """A model's answer."""

    model: str = Field(description="Who answered")
    content: str = Field(description="What it said")
    finish_reason: str = Field(description="stop, length, tool_calls or content_filter")
    prompt_tokens: int = Field(description="Tokens read")
    completion_tokens: int = Field(description="Tokens written")
    cost_usd: float | None = Field(description="US dollars, where known")
    truncated: bool = Field(description="Whether the answer was shortened here")


class ToolOutcome(Response):
    """What a tool answered: `is_error` says that `text` is a failure and not a result."""

    is_error: bool
    text: str
    structured: dict[str, Any] | None = None


class ToolListed(Response):
    """A tool as it is published."""

    model_config = ConfigDict(extra="allow")

    name: str
    title: str | None = None
    description: str | None = None
