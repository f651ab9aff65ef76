"""Client of pathwayd: traces and their search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx
import orjson
from pydantic import BaseModel

from shared.clients.base import ServiceClient
from shared.config import Config
from shared.wire.pathwayd import (
    History,
    PathwayResults,
    PathwaySearch,
    PathwayStats,
    Status,
    Trace,
    TraceAdd,
    TraceList,
    TraceRevise,
    TracesAdded,
    TraceUpdate,
)

TRACES = "/pathway/traces"
_JSON = {"content-type": "application/json"}


class PathwaydClient(ServiceClient):
    """Talks to pathwayd.

    Args:
        config: for the address and the token.
        transports: in-process transports by service name, in place of the network.
    """

    def __init__(
        self, config: Config, transports: Mapping[str, httpx.AsyncBaseTransport] | None = None
    ) -> None:
        super().__init__(config, "pathwayd", transports)

    async def add(self, trace: TraceAdd, key: str | None = None) -> Trace:
        """Adds a trace; durable on return. With a `key` it can be sent again safely.

        Raises:
            Conflict: its id is taken, or the key was used for another request.
        """
        return Trace.model_validate_json(await self._send("POST", TRACES, trace, key))

    async def add_many(self, traces: Sequence[TraceAdd], key: str | None = None) -> TracesAdded:
        """Adds traces in one request, all checked before any is written."""
        body = {"traces": [trace.model_dump(exclude_none=True) for trace in traces]}
        content = await self._send("POST", f"{TRACES}/batch", body, key)
        return TracesAdded.model_validate_json(content)

    async def update(self, trace_id: str, update: TraceUpdate, key: str | None = None) -> Trace:
        """Writes the next version of a trace.

        Raises:
            Conflict: it is retired, superseded, or at another version than expected.
        """
        content = await self._send("PUT", trace_path(trace_id), update, key)
        return Trace.model_validate_json(content)

    async def revise(self, trace_id: str, revision: TraceRevise, key: str | None = None) -> Trace:
        """Adds a trace that supersedes another."""
        path = f"{trace_path(trace_id)}/revise"
        return Trace.model_validate_json(await self._send("POST", path, revision, key))

    async def retire(self, trace_id: str, reason: str | None = None) -> Trace:
        """Retires a trace; twice is harmless."""
        path = f"{trace_path(trace_id)}/retire"
        content = await self._send("POST", path, {"reason": reason}, None)
        return Trace.model_validate_json(content)

    async def get(self, trace_id: str, version: int | None = None) -> Trace:
        """One trace.

        Raises:
            NotFound: there is none, or no such version of it.
        """
        params = {} if version is None else {"version": version}
        response = await self.request("GET", trace_path(trace_id), params=params)
        return Trace.model_validate_json(response.content)

    async def list_traces(
        self, limit: int = 50, cursor: str | None = None, status: Status | None = None
    ) -> TraceList:
        """A page of traces by their last change, newest first."""
        params: dict[str, str | int] = {"limit": limit}
        if cursor is not None:
            params["cursor"] = cursor
        if status is not None:
            params["status"] = status
        response = await self.request("GET", TRACES, params=params)
        return TraceList.model_validate_json(response.content)

    async def history(self, trace_id: str, limit: int = 100) -> History:
        """A trace's past, newest first."""
        path = f"{trace_path(trace_id)}/history"
        response = await self.request("GET", path, params={"limit": limit})
        return History.model_validate_json(response.content)

    async def search(self, search: PathwaySearch) -> PathwayResults:
        """Traces by meaning, words and filter."""
        content = await self._send("POST", "/pathway/search", search, None)
        return PathwayResults.model_validate_json(content)

    async def stats(self) -> PathwayStats:
        """How much there is, and what the log has lost."""
        response = await self.request("GET", "/pathway/stats")
        return PathwayStats.model_validate_json(response.content)

    async def _send(
        self, method: str, path: str, body: BaseModel | dict[str, Any], key: str | None
    ) -> bytes:
        plain = body.model_dump(exclude_none=True) if isinstance(body, BaseModel) else body
        headers = _JSON if key is None else {**_JSON, "idempotency-key": key}
        response = await self.request(method, path, content=orjson.dumps(plain), headers=headers)
        return response.content


def trace_path(trace_id: str) -> str:
    """The path of a trace."""
    return f"{TRACES}/{quote(trace_id, safe='')}"
