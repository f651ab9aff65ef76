"""The routes of the scorer, of exports and audits, and of drift with its streams."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Path, Response

from services.observerd.store.distilling import Distilling
from services.observerd.store.feeding import Feeding
from services.observerd.store.judging import Judging
from services.observerd.store.streaming import Streams
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
from shared.wire.observerd_streams import (
    STREAM,
    StreamFed,
    StreamList,
    StreamReset,
    StreamSpec,
    StreamValues,
    StreamView,
)

STREAMS = "/observer/drift/streams"
Name = Annotated[str, Path(pattern=STREAM, description="Name of the stream")]


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


def add_stream_routes(app: FastAPI, streams: Streams) -> None:
    """Streams of values that ring when their mean changes."""

    @app.put(STREAMS + "/{name}", tags=["drift"], responses={201: {"model": StreamView}})
    async def declare_stream(name: Name, spec: StreamSpec, response: Response) -> StreamView:
        """Begins to watch a stream: 201, or 200 when it is watched; other settings are 409."""
        view, made = await streams.declare(name, spec)
        response.status_code = 201 if made else 200
        return view

    @app.get(STREAMS, tags=["drift"])
    async def list_streams() -> StreamList:
        """All streams: their status, alarms, and how far the next one is away."""
        return streams.list()

    @app.get(STREAMS + "/{name}", tags=["drift"])
    async def get_stream(name: Name) -> StreamView:
        """One stream."""
        return streams.show(name)

    @app.post(STREAMS + "/{name}/values", tags=["drift"])
    async def feed_stream(name: Name, batch: StreamValues) -> StreamFed:
        """Takes values in, durably, and tells of alarms; a batch with an id counts once."""
        return await streams.feed(name, batch)

    @app.post(STREAMS + "/{name}/reset", tags=["drift"])
    async def reset_stream(name: Name, reset: StreamReset) -> StreamView:
        """Begins anew after an alarm was looked into, with the same mean or another."""
        return await streams.reset(name, reset)

    @app.delete(STREAMS + "/{name}", tags=["drift"], status_code=204)
    async def delete_stream(name: Name) -> None:
        """Stops watching a stream."""
        await streams.delete(name)
