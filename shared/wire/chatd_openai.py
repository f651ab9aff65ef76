"""chatd: OpenAI's chat completions and models, as its SDKs send and read them.

What is not known here is kept and goes on to providers that speak this protocol.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.wire.base import Response


class OpenAIBody(BaseModel):
    """Base of what OpenAI's clients send inside a request."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ImageUrl(OpenAIBody):
    """An image by address or as a data: URL."""

    url: str


class ContentPart(OpenAIBody):
    """A piece of a message."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: ImageUrl | None = None


class CalledFunction(OpenAIBody):
    """A function that was called; arguments are JSON text."""

    name: str
    arguments: str = ""


class ChatToolCall(OpenAIBody):
    """A call that an assistant made."""

    id: str
    type: str = "function"
    function: CalledFunction


class ChatMessage(OpenAIBody):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ChatToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class ToolFunction(OpenAIBody):
    """A function that may be called."""

    name: str = Field(min_length=1)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChatTool(OpenAIBody):
    """A tool that may be called; functions are the only kind here."""

    type: Literal["function"] = "function"
    function: ToolFunction


class NamedFunction(OpenAIBody):
    """The function of a tool choice."""

    name: str


class NamedTool(OpenAIBody):
    """The one tool to call."""

    type: Literal["function"] = "function"
    function: NamedFunction


class JsonSchema(BaseModel):
    """A schema that the answer has to have."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    name: str = "answer"
    description: str | None = None
    # `schema` is a method of every pydantic model.
    value: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(OpenAIBody):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None


class StreamOptions(OpenAIBody):
    """What a stream shows beside the answer."""

    include_usage: bool | None = None


class ChatFields(BaseModel):
    """What /chat and /v1/chat/completions are asked with.

    A sampling field that is absent stays absent to the provider.
    """

    model: str = Field(min_length=1, max_length=300)
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    tools: list[ChatTool] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )
    stream: bool | None = None


class OpenAIChatRequest(ChatFields):
    """POST /v1/chat/completions. Further fields are kept in `model_extra`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    stream_options: StreamOptions | None = None
    n: int | None = None
    logprobs: bool | None = None
    functions: Any = None
    function_call: Any = None
    modalities: list[str] | None = None


class OpenAIFunctionCall(Response):
    """A function that the answer calls."""

    name: str
    arguments: str


class OpenAICall(Response):
    """A tool call of the answer."""

    id: str
    type: Literal["function"] = "function"
    function: OpenAIFunctionCall


class OpenAIMessage(Response):
    """The answer's message."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[OpenAICall] | None = None


class OpenAIChoice(Response):
    """The one choice."""

    index: int = 0
    message: OpenAIMessage
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]
    logprobs: None = None


class OpenAIChatUsage(Response):
    """Tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class OpenAIChatResponse(Response):
    """A chat completion."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[OpenAIChoice]
    usage: OpenAIChatUsage


class OpenAIModel(Response):
    """A model, or a tier, that can be asked for."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str


class OpenAIModels(Response):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[OpenAIModel]
