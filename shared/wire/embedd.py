"""embedd: texts become vectors."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.wire.base import Request, Response

ARROW_STREAM = "application/vnd.apache.arrow.stream"


class EmbedRequest(Request):
    """Texts to embed, in order.

    `model` is an alias, a provider, `provider/model` or an id of an earlier answer; without
    it the configured default. `dimensions` cuts the vectors where the model allows it.
    """

    texts: list[str]
    model: str | None = Field(default=None, min_length=1, max_length=300)
    dimensions: int | None = Field(default=None, ge=1, le=65_536)


class EmbedResponse(Response):
    """One vector per text, in order.

    `model` is the model's own id, whatever name it was asked for by. `truncated` holds the
    indices of texts of which the model read only the beginning (empty where the provider
    does not tell); `tokens` is what was read of all texts.
    """

    model: str
    dim: int
    vectors: list[list[float]]
    tokens: int
    truncated: list[int] = []


class OpenAIEmbedRequest(BaseModel):
    """OpenAI's embeddings request; fields it does not know are ignored, as there."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    input: Any
    model: str | None = Field(default=None, min_length=1, max_length=300)
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1, le=65_536)


class OpenAIEmbedding(Response):
    """One vector: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class OpenAIUsage(Response):
    """Tokens read; embeddings have no completion."""

    prompt_tokens: int
    total_tokens: int


class OpenAIEmbedResponse(Response):
    """OpenAI's embeddings answer."""

    object: Literal["list"] = "list"
    data: list[OpenAIEmbedding]
    model: str
    usage: OpenAIUsage


class EmbedModel(Response):
    """One model that can be asked for.

    `dim` and `max_tokens` are null where only the provider knows; `status` is "ok" or why
    the model cannot be used now.
    """

    id: str
    provider: str
    model: str
    aliases: list[str] = []
    default: bool = False
    dim: int | None = None
    max_tokens: int | None = None
    dimensions: bool = False
    status: str


class EmbedModels(Response):
    """All models, and the id of the one that a request without a model gets (if it answers)."""

    default: str
    models: list[EmbedModel]
