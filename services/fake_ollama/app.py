"""The HTTP face of fake_ollama: Ollama's routes, and those that steer it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import ValidationError

from services.fake_ollama.core import native, openai
from services.fake_ollama.core.catalogue import VERSION, Catalogue, PretendModel
from services.fake_ollama.core.script import ScriptBook
from services.fake_ollama.store import replies
from services.fake_ollama.store.models import Models
from services.fake_ollama.store.recorder import Recorder, Recordings
from shared.config import Config
from shared.edge import Scope
from shared.errors import Invalid, LakehouseError
from shared.runtime import Transports, create_base
from shared.wire.fake_ollama import (
    ChatBody,
    EmbedBody,
    EmbeddingsBody,
    GenerateBody,
    OllamaBody,
    OpenAIChatBody,
    OpenAIEmbeddingsBody,
    RecordedRequests,
    Script,
    ScriptRule,
    ScriptState,
    ShowBody,
)

B = TypeVar("B", bound=OllamaBody)
# Answers of the pretended protocols, given what was asked and the rule that it met.
Serve = Callable[[B, ScriptRule], Response]


def render_error(scope: Scope, error: LakehouseError, service: str, request_id: str) -> bytes:
    """Ollama's shape, or that of its /v1."""
    return replies.error_content(scope["path"], error.status, error.message)


def create_app(config: Config, *, transports: Transports | None = None) -> FastAPI:
    """Builds the daemon.

    Args:
        config: section `fake_ollama` is read.
        transports: unused; it calls nobody.
    """
    section = config.fake_ollama
    catalogue = Catalogue(
        {
            name: PretendModel(
                name,
                frozenset(model.capabilities),
                model.context_length,
                model.embedding_length,
            )
            for name, model in section.models.items()
        }
    )
    app = create_base("fake_ollama", config, render_error=render_error)
    recordings = Recordings(section.max_recorded)
    app.add_middleware(Recorder, recordings=recordings)  # pyright: ignore[reportArgumentType]
    book = ScriptBook()
    models = Models(catalogue)
    add_lists(app, models, book)
    add_native(app, models, book)
    add_openai(app, models, book)
    add_steering(app, book, recordings)
    return app


async def answer(request: Request, kind: type[B], book: ScriptBook, serve: Serve[B]) -> Response:
    """Reads the body, meets the script, and serves.

    Raises:
        Invalid: the body is missing or not of this kind, in words like Ollama's.
    """
    raw = await request.body()
    path = request.url.path
    if not raw:
        raise Invalid("missing request body")
    body = parse_body(kind, raw)
    rule = book.take(path, getattr(body, "model", None) or "", raw.decode("utf-8", "replace"))
    return await replies.reply_before(rule, path) or serve(body, rule)


def parse_body(kind: type[B], raw: bytes) -> B:
    """The body, whatever Content-Type it was sent with.

    Raises:
        Invalid: it is no JSON, or a field is of another type.
    """
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Invalid(f"{where}: {first['msg']}" if where else first["msg"]) from None


async def answer_list(request: Request, book: ScriptBook, content: dict[str, Any]) -> Response:
    """Meets the script and serves what needs no body."""
    path = request.url.path
    rule = book.take(path, "", "")
    return await replies.reply_before(rule, path) or replies.reply_whole(content, rule)


def add_lists(app: FastAPI, models: Models, book: ScriptBook) -> None:
    """What is asked without a body."""
    catalogue = models.catalogue
    both = ["GET", "HEAD"]

    @app.api_route("/", methods=both, response_class=PlainTextResponse, tags=["ollama"])
    async def get_root() -> str:
        """Alive, in Ollama's words."""
        return "Ollama is running"

    @app.api_route("/api/version", methods=both, tags=["ollama"], response_class=Response)
    async def get_version(request: Request) -> Response:
        """The version that is pretended."""
        return await answer_list(request, book, {"version": VERSION})

    @app.api_route("/api/tags", methods=both, tags=["ollama"], response_class=Response)
    async def list_models(request: Request) -> Response:
        """Models that are there."""
        listed = [model.listed() for model in catalogue.models.values()]
        return await answer_list(request, book, {"models": listed})

    @app.get("/api/ps", tags=["ollama"], response_class=Response)
    async def list_running(request: Request) -> Response:
        """Models that are loaded."""
        running = [model.running() for model in models.running]
        return await answer_list(request, book, {"models": running})

    @app.get("/v1/models", tags=["openai"], response_class=Response)
    async def list_openai_models(request: Request) -> Response:
        """Models in OpenAI's shape."""
        data = [openai.model_entry(model) for model in catalogue.models.values()]
        return await answer_list(request, book, {"object": "list", "data": data})

    @app.get("/v1/models/{model:path}", tags=["openai"], response_class=Response)
    async def get_openai_model(model: str, request: Request) -> Response:
        """One model in OpenAI's shape."""
        return await answer_list(request, book, openai.model_entry(catalogue.find(model)))


