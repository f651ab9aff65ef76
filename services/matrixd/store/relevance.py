"""Judging candidates: their vectors from embedd, the verdict from the core."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from typing import Any

from services.matrixd.store.figures import Figures
from services.matrixd.store.peers import Peers
from shared.errors import Invalid
from shared.pool import BlockingPool
from shared.sections.matrix import MatrixdSection
from shared.wire.matrixd_context import (
    Candidate,
    DroppedCandidate,
    KeptCandidate,
    RelevanceAnswer,
    RelevanceRequest,
)


class RelevanceFilter:
    """Keeps what is about the query."""

    def __init__(
        self, section: MatrixdSection, peers: Peers, figures: Figures, pool: BlockingPool
    ) -> None:
        self._section = section
        self._peers = peers
        self._figures = figures
        self._pool = pool

    async def filter(self, request: RelevanceRequest) -> RelevanceAnswer:
        """Splits candidates into those that stay, in their order, and those that go.

        Raises:
            Invalid: too many candidates. Unavailable: embedd cannot be reached.
        """
        limit = self._section.max_candidates
        if len(request.candidates) > limit:
            raise Invalid(
                f"{len(request.candidates)} candidates; at most {limit} are judged at once.",
                details={"limit": limit},
            )
        judged = await self.judge(
            [text for text in (request.query, request.focus) if text and text.strip()],
            [one.text or "" for one in request.candidates],
            request.strictness,
        )
        kept: list[KeptCandidate] = []
        dropped: list[DroppedCandidate] = []
        for one, verdict in zip(request.candidates, judged, strict=True):
            if verdict is None or verdict.kept:
                kept.append(_keep(one, None if verdict is None else verdict.relevance))
            else:
                dropped.append(
                    DroppedCandidate(
                        id=one.id,
                        corpus=one.corpus,
                        reason=verdict.reason,
                        score=verdict.relevance,
                    )
                )
        self._figures.dropped.inc(len(dropped))
        return RelevanceAnswer(kept=kept, dropped=dropped)

    async def judge(
        self, asked: Sequence[str], texts: Sequence[str], strictness: float
    ) -> list[Any]:
        """A verdict of the core for each text; None for a blank one, which nothing is known of.

        Args:
            asked: the query, the focus, or both; of both a text must be about the two together.
        """
        told = [at for at, text in enumerate(texts) if text.strip()]
        verdicts: list[Any] = [None] * len(texts)
        if not told:
            return verdicts
        shown = [texts[at] for at in told]
        answer = await self._peers.embedd.embed([*asked, *shown])
        core: Any = await asyncio.to_thread(
            importlib.import_module, "services.matrixd.core.relevance"
        )
        ranking: Any = await asyncio.to_thread(
            importlib.import_module, "services.matrixd.store.ranking"
        )
        judged = await self._pool.run(
            _judge, core, ranking, asked, shown, answer.vectors, strictness
        )
        for at, verdict in zip(told, judged, strict=True):
            verdicts[at] = verdict
        return verdicts


def _judge(
    core: Any,
    ranking: Any,
    asked: Sequence[str],
    shown: Sequence[str],
    vectors: list[list[float]],
    strictness: float,
) -> list[Any]:
    unit = ranking.to_unit(vectors).astype("float64")
    together = ranking.to_unit(unit[: len(asked)].sum(axis=0)).astype("float64")
    return core.judge(" ".join(asked), together, shown, unit[len(asked) :], strictness)


def _keep(one: Candidate, relevance: float | None) -> KeptCandidate:
    return KeptCandidate(
        id=one.id,
        text=one.text,
        score=one.score,
        corpus=one.corpus,
        metadata=one.metadata,
        relevance=relevance,
    )
