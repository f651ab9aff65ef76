"""The HTTP face of vectord: wiring and thin routes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any

from fastapi import FastAPI, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from services.vectord.store.figures import Figures
from services.vectord.store.registry import Registry
from services.vectord.store.service import Body, Service
from shared.clients.storaged import StoragedClient
from shared.config import Config
from shared.runtime import Transports, create_base
from shared.wire.vectord import (
    ARROW_STREAM,
    INDEX_NAME,
    ArrowOptions,
    BatchResponse,
    CandidatesResponse,
    DeleteItems,
    IndexDeleted,
    IndexInfo,
    IndexList,
    IndexSpec,
    ItemFound,
    ItemsDeleted,
    ItemsWritten,
    PutItems,
    SearchRequest,
    SearchResponse,
)

INDEXES = "/vectors/indexes"
INDEX = INDEXES + "/{name}"
ITEMS = INDEX + "/items"

Name = Annotated[str, Path(pattern=INDEX_NAME, description="Name of the index")]


def create_app(config: Config, *, transports: Transports | None = None) -> FastAPI:
    """Builds the daemon.

    Args:
        config: section `vectord`, the data directory, and storaged's address.
        transports: in-process transports by service name, for tests.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        await registry.open()
        try:
            yield
        finally:
            await registry.close()

    async def check_ready() -> dict[str, str]:
        return await registry.check()

    app = create_base("vectord", config, lifespan=lifespan, ready=check_ready)
    registry = Registry(
        config,
        StoragedClient(config, transports),
        Figures(app.state.metrics.registry),
        now=lambda: datetime.now(UTC).isoformat(timespec="seconds"),
    )
    add_index_routes(app, registry)
    add_item_routes(app, Service(registry))
    return app


def add_index_routes(app: FastAPI, registry: Registry) -> None:
    """The routes of indexes."""

    @app.post(INDEXES, tags=["vectors"], status_code=201, responses={200: {"model": IndexInfo}})
    async def create_index(spec: IndexSpec, response: Response) -> IndexInfo:
        """Makes an index: 201; 200 when it is there already, 409 when another one is."""
        info, created = await registry.create(spec)
        response.status_code = 201 if created else 200
        return info

    @app.get(INDEXES, tags=["vectors"])
    async def list_indexes() -> IndexList:
        """All indexes by name."""
        return registry.list()

    @app.get(INDEX, tags=["vectors"])
    async def get_index(name: Name) -> IndexInfo:
        """One index: what it is made of, and its figures."""
        return registry.find(name).describe()

    @app.delete(INDEX, tags=["vectors"])
    async def delete_index(name: Name) -> IndexDeleted:
        """Removes an index with all its items; `deleted` is false when there was none."""
        return await registry.delete(name)


def add_item_routes(app: FastAPI, service: Service) -> None:
    """The routes of items and searches, whose bodies are JSON or Arrow."""

    @app.put(ITEMS, tags=["vectors"], openapi_extra=describe_body(PutItems))
    async def put_items(name: Name, request: Request, model: str | None = None) -> ItemsWritten:
        """Writes items, new or in place of those of the same id. Durable when it answers."""
        return await service.put_items(name, await read_body(request), model)

    @app.delete(ITEMS, tags=["vectors"])
    async def delete_items(name: Name, request: DeleteItems) -> ItemsDeleted:
        """Removes items by `ids` or by `filter`. Durable when it answers."""
        return await service.delete_items(name, request)

    @app.get(ITEMS + "/{item:path}", tags=["vectors"], response_model=ItemFound)
    async def get_item(name: Name, item: str) -> Response:
        """One item with its vector."""
        return Response(await service.get_item(name, item), media_type="application/json")

    @app.post(
        INDEX + "/search",
        tags=["vectors"],
        response_model=SearchResponse | BatchResponse,
        openapi_extra={**describe_body(SearchRequest), **describe_query(ArrowOptions)},
    )
    async def search_index(name: Name, request: Request) -> Response:
        """Nearest items of a vector, BM25 hits of a text, or both fused; one query or a batch.

        The query parameters are for batches that come as Arrow; JSON carries its own.
        """
        # Read by hand: the framework takes as long for five of them as a search does.
        options = read_options(request) if request.scope["query_string"] else ArrowOptions()
        content, media_type = await service.search(name, await read_body(request), options)
        return Response(content, media_type=media_type)

    @app.post(
        INDEX + "/candidates",
        tags=["vectors"],
        response_model=CandidatesResponse,
        openapi_extra=describe_body(SearchRequest, arrow=False),
    )
    async def find_candidates(name: Name, request: Request) -> Response:
        """For callers that fuse by themselves: nearest items and BM25 hits, both scores of each."""
        content = await service.find_candidates(name, await read_body(request))
        return Response(content, media_type="application/json")


async def read_body(request: Request) -> Body:
    """The body with the headers that say what it is."""
    headers = request.headers
    return Body(await request.body(), headers.get("content-type", ""), headers.get("accept", ""))


def read_options(request: Request) -> ArrowOptions:
    """The query parameters of a search.

    Raises:
        RequestValidationError: which the base app turns into a 400.
    """
    query = request.query_params
    given: dict[str, Any] = dict(query)
    if "include" in given:
        given["include"] = query.getlist("include")
    try:
        return ArrowOptions.model_validate(given)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise RequestValidationError(
            [{**problem, "loc": ("query", *problem["loc"])} for problem in problems]
        ) from None


@cache
def describe_query(model: type[BaseModel]) -> dict[str, Any]:
    """A model's fields as query parameters, for the API's document."""
    properties = model.model_json_schema()["properties"]
    return {
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in properties.items()
        ]
    }


@cache
def describe_body(model: Any, *, arrow: bool = True) -> dict[str, Any]:
    """The request body for the API's document: the model as JSON, and maybe an Arrow stream."""
    content: dict[str, Any] = {"application/json": {"schema": model.model_json_schema()}}
    if arrow:
        content[ARROW_STREAM] = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": content}}
