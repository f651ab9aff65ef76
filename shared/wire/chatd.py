"""chatd: its own routes."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from shared.wire.base import Response
from shared.wire.chatd_openai import ChatFields, OpenAICall


class ChatRequest(ChatFields):
    """POST /chat. An unknown field is an error, so that a typo is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ChatUsage(Response):
    """Tokens and what they cost.

    `cost_usd` is null where neither the provider nor chatd.prices tells; `estimated` says
    that the provider counted no tokens, and chatd reckoned them from the texts.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float | None = None
    estimated: bool = False


class ChatResponse(Response):
    """An answer. `model` can be asked for again; `provider` is who gave it."""

    model: str
    provider: str
    content: str
    reasoning: str | None = None
    tool_calls: list[OpenAICall] | None = None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]
    usage: ChatUsage
    latency_ms: float


class ProviderState(Response):
    """One provider in full. `status` is ok or why it cannot be asked; `models` only if asked."""

    registered: bool
    status: str
    breaker: Literal["closed", "open", "half_open"]
    under_way: int
    models: int | None = None


class TierState(Response):
    """One tier of [models]: ok, gone, unregistered, or unknown where its provider is away."""

    model: str
    provider: str
    status: Literal["ok", "gone", "unregistered", "unknown"]
    advice: str = ""


class Providers(Response):
    """GET /chat/providers. `details` and `tiers` come with ?probe=1, which asks each one."""

    providers: dict[str, bool]
    details: dict[str, ProviderState] | None = None
    tiers: dict[str, TierState] | None = None


class UsageRow(Response):
    """What one model of one provider has been asked for, since the ledger began."""

    provider: str
    model: str
    calls: int
    failed: int
    cancelled: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    unpriced_calls: int
    estimated_calls: int


class UsageReport(Response):
    """GET /chat/usage."""

    rows: list[UsageRow]
    calls: int
    cost_usd: float
