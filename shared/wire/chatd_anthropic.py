"""chatd: Anthropic's messages, as its SDK sends and reads them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.wire.base import Response


class AnthropicBody(BaseModel):
    """Base of what Anthropic's clients send inside a request."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Source(AnthropicBody):
    """Where an image is."""

    type: str
    media_type: str = ""
    data: str = ""
    url: str = ""


class Block(AnthropicBody):
    """A piece of a message; which fields it has follows from its type."""

    type: str
    text: str = ""
    source: Source | None = None
    id: str = ""
    name: str = ""
    input: dict[str, Any] | None = None
    tool_use_id: str = ""
    content: str | list[Block] | None = None
    is_error: bool = False
    cache_control: dict[str, Any] | None = None
    thinking: str = ""
    signature: str = ""


class AnthropicMessage(AnthropicBody):
    """One turn."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class AnthropicTool(AnthropicBody):
    """A tool that may be called; those that Anthropic's servers run have another type."""

    type: str | None = None
    name: str = Field(min_length=1)
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    cache_control: dict[str, Any] | None = None


class AnthropicChoice(AnthropicBody):
    """Whether tools are called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str = ""
    disable_parallel_tool_use: bool | None = None


class OutputFormat(BaseModel):
    """The form of the answer."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    type: Literal["json_schema"] = "json_schema"
    value: dict[str, Any] = Field(alias="schema")


class OutputConfig(AnthropicBody):
    """How hard to think, and the form of the answer."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class CountTokensRequest(BaseModel):
    """POST /v1/messages/count_tokens."""

    model_config = ConfigDict(extra="allow", frozen=True)

    model: str = Field(min_length=1, max_length=300)
    messages: list[AnthropicMessage] = Field(min_length=1)
    system: str | list[Block] | None = None
    tools: list[AnthropicTool] | None = None
    tool_choice: AnthropicChoice | None = None
    output_config: OutputConfig | None = None


class MessagesRequest(CountTokensRequest):
    """POST /v1/messages. Further fields go on to providers that speak this protocol."""

    max_tokens: int = Field(ge=1)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None


class TokenCount(Response):
    """Tokens of a request."""

    input_tokens: int


class MessagesUsage(Response):
    """Tokens; the input without what was cached."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0


class MessagesResponse(Response):
    """An answer."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[dict[str, Any]]
    stop_reason: str
    stop_sequence: str | None = None
    usage: MessagesUsage
