"""[chatd]: where chats go, what they may cost in time and tries, and what they cost in money."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from shared.daemons import PORTS
from shared.sections.base import DaemonSection, MiB, Port, Section

Wire = Literal["ollama", "chat", "messages", "responses", "gemini"]
ProviderName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
ModelName = Annotated[str, Field(min_length=1, max_length=300)]
Dollars = Annotated[float, Field(ge=0)]


class ChatProvider(Section):
    """[chatd.providers.<name>]: a server of models, asked for as `<name>/<model>`.

    `daemon` names a daemon of this fleet that stands in for `url`, wherever its port is.
    `wires` gives models, by patterns, another protocol than `wire`.
    """

    url: str = Field(default="", pattern=r"^(https?://.+)?$")
    daemon: str = ""
    wire: Wire = "chat"
    wires: dict[str, Wire] = {}
    key: str = Field(default="", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")
    concurrency: int = Field(default=16, ge=1)
    queue: int = Field(default=64, ge=0)
    attempts: int = Field(default=3, ge=1, le=10)
    connect_timeout_s: float = Field(default=5.0, gt=0)
    first_token_timeout_s: float = Field(default=120.0, gt=0)
    chunk_timeout_s: float = Field(default=60.0, gt=0)
    total_timeout_s: float = Field(default=590.0, gt=0)
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    messages_max_tokens: int = Field(default=4096, ge=1)
    reasoning_field: Literal["reasoning_content", "reasoning"] = "reasoning_content"
    fixed_sampling: tuple[str, ...] = ()
    send: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if bool(self.url) == bool(self.daemon):
            raise ValueError("set either url or daemon")
        if self.daemon and self.daemon not in PORTS:
            raise ValueError(f"daemon: there is no {self.daemon}")
        if self.daemon and self.key:
            raise ValueError("key: a daemon of the fleet takes the fleet's token")
        return self


class ChatPrice(Section):
    """[chatd.prices."<provider>/<model>"]: US dollars for a million tokens.

    Without a price of their own, cached tokens cost what others do.
    """

    input: Dollars
    output: Dollars
    cached: Dollars | None = None
    cache_written: Dollars | None = None


class ChatdSection(DaemonSection):
    """[chatd]: one edge for local and cloud models."""

    port: Port = PORTS["chatd"]
    max_body_bytes: int = Field(default=64 * MiB, ge=0)
    max_concurrency: int = Field(default=1024, ge=1)
    request_timeout_s: float = Field(default=600.0, gt=0)
    keys_dir: Path = Path("/etc/lakehouse")
    max_attempts: int = Field(default=6, ge=1, le=50)
    retry_base_s: float = Field(default=0.25, gt=0)
    retry_max_s: float = Field(default=8.0, gt=0)
    retry_after_max_s: float = Field(default=10.0, ge=0)
    breaker_failures: int = Field(default=5, ge=1)
    breaker_open_s: float = Field(default=15.0, gt=0)
    max_answer_bytes: int = Field(default=64 * MiB, ge=1024)
    max_event_bytes: int = Field(default=8 * MiB, ge=1024)
    models_ttl_s: float = Field(default=60.0, ge=0)
    probe_timeout_s: float = Field(default=3.0, gt=0)
    checkpoint_records: int = Field(default=10_000, ge=10)
    cache_mb: int = Field(default=0, ge=0)
    cache_ttl_s: float = Field(default=3600.0, gt=0)
    fallbacks: dict[ModelName, tuple[ModelName, ...]] = {}
    prices: dict[str, ChatPrice] = {
        "ollama/*": ChatPrice(input=0, output=0),
        "fake/*": ChatPrice(input=0, output=0),
    }
    providers: dict[ProviderName, ChatProvider] = {
        "ollama": ChatProvider(url="http://127.0.0.1:11434", wire="ollama", concurrency=4),
        "ollama_cloud": ChatProvider(
            url="https://ollama.com", wire="ollama", key="OLLAMA_CLOUD_KEY"
        ),
        "openrouter": ChatProvider(
            url="https://openrouter.ai/api/v1",
            key="OPENROUTER_API_KEY",
            reasoning_field="reasoning",
            send={"usage": {"include": True}},
        ),
        "opencode": ChatProvider(
            url="https://opencode.ai/zen/v1",
            key="OPENCODE_API_KEY",
            wires={"gpt-*": "responses", "claude-*": "messages", "gemini-*": "gemini"},
        ),
        "kimi": ChatProvider(
            url="https://api.moonshot.ai/v1",
            key="KIMI_API_KEY",
            max_tokens_field="max_completion_tokens",
            fixed_sampling=("kimi-*",),
        ),
        "fake": ChatProvider(daemon="fake_ollama", wire="ollama"),
    }

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if "tier" in self.providers:
            raise ValueError("providers.tier: the name is taken by tier/<name>")
        for name, others in self.fallbacks.items():
            if name in others:
                raise ValueError(f"fallbacks.{name}: leads back to itself")
        return self
