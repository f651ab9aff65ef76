"""Texts in, vectors out: names resolved, the cache asked, the rest computed once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from services.embedd.core.keys import KeyMaker
from services.embedd.core.lru import Entry, VectorCache
from services.embedd.core.names import resolve_name
from services.embedd.store.disk import DiskCache
from services.embedd.store.figures import Figures
from services.embedd.store.lane import Lane
from services.embedd.store.provider import Model, Provider
from shared.errors import LakehouseError, RateLimited
from shared.sections.embed import EmbeddSection
from shared.wire.embedd import EmbedModel

# Texts whose keys are made and looked up before others get their turn.
LOOK_UP_AT_ONCE = 512
# Lanes to idle models that are remembered.
IDLE_LANES = 32


class Embedded(NamedTuple):
    """Vectors of some texts in order, and the id of the model they are from."""

    model: str
    entries: list[Entry]

    @property
    def dim(self) -> int:
        """Numbers in each vector."""
        return len(self.entries[0].vector) // 4

    @property
    def tokens(self) -> int:
        """Tokens read of all texts."""
        return sum(entry.tokens for entry in self.entries)

    @property
    def truncated(self) -> list[int]:
        """Indices of texts that were read in part."""
        return [i for i, entry in enumerate(self.entries) if entry.truncated]


class Embeddings:
    """The daemon's work, without HTTP.

    Args:
        section: names and limits.
        providers: by name.
        figures: what is counted.
        disk: where vectors survive a restart; None for nowhere.
    """

    def __init__(
        self,
        section: EmbeddSection,
        providers: Mapping[str, Provider],
        figures: Figures,
        disk: DiskCache | None,
    ) -> None:
        self._section = section
        self._providers = providers
        self._models = {name: provider.models for name, provider in providers.items()}
        self._figures = figures
        self._cache = VectorCache(section.cache_bytes)
        self._disk = disk
        self._keys: dict[tuple[str, ...], KeyMaker] = {}
        self._lanes: dict[tuple[str, ...], Lane[Any]] = {}
        figures.watch(lambda: self._cache.bytes, lambda: len(self._cache))

    async def start(self) -> None:
        """Prepares every provider."""
        for provider in self._providers.values():
            await provider.start()

    async def aclose(self) -> None:
        """Ends the work under way and lets go of everything."""
        for lane in self._lanes.values():
            await lane.aclose()
        for provider in self._providers.values():
            await provider.aclose()
        if self._disk is not None:
            await self._disk.aclose()

    async def embed(
        self, texts: Sequence[str], name: str | None, dimensions: int | None
    ) -> Embedded:
        """One vector per text, all of one model.

        Raises:
            NotFound: no such model. Invalid: not these dimensions, or a text is refused.
            RateLimited: too much waits already. Unavailable: the provider does not answer;
            what was computed before stays cached.
        """
        wanted = resolve_name(
            name or self._section.default_model, self._section.aliases, self._models
        )
        provider = self._providers[wanted.provider]
        model = await provider.resolve(wanted, dimensions)
        make_key = self._key_maker(model).key
        found: dict[bytes, Entry] = {}
        missing: dict[bytes, str] = {}
        keys: list[bytes] = []
        for at, text in enumerate(texts):
            if at and at % LOOK_UP_AT_ONCE == 0:
                await asyncio.sleep(0)
            key = make_key(text)
            keys.append(key)
            entry = self._cache.get(key)
            if entry is not None:
                found[key] = entry
            else:
                missing[key] = text
        self._figures.memory_hits.inc(len(keys) - len(missing))
        if missing:
            found.update(await self._find_on_disk(missing))
            rest = {key: text for key, text in missing.items() if key not in found}
            if rest:
                found.update(await self._compute(provider, model, rest))
        return Embedded(model.id, [found[key] for key in keys])

    async def describe(self) -> tuple[str, list[EmbedModel]]:
        """The default's id (its name where it does not answer) and every model."""
        aliases = self._section.aliases
        lists = await asyncio.gather(*(p.describe() for p in self._providers.values()))
        default = await self._find_id(self._section.default_model)
        ids = {alias: await self._find_id(alias) for alias in sorted(aliases)}
        models = [
            model.model_copy(
                update={
                    "default": model.id == default,
                    "aliases": [alias for alias, found in ids.items() if found == model.id],
                }
            )
            for models in lists
            for model in models
        ]
        return default, models

    async def check(self) -> dict[str, str]:
        """Whether the default's provider answers; for /ready."""
        section = self._section
        wanted = resolve_name(section.default_model, section.aliases, self._models)
        return {wanted.provider: await self._providers[wanted.provider].check()}

    async def _find_id(self, name: str) -> str:
        wanted = resolve_name(name, self._section.aliases, self._models)
        try:
            return (await self._providers[wanted.provider].resolve(wanted, None)).id
        except LakehouseError:
            return name

    def _key_maker(self, model: Model) -> KeyMaker:
        maker = self._keys.get(model.recipe)
        if maker is None:
            if len(self._keys) >= IDLE_LANES:
                self._keys.clear()
            maker = self._keys[model.recipe] = KeyMaker(model.recipe)
        return maker

    async def _find_on_disk(self, missing: Mapping[bytes, str]) -> dict[bytes, Entry]:
        if self._disk is None:
            return {}
        found = await self._disk.find(list(missing))
        for key, entry in found.items():
            self._cache.put(key, entry)
        self._figures.disk_hits.inc(len(found))
        # Others may have computed some of them while the disk was read.
        for key in missing:
            if key not in found and (entry := self._cache.get(key)) is not None:
                found[key] = entry
        return found

    async def _compute(
        self, provider: Provider, model: Model, texts: Mapping[bytes, str]
    ) -> dict[bytes, Entry]:
        lane = self._lane(provider, model)
        in_hand = sum(lane.in_hand for lane in self._lanes.values())
        limit = self._section.max_queued_texts
        if in_hand + lane.count_new(texts) > limit:
            raise RateLimited(
                f"{in_hand} texts wait to be embedded already; at most {limit} may. "
                "Try again shortly.",
                details={"limit": limit},
                headers={"Retry-After": "1"},
            )
        self._figures.misses.inc(len(texts))
        return await lane.fetch(texts)

    def _lane(self, provider: Provider, model: Model) -> Lane[Any]:
        lane = self._lanes.get(model.recipe)
        if lane is None:
            if len(self._lanes) >= IDLE_LANES:
                idle = [recipe for recipe, lane in self._lanes.items() if lane.is_idle]
                for recipe in idle:
                    del self._lanes[recipe]
            figures = self._figures.of_provider(provider.name)
            lane = provider.make_lane(model, partial(self._keep), figures)
            self._lanes[model.recipe] = lane
        return lane

    def _keep(self, key: bytes, entry: Entry) -> None:
        self._cache.put(key, entry)
        if self._disk is not None:
            self._disk.keep(key, entry)
