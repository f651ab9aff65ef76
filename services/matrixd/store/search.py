"""Searching many corpora as one: gather, rank cold, let the playbook speak, merge."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Sequence
from typing import Any

from services.matrixd.store.figures import Figures
from services.matrixd.store.gathering import Asked, Gathered, Gatherer, to_parts
from services.matrixd.store.memory import Memory
from shared.pool import BlockingPool
from shared.wire.matrixd import MatrixAnswer, MatrixHit, MatrixSearch, NoteUsed, PlaybookAnswer

Ref = tuple[str, str]


class Searcher:
    """Answers searches."""

    def __init__(
        self, gatherer: Gatherer, memory: Memory, figures: Figures, pool: BlockingPool
    ) -> None:
        self._gatherer = gatherer
        self._memory = memory
        self._figures = figures
        self._pool = pool
        self._ranking: Any = None

    async def search(self, request: MatrixSearch) -> MatrixAnswer:
        """The best documents of all corpora asked for.

        Raises:
            Invalid, NotFound, Unavailable: as of `Gatherer.gather`.
        """
        names = self._gatherer.choose(request.corpora)
        if request.use_playbook:
            await self._memory.prepare()
        gathered = await self._gatherer.gather(
            request.query,
            names,
            request.filters,
            ("text", "metadata"),
            request.tuning,
            request.k,
        )
        ranking = await self.ranking()
        answer = await self._pool.run(self._rank, ranking, request, gathered)
        self._figures.searches.inc()
        return answer

    async def ranking(self) -> Any:
        """The module that brings numpy, loaded once."""
        if self._ranking is None:
            self._ranking = await asyncio.to_thread(
                importlib.import_module, "services.matrixd.store.ranking"
            )
        return self._ranking

    def _rank(self, ranking: Any, request: MatrixSearch, gathered: Gathered) -> MatrixAnswer:
        lists: list[tuple[Sequence[Ref], Sequence[float]]] = []
        colds: list[Any] = []
        moves: list[dict[Ref, list[dict[str, Any]]]] = []
        routings: list[dict[str, float]] = []
        notes: list[NoteUsed] = []
        activated = False
        for model, asked in gathered.asked.items():
            parts = to_parts(asked, ranking.Part)
            cold = ranking.rank(parts)
            refs, scores, moved = cold.refs, cold.p0, {}
            routing: dict[str, float] = {}
            if request.use_playbook:
                begun = time.perf_counter()
                told = self._memory.rerank(
                    model,
                    request.query,
                    gathered.vectors[model],
                    cold,
                    request.explain,
                )
                self._figures.rerank_seconds.observe(time.perf_counter() - begun)
                if told is not None:
                    refs, scores, moved = told.refs, told.scores, told.moves
                    routing = told.routing
                    activated = activated or told.activated
                    notes += told.notes
            lists.append((refs, scores))
            colds.append(cold)
            moves.append(moved)
            routings.append(routing)
        if activated:
            self._figures.activations.inc()
        merged = ranking.merge(lists, request.k)
        shown = _index_shown(gathered)
        hits: list[MatrixHit] = []
        for rank, (ref, score, number) in enumerate(merged, start=1):
            explain = None
            if request.explain:
                explain = _explain(colds[number], ref, moves[number].get(ref, []))
                if routings[number]:
                    explain["routing"] = routings[number][ref[0]]
            hits.append(_show(shown[ref], ref, score, rank, explain))
        counts: dict[str, int] = {}
        for hit in hits:
            counts[hit.corpus] = counts.get(hit.corpus, 0) + 1
        answers = {
            name: one.model_copy(update={"hits": counts.get(name, 0)})
            for name, one in gathered.answers.items()
        }
        return MatrixAnswer(
            hits=hits,
            corpora=answers,
            playbook=PlaybookAnswer(activated=activated, notes=notes),
        )


def _index_shown(gathered: Gathered) -> dict[Ref, tuple[Asked, int]]:
    return {
        (one.corpus.spec.name, found.id): (one, at)
        for asked in gathered.asked.values()
        for one in asked
        for at, found in enumerate(one.found)
    }


def _show(
    where: tuple[Asked, int], ref: Ref, score: float, rank: int, explain: dict[str, Any] | None
) -> MatrixHit:
    asked, at = where
    found, answer = asked.found[at], asked.answer
    return MatrixHit(
        corpus=ref[0],
        id=ref[1],
        score=score,
        rank=rank,
        text=answer.texts[found.item] if answer.texts else None,
        metadata=answer.metadata[found.item] if answer.metadata else {},
        chunk=found.chunk,
        explain=explain,
    )


def _explain(cold: Any, ref: Ref, moves: list[dict[str, Any]]) -> dict[str, Any]:
    at = cold.refs.index(ref)
    return {
        "p0": float(cold.p0[at]),
        "cold_rank": at + 1,
        "cosine": float(cold.cosine[at]),
        "bm25": float(cold.bm25[at]),
        "playbook": moves,
    }
