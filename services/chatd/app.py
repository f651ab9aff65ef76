"""The HTTP face of chatd: wiring and thin routes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from services.chatd.core.surfaces import anthropic, house, openai, responses
from services.chatd.core.surfaces.responses_stream import ResponseWriter
from services.chatd.core.tokens import estimate_input
from services.chatd.document import add_bodies, body_of
from services.chatd.store.build import build_prices, build_providers
from services.chatd.store.catalogue import Catalogue
from services.chatd.store.dispatch import Dispatcher
from services.chatd.store.figures import Figures
from services.chatd.store.ledger import Ledger
from services.chatd.store.sending import FlowResponse, send_whole
from services.chatd.store.telling import tell_chats
from shared.config import Config
from shared.edge import Scope, render_envelope
from shared.errors import LakehouseError
from shared.protocols import anthropic_error, openai_error
from shared.runtime import Transports, create_base
from shared.telling import RunTeller
from shared.wire.chatd import ChatRequest, ChatResponse, Providers, UsageReport
from shared.wire.chatd_anthropic import (
    CountTokensRequest,
    MessagesRequest,
    MessagesResponse,
    TokenCount,
)
from shared.wire.chatd_openai import (
    OpenAIChatRequest,
    OpenAIChatResponse,
    OpenAIModel,
    OpenAIModels,
)
from shared.wire.chatd_responses import ResponsesRequest, ResponsesResponse

M = TypeVar("M", bound=BaseModel)
ANTHROPIC = "/v1/messages"
OPENAI = "/v1/"


def render_error(scope: Scope, error: LakehouseError, service: str, request_id: str) -> bytes:
    """Errors in the shape that the route's clients read."""
    path: str = scope["path"]
    if path.startswith(ANTHROPIC):
        return orjson.dumps(anthropic_error(error, request_id))
    if path.startswith(OPENAI):
        return orjson.dumps(openai_error(error))
    return render_envelope(scope, error, service, request_id)


def create_app(config: Config, *, transports: Transports | None = None) -> FastAPI:
    """Builds the daemon.

    Args:
        config: sections `chatd` and `models`, the data directory, and addresses of daemons
            that providers name.
        transports: reach observerd in process, for tests; providers are always reached over
            sockets.
    """
    section = config.chatd
    tiers = config.models.tiers()
    providers = build_providers(config)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        await ledger.start()
        try:
            yield
        finally:
            await ledger.aclose()
            await teller.aclose()
            for provider in providers.values():
                await provider.aclose()

    async def check_ready() -> dict[str, str]:
        return {"ledger": ledger.state()}

    app = create_base(
        "chatd", config, lifespan=lifespan, ready=check_ready, render_error=render_error
    )
    figures = Figures(app.state.metrics.registry)
    teller = RunTeller("chatd", config, app.state.metrics.registry, transports)
    ledger = Ledger(
        config.data_dir("chatd") / "ledger",
        section.checkpoint_records,
        figures,
        tell_chats(teller),
    )
    prices = build_prices(section)
    figures.watch_breakers({name: provider.breaker for name, provider in providers.items()})
    dispatcher = Dispatcher(section, tiers, providers, prices, ledger, figures)
    catalogue = Catalogue(providers, tiers, section.models_ttl_s)
    add_house(app, dispatcher, catalogue, ledger)
    add_openai(app, dispatcher, catalogue)
    add_anthropic(app, dispatcher)
    add_bodies(
        app, ChatRequest, OpenAIChatRequest, ResponsesRequest, MessagesRequest, CountTokensRequest
    )
    return app


async def read_body(request: Request, model: type[M]) -> M:
    """The body as a wire model, parsed by pydantic itself.

    Raises:
        RequestValidationError: which the base app turns into a 400.
    """
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        raise RequestValidationError(
            [{**problem, "loc": ("body", *problem["loc"])} for problem in problems]
        ) from None


def _answers(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model, "content": {"text/event-stream": {}}, "description": "Answer"}}


