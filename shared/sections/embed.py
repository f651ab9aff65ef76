"""[embedd] and [fake_ollama]: where vectors come from, and the Ollama that tests use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.daemons import PORTS
from shared.sections.base import DaemonSection, GiB, MiB, Port, Section

# No `@`: what follows one in a model's id is its hash.
MODEL_NAME = r"^[^@\s]+$"


class LocalEmbedder(Section):
    """[embedd.providers.<name>] of kind `local`: an ONNX model run inside embedd.

    `file` empty means the model file of the installed package; `sha256` is what either must
    have, or nothing is served.
    """

    kind: Literal["local"] = "local"
    model: str = Field(default="all-minilm-l6-v2", pattern=MODEL_NAME)
    file: Path | None = None
    sha256: str = Field(
        default="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
        pattern=r"^[0-9a-f]{64}$",
    )
    threads: int = Field(default=2, ge=1, le=64)
    batch_tokens: int = Field(default=384, ge=1)
    preload: bool = False


class RemoteEmbedder(Section):
    """What embedders on other servers have in common.

    `daemon` names a daemon of this fleet that stands in for `url`, wherever its port is.
    """

    url: str = Field(default="", pattern=r"^(https?://.+)?$")
    daemon: str = ""
    model: str = Field(pattern=MODEL_NAME)
    dimensions: bool = False
    batch: int = Field(default=64, ge=1)
    concurrency: int = Field(default=2, ge=1)
    connect_timeout_s: float = Field(default=2.0, gt=0)
    timeout_s: float = Field(default=60.0, gt=0)
    key_file: Path | None = None

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if bool(self.url) == bool(self.daemon):
            raise ValueError("set either url or daemon")
        if self.daemon and self.daemon not in PORTS:
            raise ValueError(f"daemon: there is no {self.daemon}")
        return self


class OllamaEmbedder(RemoteEmbedder):
    """[embedd.providers.<name>] of kind `ollama`: any model that the Ollama there has.

    `model` is the one meant by the provider's bare name.
    """

    kind: Literal["ollama"] = "ollama"
    digest_ttl_s: float = Field(default=10.0, ge=0)


class OpenAIEmbedder(RemoteEmbedder):
    """[embedd.providers.<name>] of kind `openai`: an endpoint that speaks POST {url}/embeddings.

    `models` are further ids that may be asked for.
    """

    kind: Literal["openai"] = "openai"
    models: tuple[Annotated[str, Field(pattern=MODEL_NAME)], ...] = ()


Embedder = Annotated[LocalEmbedder | OllamaEmbedder | OpenAIEmbedder, Field(discriminator="kind")]


class EmbeddSection(DaemonSection):
    """[embedd]: texts become vectors."""

    port: Port = PORTS["embedd"]
    max_body_bytes: int = Field(default=64 * MiB, ge=0)
    request_timeout_s: float = Field(default=600.0, gt=0)
    default_model: str = "local"
    max_texts: int = Field(default=10_000, ge=1)
    max_queued_texts: int = Field(default=20_000, ge=1)
    cache_bytes: int = Field(default=64 * MiB, ge=0)
    cache_disk_bytes: int = Field(default=GiB, ge=0)
    aliases: dict[str, str] = {"minilm": "local"}
    providers: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Embedder] = {
        "local": LocalEmbedder(),
        "ollama": OllamaEmbedder(url="http://127.0.0.1:11434", model="nomic-embed-text"),
        "fake": OllamaEmbedder(daemon="fake_ollama", model="fake-embed", dimensions=True),
    }

    @model_validator(mode="after")
    def _check_models(self) -> EmbeddSection:
        if self.max_texts > self.max_queued_texts:
            raise ValueError("max_queued_texts must be at least max_texts")
        for name, target in {"default_model": self.default_model, **self.aliases}.items():
            seen = {name}
            while target in self.aliases:
                if target in seen:
                    raise ValueError(f"aliases: {name} leads back to itself")
                seen.add(target)
                target = self.aliases[target]
            if target.partition("/")[0] not in self.providers:
                raise ValueError(f"{name}: {target} names no provider of [embedd.providers]")
        return self


class FakeModel(Section):
    """[fake_ollama.models."<name>"]: one model that fake_ollama pretends to have."""

    capabilities: tuple[Literal["completion", "tools", "thinking", "embedding"], ...]
    context_length: int = Field(default=4096, ge=8)
    embedding_length: int = Field(default=256, ge=1)


class FakeOllamaSection(DaemonSection):
    """[fake_ollama]: an Ollama for tests."""

    port: Port = PORTS["fake_ollama"]
    max_recorded: int = Field(default=1000, ge=0)
    models: dict[str, FakeModel] = {
        "fake-chat:latest": FakeModel(capabilities=("completion", "tools")),
        "fake-think:latest": FakeModel(capabilities=("completion", "tools", "thinking")),
        "fake-embed:latest": FakeModel(capabilities=("embedding",), context_length=512),
    }
