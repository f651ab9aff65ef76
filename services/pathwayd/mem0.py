"""The routes of mem0's open-source server, over traces."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query, Request
from pydantic import BaseModel

from services.pathwayd.store.memories import Memories as Store
from shared.wire.pathwayd_mem0 import (
    ListQuery,
    Memories,
    MemoriesAdded,
    Memory,
    MemoryAdd,
    MemoryHistory,
    MemorySearch,
    MemoryUpdate,
    OwnerQuery,
    Said,
)

MEMORIES = "/mem0/memories"
MEMORY = MEMORIES + "/{memory_id}"
ReadBody = Callable[[Request, Any], Awaitable[Any]]
IdempotencyKey = Annotated[str | None, Header()]


@cache
def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """The request body for the API's document."""
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"content": content, "required": True}}


def add_mem0_routes(app: FastAPI, read_body: ReadBody, store: Callable[[], Store]) -> None:
    """Adds the routes; `store` gives what does the work once the daemon runs."""

    @app.post(MEMORIES, tags=["mem0"], openapi_extra=body_of(MemoryAdd))
    async def add_memories(
        request: Request, idempotency_key: IdempotencyKey = None
    ) -> MemoriesAdded:
        """One memory for each message as it stands, or for each fact in them (infer=true)."""
        return await store().add(await read_body(request, MemoryAdd), idempotency_key)

    @app.get(MEMORIES, tags=["mem0"])
    async def list_memories(query: Annotated[ListQuery, Query()]) -> Memories:
        """Somebody's memories, newest first."""
        return await store().list(query)

    @app.delete(MEMORIES, tags=["mem0"])
    async def delete_memories(query: Annotated[OwnerQuery, Query()]) -> Said:
        """Deletes all memories of somebody."""
        return await store().delete_all(query.model_dump())

    @app.get(MEMORY, tags=["mem0"])
    async def get_memory(memory_id: str) -> Memory:
        """One memory."""
        return store().get(memory_id)

    @app.put(MEMORY, tags=["mem0"], openapi_extra=body_of(MemoryUpdate))
    async def update_memory(
        memory_id: str, request: Request, idempotency_key: IdempotencyKey = None
    ) -> Said:
        """Changes what is given of a memory."""
        body = await read_body(request, MemoryUpdate)
        return await store().update(memory_id, body, idempotency_key)

    @app.get(MEMORY + "/history", tags=["mem0"])
    async def get_memory_history(memory_id: str) -> list[MemoryHistory]:
        """A memory's changes, oldest first."""
        return list(await store().history(memory_id))

    @app.delete(MEMORY, tags=["mem0"])
    async def delete_memory(memory_id: str) -> Said:
        """Deletes a memory; its history stays."""
        return await store().delete(memory_id)

    @app.post("/mem0/search", tags=["mem0"], openapi_extra=body_of(MemorySearch))
    async def search_memories(request: Request) -> Memories:
        """Somebody's memories that fit a query."""
        return await store().search(await read_body(request, MemorySearch))

    @app.post("/mem0/reset", tags=["mem0"])
    async def reset_memories() -> Said:
        """Deletes all memories of everybody."""
        return await store().reset()