def add_house(app: FastAPI, dispatcher: Dispatcher, catalogue: Catalogue, ledger: Ledger) -> None:
    """The house's own routes."""

    @app.post(
        "/chat",
        tags=["chat"],
        response_class=Response,
        responses=_answers(ChatResponse),
        openapi_extra=body_of(ChatRequest),
    )
    async def chat(request: Request) -> Response:
        """An answer from whichever provider the model's name means."""
        asked = await read_body(request, ChatRequest)
        wanted = house.read_request(asked)
        if asked.stream:
            flow = await dispatcher.stream(wanted, "chat")
            return FlowResponse(flow, house.HouseWriter(flow.head, flow.account.latency_ms))
        reply = await dispatcher.complete(wanted, "chat")
        body = house.write_whole(reply.answer, reply.head, reply.account.latency_ms())
        return send_whole(body, reply)

    @app.get("/chat/providers", tags=["chat"], response_model_exclude_none=True)
    async def get_providers(probe: bool = False) -> Providers:
        """Which providers are registered; `?probe=1` asks them, and looks for tiers' models."""
        return await catalogue.describe(probe)

    @app.get("/chat/usage", tags=["chat"])
    async def get_usage() -> UsageReport:
        """What has been asked for, and what it cost, since the ledger began."""
        return await ledger.report()


def add_openai(app: FastAPI, dispatcher: Dispatcher, catalogue: Catalogue) -> None:
    """OpenAI's routes."""

    @app.post(
        "/v1/chat/completions",
        tags=["openai"],
        response_class=Response,
        responses=_answers(OpenAIChatResponse),
        openapi_extra=body_of(OpenAIChatRequest),
    )
    async def complete_chat(request: Request) -> Response:
        """OpenAI's chat completions."""
        asked = await read_body(request, OpenAIChatRequest)
        wanted = openai.read_request(asked)
        if asked.stream:
            options = asked.stream_options
            flow = await dispatcher.stream(wanted, "completions")
            usage = options is not None and bool(options.include_usage)
            return FlowResponse(flow, openai.ChunkWriter(flow.head, usage))
        reply = await dispatcher.complete(wanted, "completions")
        return send_whole(openai.write_whole(reply.answer, reply.head), reply)

    @app.post(
        "/v1/responses",
        tags=["openai"],
        response_class=Response,
        responses=_answers(ResponsesResponse),
        openapi_extra=body_of(ResponsesRequest),
    )
    async def create_response(request: Request) -> Response:
        """OpenAI's responses, stateless."""
        asked = await read_body(request, ResponsesRequest)
        wanted = responses.read_request(asked)
        if asked.stream:
            flow = await dispatcher.stream(wanted, "responses")
            return FlowResponse(flow, ResponseWriter(flow.head, asked))
        reply = await dispatcher.complete(wanted, "responses")
        return send_whole(responses.write_whole(reply.answer, reply.head, asked), reply)

    @app.get("/v1/models", tags=["openai"])
    async def list_models() -> OpenAIModels:
        """Tiers, and the models of every provider that answers."""
        return await catalogue.list_models()

    @app.get("/v1/models/{model:path}", tags=["openai"])
    async def get_model(model: str) -> OpenAIModel:
        """One model or tier."""
        return await catalogue.find_model(model)


def add_anthropic(app: FastAPI, dispatcher: Dispatcher) -> None:
    """Anthropic's routes."""

    @app.post(
        "/v1/messages",
        tags=["anthropic"],
        response_class=Response,
        responses=_answers(MessagesResponse),
        openapi_extra=body_of(MessagesRequest),
    )
    async def create_message(request: Request) -> Response:
        """Anthropic's messages."""
        asked = await read_body(request, MessagesRequest)
        wanted = anthropic.read_request(asked)
        if asked.stream:
            flow = await dispatcher.stream(wanted, "messages")
            return FlowResponse(flow, anthropic.MessageWriter(flow.head))
        reply = await dispatcher.complete(wanted, "messages")
        return send_whole(anthropic.write_whole(reply.answer, reply.head), reply)

    @app.post(
        "/v1/messages/count_tokens",
        tags=["anthropic"],
        openapi_extra=body_of(CountTokensRequest),
    )
    async def count_tokens(request: Request) -> TokenCount:
        """An estimate of what a model would read: no provider's tokeniser is here."""
        asked = await read_body(request, CountTokensRequest)
        dispatcher.find_targets(asked.model)
        return TokenCount(input_tokens=estimate_input(anthropic.read_input(asked)))
