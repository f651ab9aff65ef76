"""Client of embedd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from shared.clients.base import ServiceClient
from shared.config import Config
from shared.errors import Upstream
from shared.runtime import Transports
from shared.wire.embedd import ARROW_STREAM, EmbedModels, EmbedRequest, EmbedResponse

M = TypeVar("M", bound=BaseModel)


class EmbeddClient(ServiceClient):
    """Talks to embedd."""

    def __init__(self, config: Config, transports: Transports | None = None) -> None:
        super().__init__(config, "embedd", transports)

    async def embed(
        self, texts: Sequence[str], model: str | None = None, dimensions: int | None = None
    ) -> EmbedResponse:
        """One vector per text, as numbers.

        Raises:
            Upstream: what answers is not embedd, or gives other vectors than it says.
        """
        response = await self._post(texts, model, dimensions, "application/json")
        found = _read(EmbedResponse, response)
        if len(found.vectors) != len(texts) or any(len(v) != found.dim for v in found.vectors):
            raise _strange()
        return found

    async def embed_arrow(
        self, texts: Sequence[str], model: str | None = None, dimensions: int | None = None
    ) -> bytes:
        """The same as an Arrow IPC stream: column `vector`, the rest in its metadata.

        A fifth of the size of JSON, and ready for whoever holds vectors in columns.
        """
        return await self._post(texts, model, dimensions, ARROW_STREAM)

    async def list_models(self) -> EmbedModels:
        """Every model that can be asked for."""
        response = await self.request("GET", "/embed/models")
        return _read(EmbedModels, response.content)

    async def _post(
        self, texts: Sequence[str], model: str | None, dimensions: int | None, accept: str
    ) -> bytes:
        body = EmbedRequest(texts=list(texts), model=model, dimensions=dimensions)
        response = await self.request(
            "POST",
            "/embed",
            headers={"accept": accept, "content-type": "application/json"},
            content=body.model_dump_json(exclude_none=True),
        )
        return response.content


def _read(model: type[M], content: bytes) -> M:
    try:
        return model.model_validate_json(content)
    except ValidationError:
        raise _strange() from None


def _strange() -> Upstream:
    return Upstream(
        "What answers at embedd's address does not answer like embedd. Check [embedd] port and "
        "url, and that all daemons are of one version."
    )
