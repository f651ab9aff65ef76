"""Which provider a model's name means, and what the model is called there.

A prefix beats a suffix, and an unknown prefix is part of a bare name: model names have slashes
of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from shared.errors import NotFound

LOCAL = "ollama"
CLOUD = "ollama_cloud"
TIER = "tier/"
_CLOUD_SUFFIXES = (":cloud", "-cloud")


class Target(NamedTuple):
    """Where a chat goes.

    Attributes:
        name: what can be asked for again: a tier is replaced by its model.
        provider: the provider's name.
        model: what the model is called there.
    """

    name: str
    provider: str
    model: str


def resolve(name: str, tiers: Mapping[str, str], providers: Collection[str]) -> Target:
    """The target of a name.

    Args:
        name: as the caller gave it.
        tiers: models of [models] by tier.
        providers: names of all configured providers, with a key or without.

    Raises:
        NotFound: an unknown tier, or nothing behind the prefix.
    """
    name = resolve_tier(name.strip(), tiers)
    prefix, slash, rest = name.partition("/")
    if slash and prefix in providers:
        if not rest:
            raise NotFound(
                f"{name} names a provider and no model. Ask for {prefix}/<model>.",
                details={"model": name},
            )
        return Target(name, prefix, strip_cloud(rest) if prefix == CLOUD else rest)
    if has_cloud_suffix(name):
        return Target(name, CLOUD, strip_cloud(name))
    return Target(name, LOCAL, name)


def resolve_tier(name: str, tiers: Mapping[str, str]) -> str:
    """The model that `tier/<name>` stands for; other names as they are.

    Raises:
        NotFound: there is no such tier.
    """
    if not name.startswith(TIER):
        return name
    tier = name.removeprefix(TIER)
    if tier not in tiers:
        raise NotFound(
            f"There is no tier {tier[:60]!r}. [models] has: {', '.join(tiers)}.",
            details={"model": name[:60], "tiers": list(tiers)},
        )
    return tiers[tier]


def has_cloud_suffix(name: str) -> bool:
    """Whether a bare name means the model that Ollama's own servers run."""
    lowered = name.lower()
    return any(lowered.endswith(s) and len(lowered) > len(s) for s in _CLOUD_SUFFIXES)


def strip_cloud(model: str) -> str:
    """The name that Ollama's servers know the model by."""
    return model[: -len(_CLOUD_SUFFIXES[0])] if has_cloud_suffix(model) else model
