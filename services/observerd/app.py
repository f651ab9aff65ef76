"""The HTTP face of observerd: wiring and thin routes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import StreamingResponse

from services.observerd.bodies import EVENT_BODY, WORKFLOW_BODY, read_events, read_workflow
from services.observerd.judging_routes import (
    add_distill_routes,
    add_feed_routes,
    add_judging_routes,
    add_stream_routes,
)
from services.observerd.letter_routes import add_letter_routes
from services.observerd.refine_routes import add_refine_routes
from services.observerd.store.distilling import Distilling
from services.observerd.store.drawing import Drawing
from services.observerd.store.events import EventLog
from services.observerd.store.execution import Surroundings
from services.observerd.store.feeding import Feeding
from services.observerd.store.figures import Figures
from services.observerd.store.fleet_modes import Peers
from services.observerd.store.judging import Judging
from services.observerd.store.letters import Letters
from services.observerd.store.modes import FIXTURES, Mode, Modes
from services.observerd.store.refining import Refiners
from services.observerd.store.runs import Runs
from services.observerd.store.steps import Steps
from services.observerd.store.streaming import Streams
from shared.config import Config
from shared.lockfile import DirectoryLock
from shared.reporter import Reporter
from shared.runtime import Transports, create_base
from shared.wire.observerd import (
    RUN_ID,
    Event,
    EventList,
    EventsAccepted,
    ObservedRun,
    ObservedRuns,
    ObserverStats,
)
from shared.wire.observerd_workflows import (
    ModeList,
    ResumeRequest,
    RunList,
    RunStarted,
    RunStatus,
    RunView,
)

EVENTS = "/observer/events"
RUNS = "/observer/workflows/runs"

RunId = Annotated[str, Path(pattern=RUN_ID, description="Id of the run")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Cursor = Annotated[int | None, Query(ge=0, le=2**53, description="next_cursor of the page before")]
Wait = Annotated[float, Query(ge=0, le=300, description="Seconds to wait for the run's end")]


def create_app(
    config: Config, *, transports: Transports | None = None, modes: list[Mode] | None = None
) -> FastAPI:
    """Builds the daemon.

    Args:
        config: section `observerd`, the data directory, the peers' addresses.
        transports: in-process transports by service name, for tests.
        modes: further modes, for tests.
    """
    folder = config.data_dir("observerd")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(DirectoryLock(folder).acquire().release)
            stack.push_async_callback(peers.aclose)
            stack.callback(judging.close)
            stack.callback(feeding.close)
            stack.push_async_callback(log.close)
            await log.open()
            stack.push_async_callback(reporter.aclose)
            # Before the runs, which go on where they were and may need both.
            stack.push_async_callback(streams.close)
            await streams.open()
            stack.push_async_callback(letters.close)
            await letters.open()
            stack.push_async_callback(runs.close)
            await runs.open()
            stack.push_async_callback(refiners.close)
            await refiners.open()
            stack.push_async_callback(distilling.close)
            await distilling.open()
            yield

    async def check_ready() -> dict[str, str]:
        return {
            "log": log.check(),
            "refiners": refiners.check(),
            "audits": distilling.check(),
            "streams": streams.check(),
            "letters": letters.check(),
        }

    async def record_own(events: Any) -> None:
        await log.record([Event.model_validate(event) for event in events])

    app = create_base("observerd", config, lifespan=lifespan, ready=check_ready)
    figures = Figures(app.state.metrics.registry)
    log = EventLog(folder / "events", config.observerd, figures)
    reporter = Reporter(record_own, figures.unreported.inc)
    peers = Peers(config, transports)
    letters = Letters(folder / "letters", figures)
    judging = Judging(peers.embedd, peers.matrixd, letters, log.record)
    streams = Streams(folder / "streams")
    own = [*judging.modes(), *streams.modes()]
    known = Modes([*FIXTURES, *peers.modes(), *own, *(modes or [])])
    runs = Runs(Surroundings(config.observerd, Steps(folder), known, figures, reporter))
    add_event_routes(app, log, letters)
    add_letter_routes(app, letters)
    add_workflow_routes(app, runs, known)
    refiners = Refiners(folder / "refiners", peers.matrixd, letters)
    add_refine_routes(app, refiners, Drawing(log, refiners, judging))
    add_judging_routes(app, judging)
    add_stream_routes(app, streams)
    distilling = Distilling(folder / "audits")
    add_distill_routes(app, distilling)
    feeding = Feeding(log, peers.matrixd, letters)
    add_feed_routes(app, feeding)
    return app


def add_event_routes(app: FastAPI, log: EventLog, letters: Letters) -> None:
    """What was observed."""

    @app.post(EVENTS, tags=["observer"], openapi_extra=EVENT_BODY)
    async def record_events(request: Request) -> EventsAccepted:
        """Records one event, or a batch under `events`: durable. A repeated id is not recorded."""
        return await log.record(read_events(await request.body()))

    @app.get(EVENTS, tags=["observer"])
    async def list_events(
        after: Annotated[int | None, Query(ge=0, le=2**53)] = None,
        limit: Limit = 100,
        run_id: str | None = None,
    ) -> EventList:
        """The newest events; with `after` those behind that seq, also out of the log."""
        return await log.list(after, limit, run_id)

    @app.get("/observer/stats", tags=["observer"])
    async def get_stats() -> ObserverStats:
        """Figures over the events in memory: by mode, model, task signature; log, dead letters."""
        return log.stats().model_copy(update={"letters": letters.figures()})

    @app.get("/observer/runs", tags=["observer"])
    async def list_observed(limit: Limit = 100, cursor: Cursor = None) -> ObservedRuns:
        """Runs put together from their events, by the latest one."""
        return log.runs(limit, cursor)

    @app.get("/observer/runs/{run_id}", tags=["observer"])
    async def get_observed(run_id: RunId) -> ObservedRun:
        """One run put together from its events, with its steps."""
        return log.run(run_id)


def add_workflow_routes(app: FastAPI, runs: Runs, modes: Modes) -> None:
    """Workflows."""

    @app.get("/observer/workflows/modes", tags=["workflows"])
    async def list_modes() -> ModeList:
        """What nodes can do, with the inputs that each takes."""
        return ModeList(modes=modes.describe())

    @app.post(RUNS, tags=["workflows"], status_code=202, openapi_extra=WORKFLOW_BODY)
    async def start_run(request: Request) -> RunStarted:
        """Starts a workflow given as JSON or YAML: 202, durable. 400 with all that is wrong."""
        return await runs.start(await read_workflow(request))

    @app.get(RUNS, tags=["workflows"])
    async def list_runs(
        limit: Limit = 100,
        cursor: Cursor = None,
        status: RunStatus | None = None,
        name: str | None = None,
    ) -> RunList:
        """Runs, newest first."""
        return await runs.list(limit, cursor, status, name)

    @app.get(RUNS + "/{run_id}", tags=["workflows"])
    async def get_run(run_id: RunId, wait: Wait = 0.0) -> RunView:
        """A run with its nodes; with `wait` as soon as it has ended."""
        return await runs.get(run_id, wait)

    @app.get(RUNS + "/{run_id}/events", tags=["workflows"], response_class=StreamingResponse)
    async def watch_run(run_id: RunId) -> StreamingResponse:
        """The run's progress as server-sent events: snapshot, node, end."""
        return StreamingResponse(
            await runs.watch(run_id),
            media_type="text/event-stream",
            headers={"cache-control": "no-store"},
        )

    @app.post(RUNS + "/{run_id}/cancel", tags=["workflows"])
    async def cancel_run(run_id: RunId) -> RunView:
        """Ends a run; one that has ended stays as it is."""
        return await runs.cancel(run_id)

    @app.post(RUNS + "/{run_id}/resume", tags=["workflows"], status_code=202)
    async def resume_run(run_id: RunId, request: ResumeRequest | None = None) -> RunStarted:
        """Runs again what had not succeeded, what `rerun` names, and all that depends on it."""
        return await runs.resume(run_id, request or ResumeRequest())
