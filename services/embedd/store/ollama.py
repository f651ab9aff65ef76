"""Embeddings from an Ollama, through its own Python client.

A model's name is a moving target there (`ollama pull` replaces it), so its digest is part of
the id under which vectors are stored, and of the cache's key.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from typing import Any

import anyio.to_thread

from services.embedd.core.names import Wanted, make_id
from services.embedd.core.vectors import pack_vector
from services.embedd.store.provider import Model
from services.embedd.store.remote import CHECK_S, TRANSPORT_ERRORS, RemoteProvider, check_pin
from shared.errors import LakehouseError, NotFound, Unavailable
from shared.sections.embed import OllamaEmbedder
from shared.wire.embedd import EmbedModel

# Models named in an error message.
NAMED = 20


class OllamaProvider(RemoteProvider):
    """Any model that the Ollama at the address has."""

    ADVICE = "Start it (ollama serve) or mend its url."
    _section: OllamaEmbedder

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._ollama: Any = None
        self._client: Any = None
        self._digests: dict[str, str] = {}
        self._believed_until = 0.0
        self._asking = asyncio.Lock()

    async def resolve(self, wanted: Wanted, dimensions: int | None) -> Model:
        """The model with the digest that it has there now."""
        name = wanted.model if ":" in wanted.model.rpartition("/")[2] else f"{wanted.model}:latest"
        digests = await self._ask_digests(name)
        if name not in digests:
            there = ", ".join(sorted(digests)[:NAMED]) or "none"
            raise NotFound(
                f"The Ollama of provider {self.name} has no {name}. Run: ollama pull "
                f"{wanted.model}. It has: {there}.",
                details={"model": wanted.model, "known": sorted(digests)[:NAMED]},
            )
        found = make_id(self.name, name, digests[name])
        check_pin(wanted, found)
        self._check_dimensions(found, dimensions)
        recipe = ("ollama", self._endpoint, name, digests[name], str(dimensions), "truncate")
        return Model(found, name, dimensions, recipe)

    async def describe(self) -> list[EmbedModel]:
        """Every model that it has, or the configured one with the reason why not."""
        status = await self.check()
        names = {self._section.model: ""} if status != "ok" else self._digests
        return [
            EmbedModel(
                id=make_id(self.name, name, digest),
                provider=self.name,
                model=name,
                dim=self._widths.get(name),
                dimensions=self._section.dimensions,
                status=status,
            )
            for name, digest in sorted(names.items())
        ]

    async def check(self) -> str:
        """Whether it answers."""
        try:
            async with asyncio.timeout(CHECK_S):
                await self._read_digests()
        except TimeoutError:
            return self._down()
        except LakehouseError as error:
            return error.message
        return "ok"

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.close()

    async def _ask_digests(self, name: str) -> dict[str, str]:
        async with self._asking:
            if time.monotonic() >= self._believed_until or name not in self._digests:
                try:
                    await self._read_digests()
                except LakehouseError:
                    # What it was before it went away is still what cached vectors are of.
                    if name not in self._digests:
                        raise
            return self._digests

    async def _read_digests(self) -> None:
        if self._ollama is None:
            # Two megabytes that a fleet without Ollama does not need, and a fifth of a second.
            self._ollama = await anyio.to_thread.run_sync(importlib.import_module, "ollama")
        try:
            listed = await self._get_client().list()
        except self._ollama.ResponseError as error:
            raise self._refused(error.status_code, error.error, "list of models") from error
        except TRANSPORT_ERRORS as error:
            raise self._broken(error) from error
        except ValueError as error:
            raise Unavailable(f"{self._down()} What answers there is no Ollama.") from error
        self._digests = {model.model: model.digest or "" for model in listed.models if model.model}
        self._believed_until = time.monotonic() + self._section.digest_ttl_s

    async def _call(self, model: Model, texts: list[str]) -> tuple[list[bytes], int]:
        options = {} if model.dimensions is None else {"dimensions": model.dimensions}
        try:
            answer = await self._get_client().embed(
                model=model.name, input=texts, truncate=True, **options
            )
        except self._ollama.ResponseError as error:
            raise self._refused(error.status_code, error.error, model.name) from error
        vectors = [pack_vector(numbers) for numbers in answer.embeddings]
        return vectors, answer.prompt_eval_count or 0

    def _get_client(self) -> Any:
        self._require_key()
        if self._client is None:
            self._client = self._ollama.AsyncClient(
                host=self._address,
                timeout=self._timeout(),
                transport=self._make_transport(),
                auth=self._auth,
                follow_redirects=False,
                trust_env=False,
            )
        return self._client
