"""The providers that the configuration names."""

from __future__ import annotations

from services.embedd.store.local import LocalProvider
from services.embedd.store.minilm import MiniLM
from services.embedd.store.ollama import OllamaProvider
from services.embedd.store.openai import OpenAIProvider
from services.embedd.store.provider import Provider
from shared.config import Config
from shared.runtime import Transports
from shared.sections.embed import Embedder, LocalEmbedder, OllamaEmbedder


def build_providers(config: Config, transports: Transports | None) -> dict[str, Provider]:
    """One provider per table of [embedd.providers]; nothing is loaded or connected yet.

    Args:
        config: for the tables, the addresses of daemons they name, and the fleet's token.
        transports: in place of the network, by the daemon's or the provider's name.
    """
    return {
        name: _build(name, section, config, transports or {})
        for name, section in config.embedd.providers.items()
    }


def _build(name: str, section: Embedder, config: Config, transports: Transports) -> Provider:
    if isinstance(section, LocalEmbedder):
        file = None if section.file is None else config.base_dir / section.file
        return LocalProvider(name, section, MiniLM(file, section.sha256))
    kind = OllamaProvider if isinstance(section, OllamaEmbedder) else OpenAIProvider
    # A daemon of this fleet asks for the fleet's token; a stranger must never see it.
    return kind(
        name,
        section,
        config.daemon(section.daemon).address if section.daemon else section.url,
        config.token if section.daemon else "",
        None if section.key_file is None else config.base_dir / section.key_file,
        transports.get(section.daemon or name),
    )
