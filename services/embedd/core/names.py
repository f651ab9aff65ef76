"""Names of models: what was asked for, and the id that is stored.

An id is `provider/model@hash`, the hash being the first twelve digits of the model file's
digest where the provider tells one. Whoever stores vectors stores the id, and may ask by it
later: another file under the same name is then refused and never mixed in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from shared.errors import NotFound

HASH_DIGITS = 12
_PINNED = re.compile(rf"^(.+)@([0-9a-f]{{{HASH_DIGITS}}})$")


class Wanted(NamedTuple):
    """A provider's model as asked for; `digest` is empty when any will do."""

    provider: str
    model: str
    digest: str


def make_id(provider: str, model: str, digest: str) -> str:
    """The id under which vectors of this model are stored."""
    short = digest.removeprefix("sha256:")[:HASH_DIGITS]
    return f"{provider}/{model}@{short}" if short else f"{provider}/{model}"


def resolve_name(
    name: str, aliases: Mapping[str, str], providers: Mapping[str, Sequence[str]]
) -> Wanted:
    """What a name stands for.

    Args:
        name: an alias, a provider, `provider/model`, an id, or a model that exactly one
            provider lists.
        aliases: other names; checked by the configuration to end at a provider.
        providers: the models that each is configured with, its own default first.

    Raises:
        NotFound: with the names that would do.
    """
    target = name
    while target in aliases:
        target = aliases[target]
    pinned = _PINNED.match(target)
    digest = ""
    if pinned:
        target, digest = pinned.groups()
    provider, slash, model = target.partition("/")
    if provider in providers:
        if slash and not model:
            raise unknown_model(name, aliases, providers)
        return Wanted(provider, model or providers[provider][0], digest)
    holders = [p for p, models in providers.items() if target in models]
    if len(holders) == 1:
        return Wanted(holders[0], target, digest)
    raise unknown_model(name, aliases, providers)


def unknown_model(
    name: str, aliases: Mapping[str, str], providers: Mapping[str, Sequence[str]]
) -> NotFound:
    """The error for a name that stands for nothing, with those that do."""
    known = list_names(aliases, providers)
    return NotFound(
        f"There is no embedding model {name[:200]!r}. Known: {', '.join(known)}. "
        "GET /embed/models describes them.",
        details={"model": name[:200], "known": known},
    )


def list_names(aliases: Mapping[str, str], providers: Mapping[str, Sequence[str]]) -> list[str]:
    """Every configured name that can be asked for."""
    return sorted(aliases) + [f"{p}/{m}" for p, models in providers.items() for m in models]
