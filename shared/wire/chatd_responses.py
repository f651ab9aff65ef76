"""chatd: OpenAI's responses, stateless."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.wire.base import Response


class ResponsesBody(BaseModel):
    """Base of what clients send inside a request."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ItemPart(ResponsesBody):
    """A piece of a message."""

    type: str
    text: str = ""
    refusal: str = ""
    image_url: str | None = None


class Item(ResponsesBody):
    """One item of the input; which fields it has follows from its type."""

    type: str = "message"
    role: str = ""
    content: str | list[ItemPart] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str | list[ItemPart] | None = None


class ResponsesTool(ResponsesBody):
    """A tool that may be called; functions are the only kind here."""

    type: str
    name: str = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ResponsesNamed(ResponsesBody):
    """The one tool to call."""

    type: Literal["function"]
    name: str


class TextFormat(BaseModel):
    """The form of the answer."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str = "answer"
    description: str | None = None
    value: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextConfig(ResponsesBody):
    """How the text is to be."""

    format: TextFormat | None = None


class Reasoning(ResponsesBody):
    """How hard to think."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None


class ResponsesRequest(BaseModel):
    """POST /v1/responses. Nothing is stored, so nothing can be referred to later."""

    model_config = ConfigDict(extra="allow", frozen=True)

    model: str = Field(min_length=1, max_length=300)
    input: str | list[Item]
    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = None
    top_p: float | None = None
    tools: list[ResponsesTool] | None = None
    tool_choice: Literal["auto", "none", "required"] | ResponsesNamed | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None


class ResponsesResponse(Response):
    """An answer; `output` holds reasoning, messages and function calls."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["completed", "incomplete"]
    model: str
    output: list[dict[str, Any]]
    usage: dict[str, Any] | None = None
