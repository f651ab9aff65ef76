"""Tools over corpora and the playbook: find, compose, and record what worked."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from pydantic import Field

from services.mcpd.core.caps import ELLIPSIS, Room, render_cell
from services.mcpd.store.arguments import Corpora, Filters, Model, Query, UsePlaybook
from shared.clients.gateway import Gateway
from shared.sections.mcp import McpdSection
from shared.wire.matrixd import MatrixHit, MatrixSearch
from shared.wire.matrixd_context import ComposeRequest
from shared.wire.matrixd_playbook import RatedDocument, RecordRequest
from shared.wire.mcpd import (
    ContextCitation,
    ContextComposed,
    ContextMessage,
    CorporaListed,
    CorporaSearched,
    CorpusRow,
    CorpusTook,
    EpisodeRecorded,
    FoundDocument,
    Rating,
)

# Characters that a token stands for, roughly; bounds a budget by what an answer may hold.
CHARS_PER_TOKEN = 4


class MatrixTools:
    """Tools over corpora.

    Args:
        gateway: the way to all of it.
        section: how much an answer may hold.
    """

    def __init__(self, gateway: Gateway, section: McpdSection) -> None:
        self._gateway = gateway
        self._section = section

    async def list_corpora(self) -> CorporaListed:
        """Lists all corpora that search_corpora can search."""
        found = (await self._gateway.matrix.list_corpora()).corpora
        room = self._room()
        rows = [
            CorpusRow(
                name=each.name,
                status=each.status,
                documents=each.documents,
                text=room.cut(each.text),
                metadata=each.metadata,
                refreshed_at=each.refreshed_at,
            )
            for each in found[: self._section.max_rows]
        ]
        kept = room.fit(rows, lambda row: len(row.model_dump_json()))
        truncated = room.truncated or len(kept) < len(found)
        return CorporaListed(corpora=kept, total=len(found), truncated=truncated)

    async def search_corpora(
        self,
        query: Query,
        corpora: Corpora = None,
        k: Annotated[int, Field(description="Most documents", ge=1, le=100)] = 10,
        filters: Filters = None,
        use_playbook: UsePlaybook = True,
        explain: Annotated[
            bool, Field(description="Whether each hit says how its score came about")
        ] = False,
    ) -> CorporaSearched:
        """Searches corpora by meaning and words at once and gives one list, best first."""
        answer = await self._gateway.matrix.search(
            MatrixSearch(
                query=query,
                corpora=corpora,
                k=k,
                filters=filters,
                use_playbook=use_playbook,
                explain=explain,
            )
        )
        room = self._room()
        hits = room.fit(
            (_render_hit(hit, room) for hit in answer.hits), lambda hit: len(hit.model_dump_json())
        )
        return CorporaSearched(
            hits=hits,
            corpora=[
                CorpusTook(name=name, status=took.status, hits=took.hits, reason=took.reason)
                for name, took in sorted(answer.corpora.items())
            ],
            playbook_used=answer.playbook.activated,
            truncated=room.truncated,
        )

    async def compose_context(
        self,
        query: Query,
        model: Model = "tier/local_fast",
        corpora: Corpora = None,
        token_budget: Annotated[
            int, Field(description="Most tokens that the messages may take", ge=16, le=100_000)
        ] = 2000,
        filters: Filters = None,
        use_playbook: UsePlaybook = True,
    ) -> ContextComposed:
        """Composes the messages that a model needs to answer a query from the corpora, cited."""
        answer = await self._gateway.matrix.compose(
            ComposeRequest(
                query=query,
                model=model,
                corpora=corpora,
                token_budget=min(token_budget, self._section.max_chars // CHARS_PER_TOKEN),
                filters=filters,
                use_playbook=use_playbook,
            )
        )
        room = self._room()
        messages: list[ContextMessage] = []
        for message in answer.messages:
            content = message.content
            if not room.take(len(content)):
                content = content[: max(0, room.left - 1)] + ELLIPSIS
                room.left = 0
            messages.append(ContextMessage(role=message.role, content=content))
        return ContextComposed(
            messages=messages,
            citations=[
                ContextCitation(number=c.number, corpus=c.corpus, id=c.id) for c in answer.citations
            ],
            left_out=len(answer.left_out),
            mode=answer.mode,
            reason=answer.reason,
            tokens=answer.tokens,
            truncated=room.truncated,
        )

    async def record_playbook(
        self,
        query: Query,
        ratings: Annotated[
            list[Rating],
            Field(description="How documents did for the query", min_length=1, max_length=100),
        ],
        source: Annotated[
            str,
            Field(
                description="Who judged; how far a source is trusted is learnt from its records",
                min_length=1,
                max_length=200,
            ),
        ] = "agent",
        run_id: Annotated[
            str | None,
            Field(
                description="Names the run; another one makes the same ratings another episode",
                min_length=1,
                max_length=200,
            ),
        ] = None,
    ) -> EpisodeRecorded:
        """Records which documents worked or failed for a query, so that searches learn from it."""
        said = {
            "query": query,
            "ratings": [rating.model_dump() for rating in ratings],
            "source": source,
            "run_id": run_id,
        }
        # The same call again is the same episode, whoever repeats it.
        key = "mcp-" + hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
        recorded = await self._gateway.matrix.record(
            RecordRequest(
                query=query,
                ratings=[RatedDocument(**rating.model_dump()) for rating in ratings],
                source=source,
                run_id=run_id,
            ),
            key=key,
        )
        return EpisodeRecorded(
            episode_id=recorded.episode_id,
            duplicate=recorded.duplicate,
            recorded_at=recorded.recorded_at,
        )

    def _room(self) -> Room:
        return Room(self._section.max_chars, self._section.max_cell_chars)


def _render_hit(hit: MatrixHit, room: Room) -> FoundDocument:
    explain = hit.explain
    return FoundDocument(
        corpus=hit.corpus,
        id=hit.id,
        rank=hit.rank,
        score=hit.score,
        text=room.cut(hit.text or ""),
        metadata={name: render_cell(value, room) for name, value in hit.metadata.items()},
        why=None if explain is None else room.cut(json.dumps(explain, default=str)),
    )
