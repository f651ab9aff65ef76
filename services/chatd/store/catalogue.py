"""Which models there are: asked of the providers, and believed for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from services.chatd.core.faults import Fault, error_of
from services.chatd.core.routing import CLOUD, LOCAL, TIER, resolve, strip_cloud
from services.chatd.store.provider import Provider
from shared.errors import NotFound
from shared.wire.chatd import Providers, ProviderState, TierState
from shared.wire.chatd_openai import OpenAIModel, OpenAIModels


class Catalogue:
    """Models and tiers.

    Args:
        providers: by name.
        tiers: models of [models] by tier.
        ttl_s: how long a list is believed.
    """

    def __init__(
        self, providers: Mapping[str, Provider], tiers: Mapping[str, str], ttl_s: float
    ) -> None:
        self._providers = providers
        self._tiers = tiers
        self._ttl_s = ttl_s
        self._lists: dict[str, tuple[float, list[str] | str]] = {}
        self._asking = asyncio.Lock()

    async def list_models(self) -> OpenAIModels:
        """Tiers, then the models of every provider that answers."""
        found = [OpenAIModel(id=f"{TIER}{tier}", owned_by="lakehouse") for tier in self._tiers]
        for name, models in (await self._ask_all(self._ttl_s)).items():
            if isinstance(models, list):
                found += [
                    OpenAIModel(id=_public_name(name, model, self._providers), owned_by=name)
                    for model in models
                ]
        return OpenAIModels(data=found)

    async def find_model(self, name: str) -> OpenAIModel:
        """One model or tier.

        Raises:
            NotFound: there is none of that name.
        """
        for model in (await self.list_models()).data:
            if model.id in (name, f"{name}:latest"):
                return model
        raise NotFound(
            f"There is no model {name[:200]!r}. GET /v1/models lists them.",
            details={"model": name[:200]},
        )

    async def describe(self, probe: bool) -> Providers:
        """Who is registered; with `probe` also who answers, and whether tiers have their
        models."""
        registered = {name: each.registered for name, each in self._providers.items()}
        if not probe:
            return Providers(providers=registered)
        lists = await self._ask_all(0.0)
        now = time.monotonic()
        details: dict[str, ProviderState] = {}
        for name, provider in self._providers.items():
            models = lists.get(name)
            told = provider.place.missing if models is None else models
            details[name] = ProviderState(
                registered=provider.registered,
                status=told if isinstance(told, str) else "ok",
                breaker=provider.breaker.state(now),
                under_way=provider.slots.active,
                models=len(told) if isinstance(told, list) else None,
            )
        tiers = {tier: self._describe_tier(model, lists) for tier, model in self._tiers.items()}
        return Providers(providers=registered, details=details, tiers=tiers)

    def _describe_tier(self, model: str, lists: Mapping[str, list[str] | str]) -> TierState:
        target = resolve(model, self._tiers, self._providers)
        provider = self._providers.get(target.provider)
        if provider is None or not provider.registered:
            advice = provider.place.missing if provider is not None else "Add its table."
            return TierState(
                model=model, provider=target.provider, status="unregistered", advice=advice
            )
        models = lists.get(target.provider)
        if not isinstance(models, list):
            return TierState(
                model=model, provider=target.provider, status="unknown", advice=models or ""
            )
        known = set(models)
        if target.provider == CLOUD:
            known |= {strip_cloud(each) for each in models}
        if target.model in known or f"{target.model}:latest" in known:
            return TierState(model=model, provider=target.provider, status="ok")
        pull = f" Run: ollama pull {target.model}." if target.provider == LOCAL else ""
        return TierState(
            model=model,
            provider=target.provider,
            status="gone",
            advice=f"{target.provider} has no {target.model}. Name another in [models].{pull}",
        )

    async def _ask_all(self, max_age_s: float) -> dict[str, list[str] | str]:
        """Each registered provider's models, or why it does not tell them."""
        async with self._asking:
            now = time.monotonic()
            asked = [
                provider
                for name, provider in self._providers.items()
                if provider.registered
                and (name not in self._lists or now - self._lists[name][0] >= max_age_s)
            ]
            answers = await asyncio.gather(*map(_ask, asked))
            for provider, answer in zip(asked, answers, strict=True):
                self._lists[provider.name] = (time.monotonic(), answer)
        return {name: models for name, (_, models) in self._lists.items()}


async def _ask(provider: Provider) -> list[str] | str:
    try:
        return await provider.list_models()
    except Fault as fault:
        return error_of(fault, provider.name, "list of models").message


def _public_name(provider: str, model: str, providers: Mapping[str, Provider]) -> str:
    if provider == LOCAL and resolve(model, {}, providers) == (model, LOCAL, model):
        return model
    return f"{provider}/{model}"
