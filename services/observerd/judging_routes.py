"""The routes of the scorer and of drift."""

from __future__ import annotations

from fastapi import FastAPI

from services.observerd.store.judging import Judging
from shared.wire.observerd_judging import (
    DriftAnswer,
    DriftRequest,
    Scored,
    ScorerDriftAnswer,
    ScorerDriftRequest,
    ScoreRequest,
)


def add_judging_routes(app: FastAPI, judging: Judging) -> None:
    """Judging an answer, and telling drift from noise."""

    @app.post("/observer/distillation/score", tags=["distillation"])
    async def score_answer(request: ScoreRequest) -> Scored:
        """Judges an answer by what it was made from; a scorer that fails says so (ADR-005)."""
        return await judging.score(request)

    @app.post("/observer/drift/scorer", tags=["drift"])
    async def check_scorer(request: ScorerDriftRequest) -> ScorerDriftAnswer:
        """Whether the scorer drifted (judge), what it scores (system), or neither."""
        return await judging.check_scorer(request)

    @app.post("/observer/drift/distributions", tags=["drift"])
    async def compare_distributions(request: DriftRequest) -> DriftAnswer:
        """Whether two samples differ by more than chance, feature by feature."""
        return await judging.compare(request)
