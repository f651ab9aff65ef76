"""The routes of the scorer, of exports and audits, and of drift."""

from __future__ import annotations

from fastapi import FastAPI

from services.observerd.store.distilling import Distilling
from services.observerd.store.feeding import Feeding
from services.observerd.store.judging import Judging
from shared.wire.observerd_distill import (
    AuditRequest,
    BaselineList,
    BaselineView,
    ExportAnswer,
    ExportRequest,
)
from shared.wire.observerd_feed import FeedAnswer, FeedRequest
from shared.wire.observerd_judging import (
    DriftAnswer,
    DriftRequest,
    Scored,
    ScorerDriftAnswer,
    ScorerDriftRequest,
    ScoreRequest,
)


def add_distill_routes(app: FastAPI, distilling: Distilling) -> None:
    """What leaves as training data, and how the scorer was audited."""

    @app.post("/observer/distillation/export", tags=["distillation"])
    async def export_runs(request: ExportRequest) -> ExportAnswer:
        """Judged runs as training data past the firewall; 412 when too few of them were scored."""
        return await distilling.export(request)

    @app.post("/observer/distillation/baselines", tags=["distillation"])
    async def add_baseline(request: AuditRequest) -> BaselineView:
        """Adds an audit of the scorer to the chain; the very same again changes nothing."""
        return await distilling.audit(request)

    @app.get("/observer/distillation/baselines", tags=["distillation"])
    async def list_baselines() -> BaselineList:
        """The audits, each chained to the one before, and what is wrong with the chain."""
        return distilling.list()


def add_feed_routes(app: FastAPI, feeding: Feeding) -> None:
    """What goes back into the playbook."""

    @app.post("/observer/distillation/feed", tags=["distillation"])
    async def feed_playbook(request: FeedRequest) -> FeedAnswer:
        """Records accepted runs in the playbook past the firewall; each run counts once."""
        return await feeding.feed(request)


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
