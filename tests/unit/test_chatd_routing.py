"""Which provider a name means, and what the model is called there."""

from __future__ import annotations

import pytest

from services.chatd.core.routing import Target, resolve
from shared.errors import NotFound

PROVIDERS = {"ollama", "ollama_cloud", "openrouter", "opencode", "kimi", "vllm"}
TIERS = {"fast": "small:latest", "review": "openrouter/maker/big", "judge": "judge:cloud"}


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [
        ("small", "ollama", "small"),
        ("small:7b", "ollama", "small:7b"),
        ("ollama/small", "ollama", "small"),
        # A prefix beats a suffix: the local Ollama may itself know the cloud's models.
        ("ollama/big:cloud", "ollama", "big:cloud"),
        ("big:cloud", "ollama_cloud", "big"),
        ("big:120b-cloud", "ollama_cloud", "big:120b"),
        ("Big:120B-CLOUD", "ollama_cloud", "Big:120B"),
        ("big:Cloud", "ollama_cloud", "big"),
        ("ollama_cloud/big:480b", "ollama_cloud", "big:480b"),
        ("ollama_cloud/big:480b-cloud", "ollama_cloud", "big:480b"),
        ("openrouter/maker/big", "openrouter", "maker/big"),
        ("openrouter/maker/big:cloud", "openrouter", "maker/big:cloud"),
        ("kimi/big", "kimi", "big"),
        ("opencode/big-1-2", "opencode", "big-1-2"),
        ("vllm/maker/small", "vllm", "maker/small"),
        # An unknown prefix is part of a bare name.
        ("maker/small", "ollama", "maker/small"),
        ("maker/small:cloud", "ollama_cloud", "maker/small"),
        ("cloud", "ollama", "cloud"),
        (":cloud", "ollama", ":cloud"),
        ("cloudy", "ollama", "cloudy"),
    ],
)
def test_prefix_suffix_and_bare_names(name: str, provider: str, model: str) -> None:
    assert resolve(name, TIERS, PROVIDERS) == Target(name, provider, model)


def test_tiers_are_replaced_by_their_models() -> None:
    assert resolve("tier/fast", TIERS, PROVIDERS) == ("small:latest", "ollama", "small:latest")
    assert resolve("tier/review", TIERS, PROVIDERS) == (
        "openrouter/maker/big",
        "openrouter",
        "maker/big",
    )
    assert resolve("tier/judge", TIERS, PROVIDERS).provider == "ollama_cloud"
    with pytest.raises(NotFound, match="has: fast, review, judge"):
        resolve("tier/none", TIERS, PROVIDERS)


def test_a_provider_alone_is_no_model() -> None:
    with pytest.raises(NotFound, match="kimi/<model>"):
        resolve("kimi/", TIERS, PROVIDERS)
