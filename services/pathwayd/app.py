"""The HTTP face of pathwayd: wiring and thin routes."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import cache
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from services.pathwayd.mem0 import add_mem0_routes
from services.pathwayd.store.embedder import Embedder
from services.pathwayd.store.facts import FactFinder
from services.pathwayd.store.figures import Figures
from services.pathwayd.store.ledger import Ledger
from services.pathwayd.store.memories import Memories
from services.pathwayd.store.reading import MAX_PAGE, Reading
from services.pathwayd.store.service import Done, Service
from shared.clients.chatd import ChatdClient
from shared.clients.embedd import EmbeddClient
from shared.config import Config
from shared.runtime import Transports, create_base
from shared.telling import RunTeller
from shared.wire.pathwayd import (
    History,
    PathwayResults,
    PathwaySearch,
    PathwayStats,
    Status,
    Trace,
    TraceAdd,
    TraceBatch,
    TraceList,
    TraceRef,
    TraceRetire,
    TraceRevise,
    TracesAdded,
    TraceUpdate,
)

M = TypeVar("M", bound=BaseModel)

TRACES = "/pathway/traces"
TRACE = TRACES + "/{trace_id}"

IfMatch = Annotated[str | None, Header(description='The version expected, as an ETag: "3"')]
IdempotencyKey = Annotated[
    str | None, Header(description="A name for this request, so that it can be sent again")
]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]


def create_app(config: Config, *, transports: Transports | None = None) -> FastAPI:
    """Builds the daemon.

    Args:
        config: section `pathwayd`, the data directory, and the addresses of embedd and chatd.
        transports: in-process transports by service name, for tests.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        figures = Figures(app.state.metrics.registry)
        teller = RunTeller("pathwayd", config, app.state.metrics.registry, transports)
        ledger = Ledger(config.data_dir("pathwayd"), config.pathwayd, figures, now_us)
        embedder = Embedder(ledger, EmbeddClient(config, transports))
        service, reading = Service(ledger, embedder), Reading(ledger, embedder, teller)
        finder = FactFinder(ChatdClient(config, transports), config.pathwayd.infer_model)
        app.state.parts = Parts(ledger, embedder, service, reading, finder)
        await ledger.open()
        embedder.start()
        try:
            yield
        finally:
            await teller.aclose()
            await service.close()
            await finder.close()
            await embedder.close()
            await ledger.close()

    async def check_ready() -> dict[str, str]:
        parts: Parts = app.state.parts
        return {**parts.ledger.check(), "embedd": await parts.embedder.check()}

    app = create_base("pathwayd", config, lifespan=lifespan, ready=check_ready)
    add_trace_routes(app)
    add_search_routes(app)
    add_mem0_routes(app, read_body, lambda: app.state.parts.memories)
    return app


class Parts:
    """What the routes call; made when the daemon starts, after any fork."""

    def __init__(
        self,
        ledger: Ledger,
        embedder: Embedder,
        service: Service,
        reading: Reading,
        finder: FactFinder,
    ) -> None:
        self.ledger = ledger
        self.embedder = embedder
        self.service = service
        self.reading = reading
        self.memories = Memories(ledger, service, reading, finder)


def now_us() -> int:
    """The time in microseconds since 1970."""
    return time.time_ns() // 1000


async def read_body(request: Request, model: type[M]) -> M:
    """The body as a wire model.

    Parsed by pydantic itself: it keeps integers of any size and refuses what is not Unicode.

    Raises:
        RequestValidationError: which the base app turns into a 400.
    """
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise RequestValidationError(
            [{**problem, "loc": ("body", *problem["loc"])} for problem in problems]
        ) from None


@cache
def body_of(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """The request body for the API's document."""
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"content": content, "required": required}}