def add_native(app: FastAPI, models: Models, book: ScriptBook) -> None:
    """Ollama's own routes."""

    @app.post("/api/show", tags=["ollama"], response_class=Response)
    async def show(request: Request) -> Response:
        """One model in full."""

        def serve(body: ShowBody, rule: ScriptRule) -> Response:
            model = models.catalogue.find(body.model or body.name or "")
            return replies.reply_whole(model.shown(), rule)

        return await answer(request, ShowBody, book, serve)

    @app.post("/api/chat", tags=["ollama"], response_class=Response)
    async def chat(request: Request) -> Response:
        """A chat; streams unless told not to."""

        def serve(body: ChatBody, rule: ScriptRule) -> Response:
            said = models.chat(body, rule)
            if isinstance(said, str):
                return replies.reply_whole(native.chat_moved(body.model, said), rule)
            if body.stream is False:
                return replies.reply_whole(native.chat_whole(body.model, said), rule)
            return replies.reply_lines(native.chat_stream(body.model, said), rule)

        return await answer(request, ChatBody, book, serve)

    @app.post("/api/generate", tags=["ollama"], response_class=Response)
    async def generate(request: Request) -> Response:
        """A completion; streams unless told not to."""

        def serve(body: GenerateBody, rule: ScriptRule) -> Response:
            said = models.generate(body, rule)
            if isinstance(said, str):
                return replies.reply_whole(native.generate_moved(body.model, said), rule)
            if body.stream is False:
                return replies.reply_whole(native.generate_whole(body.model, said), rule)
            return replies.reply_lines(native.generate_stream(body.model, said), rule)

        return await answer(request, GenerateBody, book, serve)

    @app.post("/api/embed", tags=["ollama"], response_class=Response)
    async def embed(request: Request) -> Response:
        """Unit vectors of texts."""

        def serve(body: EmbedBody, rule: ScriptRule) -> Response:
            vectors, tokens = models.embed(body, rule)
            return replies.reply_whole(native.embed_whole(body.model, vectors, tokens), rule)

        return await answer(request, EmbedBody, book, serve)

    @app.post("/api/embeddings", tags=["ollama"], response_class=Response)
    async def embed_old(request: Request) -> Response:
        """A vector as the model made it."""

        def serve(body: EmbeddingsBody, rule: ScriptRule) -> Response:
            vector = models.embed_old(body.model, body.prompt or "")
            return replies.reply_whole({"embedding": vector}, rule)

        return await answer(request, EmbeddingsBody, book, serve)


def add_openai(app: FastAPI, models: Models, book: ScriptBook) -> None:
    """The OpenAI-shaped routes that Ollama has as well."""

    @app.post("/v1/chat/completions", tags=["openai"], response_class=Response)
    async def complete_chat(request: Request) -> Response:
        """A chat in OpenAI's shape; does not stream unless told to."""

        def serve(body: OpenAIChatBody, rule: ScriptRule) -> Response:
            said = models.chat(openai.read_chat(body), rule)
            assert not isinstance(said, str)  # there are messages
            if not body.stream:
                return replies.reply_whole(openai.chat_whole(body.model, said), rule)
            usage = body.stream_options is not None and body.stream_options.include_usage
            return replies.reply_events(openai.chat_stream(body.model, said, usage), rule)

        return await answer(request, OpenAIChatBody, book, serve)

    @app.post("/v1/embeddings", tags=["openai"], response_class=Response)
    async def create_embeddings(request: Request) -> Response:
        """Vectors in OpenAI's shape."""

        def serve(body: OpenAIEmbeddingsBody, rule: ScriptRule) -> Response:
            asked = EmbedBody(model=body.model, input=body.input, dimensions=body.dimensions)
            vectors, tokens = models.embed(asked, rule)
            if not vectors:
                raise Invalid("invalid input")
            encoding = body.encoding_format or "float"
            content = openai.embeddings_whole(body.model, vectors, tokens, encoding)
            return replies.reply_whole(content, rule)

        return await answer(request, OpenAIEmbeddingsBody, book, serve)


def add_steering(app: FastAPI, book: ScriptBook, recordings: Recordings) -> None:
    """What tests steer it by; no Ollama has these."""

    @app.post("/_script", tags=["steering"])
    async def add_script(script: Script) -> ScriptState:
        """Adds rules behind those that are left."""
        book.add(script.rules)
        return ScriptState(rules=book.rules)

    @app.get("/_script", tags=["steering"])
    async def get_script() -> ScriptState:
        """The rules that are left."""
        return ScriptState(rules=book.rules)

    @app.delete("/_script", tags=["steering"])
    async def clear_script() -> ScriptState:
        """Forgets all rules."""
        book.clear()
        return ScriptState(rules=[])

    @app.get("/_requests", tags=["steering"])
    async def get_requests() -> RecordedRequests:
        """What was received, oldest first."""
        return RecordedRequests(requests=recordings.describe())

    @app.delete("/_requests", tags=["steering"])
    async def clear_requests() -> RecordedRequests:
        """Forgets what was received."""
        recordings.clear()
        return RecordedRequests(requests=[])
