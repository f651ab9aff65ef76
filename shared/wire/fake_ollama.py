"""fake_ollama: Ollama's own requests, and the routes that tests steer it by.

Ollama ignores fields that it does not know, and takes null for absent; so do these.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.wire.base import Request, Response


class OllamaBody(BaseModel):
    """Base of what Ollama's clients send."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Function(OllamaBody):
    """A function that was called, or may be."""

    name: str = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None
    arguments: dict[str, Any] | None = None


class ToolCall(OllamaBody):
    """One call that a model made. Arguments are an object, not a string."""

    id: str | None = None
    function: Function


class Tool(OllamaBody):
    """A function that a model may call."""

    type: str | None = "function"
    function: Function


class Message(OllamaBody):
    """One message of a chat."""

    role: str
    content: str | None = ""
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None


class ChatBody(OllamaBody):
    """POST /api/chat; streams unless `stream` is false."""

    model: str = ""
    messages: list[Message] | None = None
    tools: list[Tool] | None = None
    format: Any = None
    options: dict[str, Any] | None = None
    stream: bool | None = None
    think: bool | str | None = None
    keep_alive: float | str | None = None


class GenerateBody(OllamaBody):
    """POST /api/generate; streams unless `stream` is false."""

    model: str = ""
    prompt: str | None = ""
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[str] | None = None
    format: Any = None
    options: dict[str, Any] | None = None
    stream: bool | None = None
    think: bool | str | None = None
    keep_alive: float | str | None = None


class EmbedBody(OllamaBody):
    """POST /api/embed."""

    model: str = ""
    input: Any = None
    truncate: bool | None = None
    dimensions: int | None = None
    options: dict[str, Any] | None = None
    keep_alive: float | str | None = None


class EmbeddingsBody(OllamaBody):
    """POST /api/embeddings, the older form."""

    model: str = ""
    prompt: str | None = ""
    options: dict[str, Any] | None = None
    keep_alive: float | str | None = None


class ShowBody(OllamaBody):
    """POST /api/show; `name` is the older spelling."""

    model: str | None = None
    name: str | None = None


class OpenAIFunction(OllamaBody):
    """A function call in OpenAI's shape: arguments are JSON text."""

    name: str = ""
    arguments: str | None = None


class OpenAIToolCall(OllamaBody):
    """One call in OpenAI's shape."""

    id: str | None = None
    function: OpenAIFunction


class OpenAIMessage(OllamaBody):
    """One message in OpenAI's shape."""

    role: str = "user"
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[OpenAIToolCall] | None = None


class ResponseFormat(OllamaBody):
    """OpenAI's response_format."""

    type: str = "text"
    json_schema: dict[str, Any] | None = None


class StreamOptions(OllamaBody):
    """OpenAI's stream_options."""

    include_usage: bool = False


class OpenAIChatBody(OllamaBody):
    """POST /v1/chat/completions. `tool_choice` and the sampling fields make no difference."""

    model: str = ""
    messages: list[OpenAIMessage] = []
    tools: list[Tool] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None


class OpenAIEmbeddingsBody(OllamaBody):
    """POST /v1/embeddings."""

    model: str = ""
    input: Any = None
    encoding_format: str | None = None
    dimensions: int | None = None


class ScriptedCall(Request):
    """A tool call that a script puts into an answer."""

    name: str
    arguments: dict[str, Any] = {}


class ScriptRule(Request):
    """What happens to the next requests that match; the first rule that does is used.

    A rule matches when all of `path`, `model` and `contains` (text in the raw body) that are
    given do. It is used `times` times, or for ever with null. Without any of the fields
    below it only lets a request pass.
    """

    path: str | None = None
    model: str | None = None
    contains: str | None = None
    times: int | None = Field(default=1, ge=1)

    delay_s: float = Field(default=0.0, ge=0, le=600)
    """Silence before the answer begins."""
    chunk_delay_s: float = Field(default=0.0, ge=0, le=600)
    """Silence before each piece of a stream."""
    status: int | None = Field(default=None, ge=200, le=599)
    """An error with this status, in the protocol's shape."""
    error: str = "scripted failure"
    headers: dict[str, str] = {}
    """Further headers of the answer (Retry-After)."""
    body: str | None = None
    """The whole answer as it stands, with `status` or 200."""
    cut_after_chunks: int | None = Field(default=None, ge=0)
    """Breaks the connection after so many pieces; a whole answer is cut in its middle."""
    error_after_chunks: int | None = Field(default=None, ge=0)
    """Says `error` in the stream after so many pieces, and ends it."""
    malformed: bool = False
    """The second piece of a stream, or the whole answer, is no JSON."""

    content: str | None = None
    thinking: str | None = None
    tool_calls: list[ScriptedCall] | None = None
    done_reason: Literal["stop", "length"] | None = None
    embeddings: list[list[float]] | None = None


class Script(Request):
    """POST /_script: rules to add."""

    rules: list[ScriptRule] = Field(min_length=1)


class ScriptState(Response):
    """The rules that are left, in order."""

    rules: list[ScriptRule]


class RecordedRequest(Response):
    """One request as it came. `json_body` is null when the body is none.

    `ended` is how it went: done, cut (the script broke it off), client_gone, or open.
    """

    number: int
    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: str
    json_body: Any = None
    status: int
    ended: Literal["open", "done", "cut", "client_gone"]
    seconds: float


class RecordedRequests(Response):
    """What was received, oldest first."""

    requests: list[RecordedRequest]
