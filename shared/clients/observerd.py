"""Client of observerd: events, workflow runs, and the telling of drift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import orjson

from shared.clients.base import ServiceClient
from shared.config import Config
from shared.runtime import Transports
from shared.wire.observerd import EventsAccepted, ObservedRun, ObserverStats
from shared.wire.observerd_judging import DriftAnswer, DriftRequest
from shared.wire.observerd_workflows import (
    ModeList,
    ResumeRequest,
    RunList,
    RunStarted,
    RunView,
    WorkflowSpec,
)

EVENTS = "/observer/events"
RUNS = "/observer/workflows/runs"
_JSON = {"content-type": "application/json"}


class ObserverdClient(ServiceClient):
    """Talks to observerd.

    Args:
        config: for the address and the token.
        transports: in-process transports by service name, in place of the network.
    """

    def __init__(self, config: Config, transports: Transports | None = None) -> None:
        super().__init__(config, "observerd", transports)

    async def record(self, events: Sequence[dict[str, Any]]) -> EventsAccepted:
        """Records events; durable on return. Those with an `id` are safe to send again.

        Raises:
            Invalid: one of them is not as `shared.wire.observerd.Event` says; none was recorded.
        """
        content = orjson.dumps({"events": list(events)})
        response = await self.request("POST", EVENTS, content=content, headers=_JSON, timeout_s=10)
        return EventsAccepted.model_validate_json(response.content)

    async def stats(self) -> ObserverStats:
        """Figures over the newest events."""
        response = await self.request("GET", "/observer/stats")
        return ObserverStats.model_validate_json(response.content)

    async def observed_run(self, run_id: str) -> ObservedRun:
        """A run put together from its events.

        Raises:
            NotFound: none of its events is in memory.
        """
        response = await self.request("GET", f"/observer/runs/{quote(run_id, safe='')}")
        return ObservedRun.model_validate_json(response.content)

    async def start_run(self, spec: WorkflowSpec) -> RunStarted:
        """Starts a workflow.

        Raises:
            Invalid: with everything that is wrong with it.
            Conflict: another run has this id.
        """
        content = spec.model_dump_json(by_alias=True, exclude_defaults=True)
        response = await self.request("POST", RUNS, content=content, headers=_JSON)
        return RunStarted.model_validate_json(response.content)

    async def start_document(self, document: bytes, content_type: str) -> RunStarted:
        """Starts a workflow from its text as a person wrote it, JSON or YAML.

        Raises:
            Invalid: with everything that is wrong with it.
            Conflict: another run has this id.
        """
        headers = {"content-type": content_type}
        response = await self.request("POST", RUNS, content=document, headers=headers)
        return RunStarted.model_validate_json(response.content)

    async def list_runs(self, limit: int = 100, cursor: str | None = None) -> RunList:
        """A page of workflow runs, newest first."""
        params: dict[str, str | int] = {"limit": limit}
        if cursor is not None:
            params["cursor"] = cursor
        response = await self.request("GET", RUNS, params=params)
        return RunList.model_validate_json(response.content)

    async def get_run(self, run_id: str, wait_s: float = 0.0) -> RunView:
        """A run, as soon as it has ended or `wait_s` is over.

        Raises:
            NotFound: there is none.
        """
        response = await self.request(
            "GET", run_path(run_id), params={"wait": wait_s}, timeout_s=wait_s + 30
        )
        return RunView.model_validate_json(response.content)

    async def cancel_run(self, run_id: str) -> RunView:
        """Ends a run."""
        response = await self.request("POST", f"{run_path(run_id)}/cancel")
        return RunView.model_validate_json(response.content)

    async def resume_run(self, run_id: str, request: ResumeRequest) -> RunStarted:
        """Runs again what had not succeeded.

        Raises:
            Conflict: it is under way, or there is nothing to do.
        """
        path = f"{run_path(run_id)}/resume"
        content = request.model_dump_json()
        response = await self.request("POST", path, content=content, headers=_JSON)
        return RunStarted.model_validate_json(response.content)

    async def list_modes(self) -> ModeList:
        """What nodes can do."""
        response = await self.request("GET", "/observer/workflows/modes")
        return ModeList.model_validate_json(response.content)

    async def compare_samples(self, request: DriftRequest) -> DriftAnswer:
        """Whether two samples differ by more than chance, feature by feature.

        Raises:
            Invalid: the samples cannot be compared.
        """
        content = request.model_dump_json(exclude_defaults=True)
        response = await self.request(
            "POST", "/observer/drift/distributions", content=content, headers=_JSON
        )
        return DriftAnswer.model_validate_json(response.content)


def run_path(run_id: str) -> str:
    """The path of a workflow run."""
    return f"{RUNS}/{quote(run_id, safe='')}"
