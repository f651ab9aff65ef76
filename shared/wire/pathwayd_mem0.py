"""pathwayd's mem0 surface: the REST shapes of mem0's open-source server."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.wire.base import Request, Response


class Lenient(BaseModel):
    """Base of requests of mem0's clients: fields of other versions are ignored, as there."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Message(Lenient):
    """One message of a conversation.

    `recalled` says that it came out of a memory, put before a model for example: it is not
    remembered again, and no facts are extracted from it.
    """

    role: str = Field(min_length=1, max_length=64)
    content: str
    name: str | None = Field(default=None, max_length=256)
    recalled: bool = False


class MemoryAdd(Lenient):
    """Memories to add, one for each message. One of the three ids is needed."""

    messages: list[Message] | str
    user_id: str | None = None
    agent_id: str | None = None
    run_id: str | None = None
    metadata: dict[str, Any] | None = None
    infer: bool | None = None
    expiration_date: str | None = None


class MemoryUpdate(Lenient):
    """What to change; what is left out stays. `data` is an older name of `text`."""

    text: str | None = None
    data: str | None = None
    metadata: dict[str, Any] | None = None
    expiration_date: str | None = None


class MemorySearch(Lenient):
    """A search. `filters` must name a user_id, agent_id or run_id; so may the fields beside it."""

    query: str = Field(min_length=1)
    filters: dict[str, Any] | None = None
    user_id: str | None = None
    agent_id: str | None = None
    run_id: str | None = None
    top_k: int | None = Field(default=None, ge=1)
    limit: int | None = Field(default=None, ge=1)
    threshold: float | None = Field(default=None, ge=0, le=1)
    explain: bool = False
    show_expired: bool = False


class OwnerQuery(Request):
    """Whose memories are meant. What it does not know is refused: it was to narrow them down."""

    user_id: str | None = None
    agent_id: str | None = None
    run_id: str | None = None


class ListQuery(OwnerQuery):
    """Whose memories to list."""

    top_k: int = Field(default=100, ge=1)
    show_expired: bool = False


class Memory(Response):
    """One memory. `score` and `score_details` come with a search."""

    id: str
    memory: str
    hash: str
    created_at: str
    updated_at: str | None = None
    metadata: dict[str, Any] | None = None
    user_id: str | None = None
    agent_id: str | None = None
    run_id: str | None = None
    actor_id: str | None = None
    role: str | None = None
    expiration_date: str | None = None
    score: float | None = None
    score_details: dict[str, Any] | None = None


class Memories(Response):
    """Memories; `semantic` says how meaning took part in a search."""

    results: list[Memory]
    semantic: str | None = None


class MemoryEvent(Response):
    """What became of one message."""

    id: str
    memory: str
    event: Literal["ADD", "UPDATE", "DELETE", "NONE"]
    actor_id: str | None = None
    role: str | None = None


class MemoriesAdded(Response):
    """Answer to an add."""

    results: list[MemoryEvent]


class MemoryHistory(Response):
    """One change of a memory."""

    id: str
    memory_id: str
    old_memory: str | None = None
    new_memory: str | None = None
    event: Literal["ADD", "UPDATE", "DELETE"]
    created_at: str | None = None
    updated_at: str | None = None
    is_deleted: bool = False
    actor_id: str | None = None
    role: str | None = None


class Said(Response):
    """A plain word that it was done."""

    message: str
