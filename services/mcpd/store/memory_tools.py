"""Tools over the pathway memory, workflows and models."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field

from services.mcpd.core.caps import Room
from services.mcpd.store.arguments import Model, Query, WaitSeconds
from shared.clients.gateway import Gateway
from shared.sections.mcp import McpdSection
from shared.wire.mcpd import (
    FoundTrace,
    ModelAnswered,
    PathwaySearched,
    TraceKept,
    WorkflowNode,
    WorkflowShown,
    WorkflowStep,
)
from shared.wire.observerd_workflows import NodeSpec, RunView, WorkflowSpec
from shared.wire.pathwayd import PathwaySearch, TraceAdd

Tags = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=200)]] | None,
    Field(description="Tags of the trace", max_length=50),
]
RunId = Annotated[
    str, Field(description="Run, as run_workflow gave it", min_length=1, max_length=128)
]


class MemoryTools:
    """Tools over what was tried, what runs, and who can be asked.

    Args:
        gateway: the way to all of it.
        section: how much an answer may hold, and how long a call may take.
    """

    def __init__(self, gateway: Gateway, section: McpdSection) -> None:
        self._gateway = gateway
        self._section = section

    async def search_pathway(
        self,
        query: Query,
        k: Annotated[int, Field(description="Most traces", ge=1, le=100)] = 10,
        tag: Annotated[
            str | None,
            Field(description="Only traces with this tag", min_length=1, max_length=200),
        ] = None,
    ) -> PathwaySearched:
        """Searches the memory of what was tried and how it went, by meaning and words."""
        keep = None if tag is None else {"tags": {"contains": tag}}
        found = await self._gateway.pathway.search(PathwaySearch(query=query, k=k, filter=keep))
        room = self._room()
        traces = (
            FoundTrace(
                id=hit.id,
                rank=hit.rank,
                score=hit.score,
                content=room.cut(_as_json(hit.content)),
                tags=hit.tags,
                version=hit.version,
                status=hit.status,
                updated_at=hit.updated_at,
            )
            for hit in found.hits
        )
        return PathwaySearched(
            hits=room.fit(traces, lambda trace: len(trace.model_dump_json())),
            mode=found.mode,
            degraded=found.degraded,
            truncated=room.truncated,
        )

    async def add_pathway(
        self,
        content: Annotated[
            dict[str, Any],
            Field(description="What was tried and how it went, as any JSON object", min_length=1),
        ],
        tags: Tags = None,
    ) -> TraceKept:
        """Adds a trace to the memory of what was tried; the same content twice is kept once."""
        added = await self._gateway.pathway.add(
            TraceAdd(content=content, tags=tags or [], dedupe=True)
        )
        return TraceKept(id=added.id, version=added.version, duplicate=added.duplicate)

    async def run_workflow(
        self,
        name: Annotated[str, Field(description="Name of it", min_length=1, max_length=200)],
        nodes: Annotated[
            list[WorkflowNode],
            Field(
                description="Its steps, a directed graph; the resource lakehouse://workflows/modes "
                "tells what steps can do",
                min_length=1,
                max_length=100,
            ),
        ],
        inputs: Annotated[
            dict[str, Any] | None, Field(description="What steps refer to as $inputs.name")
        ] = None,
        run_id: Annotated[
            str | None,
            Field(
                description="A name for the run: sent again with the same steps it is the same run",
                min_length=1,
                max_length=128,
            ),
        ] = None,
        wait_s: WaitSeconds = 30.0,
    ) -> WorkflowShown:
        """Runs a workflow of steps such as SQL, searches and chats, and shows how far it is."""
        started = await self._gateway.observer.start_run(
            WorkflowSpec(
                name=name,
                nodes=[NodeSpec.model_validate(node.model_dump()) for node in nodes],
                inputs=inputs or {},
                run_id=run_id,
            )
        )
        return self._render_run(await self._gateway.observer.get_run(started.run_id, wait_s))

    async def get_workflow(self, run_id: RunId, wait_s: WaitSeconds = 0.0) -> WorkflowShown:
        """Shows a workflow run and its steps, waiting for its end if asked to."""
        return self._render_run(await self._gateway.observer.get_run(run_id, wait_s))

    async def ask_model(
        self,
        prompt: Annotated[
            str, Field(description="What the model is asked", min_length=1, max_length=200_000)
        ],
        model: Model = "tier/local_fast",
        system: Annotated[
            str | None, Field(description="Instructions that come first", max_length=50_000)
        ] = None,
        max_tokens: Annotated[
            int, Field(description="Most tokens of the answer", ge=1, le=16_000)
        ] = 1000,
    ) -> ModelAnswered:
        """Asks a local or cloud model and gives its answer."""
        messages = [{"role": "user", "content": prompt}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        answer = await self._gateway.chat.chat(
            model, messages, timeout_s=self._section.max_seconds, max_tokens=max_tokens
        )
        room = Room(self._section.max_chars, self._section.max_chars)
        return ModelAnswered(
            model=answer.model,
            content=room.cut(answer.content),
            finish_reason=answer.finish_reason,
            prompt_tokens=answer.usage.prompt_tokens,
            completion_tokens=answer.usage.completion_tokens,
            cost_usd=answer.usage.cost_usd,
            truncated=room.truncated,
        )

    def _render_run(self, run: RunView) -> WorkflowShown:
        room = self._room()
        steps = (
            WorkflowStep(
                id=name,
                mode=node.mode,
                state=node.state,
                attempts=node.attempts,
                output=None if node.output is None else room.cut(_as_json(node.output)),
                error=None if node.error is None else room.cut(node.error.message),
            )
            for name, node in run.nodes.items()
        )
        return WorkflowShown(
            run_id=run.run_id,
            name=run.name,
            status=run.status,
            outcome=None if run.outcome is None else room.cut(_as_json(run.outcome)),
            steps=room.fit(steps, lambda step: len(step.model_dump_json())),
            truncated=room.truncated,
        )

    def _room(self) -> Room:
        return Room(self._section.max_chars, self._section.max_cell_chars)


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
