"""The HTTP face of embedd: wiring and thin routes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, TypeVar

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from services.embedd import rendering
from services.embedd.core.accept import choose_form
from services.embedd.core.texts import check_texts, read_input
from services.embedd.store.build import build_providers
from services.embedd.store.disk import DiskCache
from services.embedd.store.embeddings import Embeddings
from services.embedd.store.figures import Figures
from shared.config import Config
from shared.edge import Scope, render_envelope
from shared.errors import LakehouseError
from shared.lockfile import DirectoryLock
from shared.protocols import openai_error
from shared.runtime import Transports, create_base
from shared.wire.embedd import (
    ARROW_STREAM,
    EmbedModels,
    EmbedRequest,
    EmbedResponse,
    OpenAIEmbedRequest,
    OpenAIEmbedResponse,
)

M = TypeVar("M", bound=BaseModel)
# Where OpenAI's routes begin.
PREFIX = "/v1/"


def render_error(scope: Scope, error: LakehouseError, service: str, request_id: str) -> bytes:
    """OpenAI's shape on OpenAI's routes, the fleet's envelope elsewhere."""
    if scope["path"].startswith(PREFIX):
        return orjson.dumps(openai_error(error))
    return render_envelope(scope, error, service, request_id)


def create_app(config: Config, *, transports: Transports | None = None) -> FastAPI:
    """Builds the daemon; models and connections come with the first text that needs them.

    Args:
        config: section `embedd`, the data directory, and addresses of daemons that providers
            name.
        transports: reach those daemons (by name) and other servers (by provider) in process.
    """
    section = config.embedd
    folder = config.data_dir("embedd")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        lock = DirectoryLock(folder).acquire()
        try:
            await embeddings.start()
            yield
            await embeddings.aclose()
        finally:
            lock.release()

    async def check_ready() -> dict[str, str]:
        return await embeddings.check()

    app = create_base(
        "embedd", config, lifespan=lifespan, ready=check_ready, render_error=render_error
    )
    figures = Figures(app.state.metrics.registry)
    disk = None
    if section.cache_disk_bytes:
        disk = DiskCache(folder, section.cache_disk_bytes, figures.disk_faults.inc)
    embeddings = Embeddings(section, build_providers(config, transports), figures, disk)
    add_routes(app, embeddings, section.max_texts)
    return app


async def read_body(request: Request, model: type[M]) -> M:
    """The body as a wire model.

    Parsed by pydantic itself, which refuses what is not Unicode, and called by the routes
    directly: the framework's dependencies take longer than a cached answer.

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
def _body_of(model: type[Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"content": content, "required": True}}


def add_routes(app: FastAPI, embeddings: Embeddings, max_texts: int) -> None:
    """The routes; `embeddings` does the work."""

    @app.post(
        "/embed",
        tags=["embed"],
        response_class=Response,
        responses={
            200: {"model": EmbedResponse, "content": {ARROW_STREAM: {}}, "description": "Vectors"}
        },
        openapi_extra=_body_of(EmbedRequest),
    )
    async def embed(request: Request) -> Response:
        """One vector per text, in order, in JSON or as an Arrow stream."""
        asked = await read_body(request, EmbedRequest)
        form = choose_form(request.headers.get("accept", ""))
        check_texts(asked.texts, max_texts)
        embedded = await embeddings.embed(asked.texts, asked.model, asked.dimensions)
        if form == "arrow":
            return rendering.answer_arrow(embedded)
        return rendering.answer_json(embedded)

    @app.post(
        "/v1/embeddings",
        tags=["openai"],
        response_class=Response,
        responses={200: {"model": OpenAIEmbedResponse, "description": "Vectors"}},
        openapi_extra=_body_of(OpenAIEmbedRequest),
    )
    async def create_embeddings(request: Request) -> Response:
        """OpenAI's embeddings."""
        asked = await read_body(request, OpenAIEmbedRequest)
        texts = read_input(asked.input, max_texts)
        embedded = await embeddings.embed(texts, asked.model, asked.dimensions)
        return rendering.answer_openai(embedded, asked.encoding_format)

    @app.get("/embed/models", tags=["embed"])
    async def list_models() -> EmbedModels:
        """Every model that can be asked for, and whether its provider answers."""
        default, models = await embeddings.describe()
        return EmbedModels(default=default, models=models)
