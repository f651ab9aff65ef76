"""Embeddings from any endpoint of OpenAI's shape."""

from __future__ import annotations

import base64
from typing import Any

import httpx

from services.embedd.core.names import Wanted, make_id
from services.embedd.core.vectors import pack_vector
from services.embedd.store.provider import Model
from services.embedd.store.remote import CHECK_S, TRANSPORT_ERRORS, RemoteProvider, check_pin
from shared.errors import NotFound, Unavailable
from shared.sections.embed import OpenAIEmbedder
from shared.wire.embedd import EmbedModel


class OpenAIProvider(RemoteProvider):
    """The configured models of one endpoint; it tells no hash, so ids carry none."""

    ADVICE = "Start it or mend its url."
    _section: OpenAIEmbedder

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._client: httpx.AsyncClient | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The default and the further ids."""
        return tuple(dict.fromkeys((self._section.model, *self._section.models)))

    async def resolve(self, wanted: Wanted, dimensions: int | None) -> Model:
        """The model, if the configuration has it."""
        if wanted.model not in self.models:
            raise NotFound(
                f"The provider {self.name} is configured for {', '.join(self.models)}. Add "
                f"others to embedd.providers.{self.name}.models.",
                details={"model": wanted.model, "known": list(self.models)},
            )
        found = make_id(self.name, wanted.model, "")
        check_pin(wanted, found)
        self._check_dimensions(found, dimensions)
        recipe = ("openai", self._endpoint, wanted.model, str(dimensions))
        return Model(found, wanted.model, dimensions, recipe)

    async def describe(self) -> list[EmbedModel]:
        """The configured models."""
        status = await self.check()
        return [
            EmbedModel(
                id=make_id(self.name, model, ""),
                provider=self.name,
                model=model,
                dim=self._widths.get(model),
                dimensions=self._section.dimensions,
                status=status,
            )
            for model in self.models
        ]

    async def check(self) -> str:
        """Whether the endpoint answers; a refusal is an answer, unless it is of the key."""
        try:
            answer = await self._get_client().get("models", timeout=self._timeout(CHECK_S))
        except Unavailable as error:
            return error.message
        except TRANSPORT_ERRORS as error:
            return self._broken(error).message
        if answer.status_code in (401, 403) or answer.status_code >= 500:
            return self._refused(answer.status_code, answer.text, "list of models").message
        return "ok"

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _call(self, model: Model, texts: list[str]) -> tuple[list[bytes], int]:
        body: dict[str, Any] = {"model": model.name, "input": texts, "encoding_format": "float"}
        if model.dimensions is not None:
            body["dimensions"] = model.dimensions
        answer = await self._get_client().post("embeddings", json=body)
        if answer.status_code >= 400:
            raise self._refused(answer.status_code, _read_message(answer), model.name)
        content = answer.json()
        rows = sorted(content["data"], key=lambda row: row["index"])
        tokens = (content.get("usage") or {}).get("prompt_tokens") or 0
        return [_read_vector(row["embedding"]) for row in rows], int(tokens)

    def _get_client(self) -> httpx.AsyncClient:
        self._require_key()
        if self._client is None:
            self._client = httpx.AsyncClient(
                base_url=f"{self._address}/",
                timeout=self._timeout(),
                transport=self._make_transport(),
                auth=self._auth,
                trust_env=False,
            )
        return self._client


def _read_vector(given: Any) -> bytes:
    if isinstance(given, str):  # an endpoint that sends base64 unasked
        return base64.b64decode(given, validate=True)
    return pack_vector(given)


def _read_message(answer: httpx.Response) -> str:
    try:
        error = answer.json()["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return answer.text