def add_trace_routes(app: FastAPI) -> None:
    """The routes of traces."""

    def parts() -> Parts:
        return app.state.parts

    def answer(done: Done, response: Response, created: int = 200) -> Trace:
        response.headers["etag"] = f'"{done.trace.version}"'
        response.status_code = 200 if done.duplicate else created
        return parts().reading.show(done.trace, duplicate=done.duplicate)

    @app.post(
        TRACES,
        tags=["pathway"],
        status_code=201,
        responses={200: {"model": Trace}},
        openapi_extra=body_of(TraceAdd),
    )
    async def add_trace(
        request: Request, response: Response, idempotency_key: IdempotencyKey = None
    ) -> Trace:
        """Adds a trace: 201, durable. 200 when it is there already (`dedupe`, a repeated key)."""
        body = await read_body(request, TraceAdd)
        done = await parts().service.add([body], idempotency_key)
        return answer(done[0], response, 201)

    @app.post(
        TRACES + "/batch", tags=["pathway"], status_code=201, openapi_extra=body_of(TraceBatch)
    )
    async def add_traces(request: Request, idempotency_key: IdempotencyKey = None) -> TracesAdded:
        """Adds traces in one request, all checked before any is written."""
        body = await read_body(request, TraceBatch)
        done = await parts().service.add(body.traces, idempotency_key)
        return TracesAdded(traces=[show_ref(one) for one in done])

    @app.get(TRACES, tags=["pathway"])
    async def list_traces(
        limit: Limit = 50,
        cursor: str | None = None,
        tag: str | None = None,
        status: Status | None = None,
    ) -> TraceList:
        """Traces by their last change, newest first."""
        return parts().reading.list(limit, cursor, tag, status)

    @app.get(TRACE, tags=["pathway"])
    async def get_trace(
        trace_id: str, response: Response, version: Annotated[int | None, Query(ge=1)] = None
    ) -> Trace:
        """One trace, retired or not, as it is now or as a version of it was."""
        trace = await parts().reading.get(trace_id, version)
        response.headers["etag"] = f'"{trace.version}"'
        return trace

    @app.put(TRACE, tags=["pathway"], openapi_extra=body_of(TraceUpdate))
    async def update_trace(
        trace_id: str,
        request: Request,
        response: Response,
        if_match: IfMatch = None,
        idempotency_key: IdempotencyKey = None,
    ) -> Trace:
        """Writes the next version in place. 412 or 409 when the trace has moved on."""
        body = await read_body(request, TraceUpdate)
        done = await parts().service.update(trace_id, body, if_match, idempotency_key)
        return answer(done, response)

    @app.post(
        TRACE + "/revise",
        tags=["pathway"],
        status_code=201,
        responses={200: {"model": Trace}},
        openapi_extra=body_of(TraceRevise),
    )
    async def revise_trace(
        trace_id: str,
        request: Request,
        response: Response,
        if_match: IfMatch = None,
        idempotency_key: IdempotencyKey = None,
    ) -> Trace:
        """Adds a trace that supersedes this one: 201. 409 when that was done already."""
        body = await read_body(request, TraceRevise)
        done = await parts().service.revise(trace_id, body, if_match, idempotency_key)
        return answer(done, response, 201)

    @app.post(
        TRACE + "/retire", tags=["pathway"], openapi_extra=body_of(TraceRetire, required=False)
    )
    async def retire_trace(
        trace_id: str, request: Request, response: Response, if_match: IfMatch = None
    ) -> Trace:
        """Retires a trace: no search shows it again, its history stays. Twice is harmless."""
        empty = not await request.body()
        body = TraceRetire() if empty else await read_body(request, TraceRetire)
        return answer(await parts().service.retire(trace_id, body, if_match), response)

    @app.get(TRACE + "/history", tags=["pathway"])
    async def get_history(trace_id: str, limit: Limit = 100) -> History:
        """A trace's past, newest first, back through the traces it supersedes."""
        return await parts().reading.history(trace_id, limit)


def add_search_routes(app: FastAPI) -> None:
    """The routes of searches and figures."""

    @app.post("/pathway/search", tags=["pathway"], openapi_extra=body_of(PathwaySearch))
    async def search_traces(request: Request) -> PathwayResults:
        """Traces by meaning and words, filtered; by words alone while embedd is away."""
        body = await read_body(request, PathwaySearch)
        return await app.state.parts.reading.search(body)

    @app.get("/pathway/stats", tags=["pathway"])
    async def get_stats() -> PathwayStats:
        """How much there is, what it takes, and what the log has lost."""
        return app.state.parts.reading.stats()


def show_ref(done: Done) -> TraceRef:
    """What became of one trace of a batch."""
    trace = done.trace
    return TraceRef(
        id=trace.id, version=trace.version, embedded=done.embedded, duplicate=done.duplicate
    )
