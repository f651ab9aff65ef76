"""matrixd: what reaches the model: relevance, the downgrade gate, composed context."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from shared.wire.base import Request, Response
from shared.wire.matrixd import CorpusAnswer, Named, PlaybookAnswer


class Candidate(Request):
    """One candidate as a search gave it. Without a `text` it cannot be judged and is kept."""

    id: str = Field(min_length=1, max_length=512)
    text: str | None = Field(default=None, max_length=200_000)
    score: float | None = None
    corpus: str | None = Field(default=None, max_length=128)
    metadata: dict[str, Any] = {}


class RelevanceRequest(Request):
    """Candidates for a `query`, or for a `focus` (what the task is about), or both.

    `strictness` moves the line: 0 keeps nearly everything, 1 only what is clearly on topic.
    """

    query: str | None = Field(default=None, min_length=1, max_length=20_000)
    focus: str | None = Field(default=None, min_length=1, max_length=20_000)
    candidates: list[Candidate]
    strictness: float = Field(default=0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _check_query(self) -> RelevanceRequest:
        if not (self.query or "").strip() and not (self.focus or "").strip():
            raise ValueError("give a query or a focus that is not blank")
        return self


class KeptCandidate(Response):
    """A candidate that stays, in the order it came; `relevance` from 0 to 1, null without text."""

    id: str
    text: str | None = None
    score: float | None = None
    corpus: str | None = None
    metadata: dict[str, Any] = {}
    relevance: float | None


class DroppedCandidate(Response):
    """A candidate that goes, and why; `score` is its relevance, from 0 to 1."""

    id: str
    corpus: str | None = None
    reason: str
    score: float


class RelevanceAnswer(Response):
    """What stays and what goes; every candidate is in one of the two."""

    kept: list[KeptCandidate]
    dropped: list[DroppedCandidate]


Mode = Literal["composed", "isolated"]


class DowngradeRequest(Request):
    """A model about to be asked in a mode; `force` keeps the mode whatever the model."""

    mode: str = Field(min_length=1, max_length=100)
    model: str = Field(min_length=1, max_length=300)
    force: bool = False


class Downgraded(Response):
    """The mode to use, whether it is another than asked for, and why."""

    mode: str
    downgraded: bool
    reason: str


class ComposeRequest(Request):
    """What a model needs to answer a query, from corpora, within a budget of tokens.

    `system` comes first when given. `force` keeps the composed mode whatever the model.
    """

    query: str = Field(min_length=1, max_length=20_000)
    model: str = Field(min_length=1, max_length=300)
    corpora: list[Named] | None = Field(default=None, min_length=1)
    token_budget: int = Field(default=2000, ge=1, le=1_000_000)
    k: int = Field(default=20, ge=1, le=200)
    filters: dict[str, Any] | None = None
    use_playbook: bool = True
    focus: str | None = Field(default=None, min_length=1, max_length=20_000)
    system: str | None = Field(default=None, max_length=100_000)
    mode: str = Field(default="composed", min_length=1, max_length=100)
    force: bool = False


class Message(Response):
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


class Citation(Response):
    """A document in the context, by the number it is cited by; `cut` when shortened to fit."""

    number: int
    corpus: str
    id: str
    score: float
    tokens: int
    chunk: int | None = None
    cut: bool = False


class LeftOut(Response):
    """A document found but not in the context, and why."""

    corpus: str
    id: str
    reason: str


class Composed(Response):
    """The messages to send. `tokens` is what they take by the estimate that the budget uses."""

    messages: list[Message]
    citations: list[Citation]
    left_out: list[LeftOut]
    mode: str
    downgraded: bool
    reason: str
    tokens: int
    token_budget: int
    corpora: dict[str, CorpusAnswer] = {}
    playbook: PlaybookAnswer = PlaybookAnswer()
