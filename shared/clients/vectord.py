"""Client of vectord: indexes, items, searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from shared.clients.base import ServiceClient
from shared.config import Config
from shared.errors import Invalid
from shared.wire.vectord import (
    ARROW_STREAM,
    BatchResponse,
    Candidates,
    CandidatesResponse,
    IndexDeleted,
    IndexInfo,
    IndexList,
    IndexSpec,
    ItemFound,
    ItemsDeleted,
    ItemsWritten,
    Query,
    SearchResponse,
)

INDEXES = "/vectors/indexes"
_JSON = {"content-type": "application/json"}


class VectordClient(ServiceClient):
    """Talks to vectord.

    Args:
        config: for the address and the token.
        transports: in-process transports by service name, in place of the network.
    """

    def __init__(
        self, config: Config, transports: Mapping[str, httpx.AsyncBaseTransport] | None = None
    ) -> None:
        super().__init__(config, "vectord", transports)

    async def create_index(self, spec: IndexSpec) -> IndexInfo:
        """Makes an index; harmless when the same one exists.

        Raises:
            Conflict: one of this name is made of something else; details name what.
        """
        body = spec.model_dump_json().encode()
        response = await self.request("POST", INDEXES, content=body, headers=_JSON)
        return IndexInfo.model_validate_json(response.content)

    async def list_indexes(self) -> IndexList:
        """All indexes by name."""
        response = await self.request("GET", INDEXES)
        return IndexList.model_validate_json(response.content)

    async def get_index(self, name: str) -> IndexInfo:
        """One index with its figures.

        Raises:
            NotFound: there is none of this name.
        """
        response = await self.request("GET", index_path(name))
        return IndexInfo.model_validate_json(response.content)

    async def delete_index(self, name: str) -> bool:
        """Removes an index with its items; false when there was none."""
        response = await self.request("DELETE", index_path(name))
        return IndexDeleted.model_validate_json(response.content).deleted

    async def put_items(
        self, name: str, items: Sequence[Mapping[str, Any]], *, model: str | None = None
    ) -> ItemsWritten:
        """Writes items ({id, vector, text?, metadata?}); durable on return, safe to repeat.

        Raises:
            Invalid, TooLarge, Conflict: refused; none is written.
        """
        body: dict[str, Any] = {"items": list(items)}
        if model is not None:
            body["model"] = model
        response = await self.request(
            "PUT", f"{index_path(name)}/items", content=orjson.dumps(body), headers=_JSON
        )
        return ItemsWritten.model_validate_json(response.content)

    async def put_arrow(
        self, name: str, stream: bytes, *, model: str | None = None
    ) -> ItemsWritten:
        """Writes items of an Arrow IPC stream with columns id, vector, text?, metadata?."""
        response = await self.request(
            "PUT",
            f"{index_path(name)}/items",
            content=stream,
            headers={"content-type": ARROW_STREAM},
            params={} if model is None else {"model": model},
        )
        return ItemsWritten.model_validate_json(response.content)

    async def delete_items(
        self,
        name: str,
        *,
        ids: Sequence[str] | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> ItemsDeleted:
        """Removes items by id, or those that the filter `where` keeps; durable on return."""
        body = {"ids": list(ids)} if ids is not None else {"filter": where}
        response = await self.request(
            "DELETE", f"{index_path(name)}/items", content=orjson.dumps(body), headers=_JSON
        )
        return ItemsDeleted.model_validate_json(response.content)

    async def get_item(self, name: str, item: str) -> ItemFound:
        """One item.

        Raises:
            NotFound: the index has none of this id.
        """
        response = await self.request("GET", f"{index_path(name)}/items/{_segment(item, '/')}")
        return ItemFound.model_validate_json(response.content)

    async def search(self, name: str, query: Query, *, model: str | None = None) -> SearchResponse:
        """Answers one query."""
        response = await self._search(name, _plain(query), model)
        return SearchResponse.model_validate_json(response.content)

    async def search_batch(
        self, name: str, queries: Sequence[Query], *, model: str | None = None
    ) -> BatchResponse:
        """Answers queries, in their order, all on the same state of the index."""
        response = await self._search(name, {"queries": [_plain(q) for q in queries]}, model)
        return BatchResponse.model_validate_json(response.content)

    async def find_candidates(
        self, name: str, queries: Sequence[Query], *, model: str | None = None
    ) -> CandidatesResponse:
        """Nearest items and BM25 hits of each query (vector and text), both scores of each."""
        body: dict[str, Any] = {"queries": [_plain(q) for q in queries]}
        if model is not None:
            body["model"] = model
        response = await self.request(
            "POST", f"{index_path(name)}/candidates", content=orjson.dumps(body), headers=_JSON
        )
        # Parsed without a second look: hundreds of rows a query, from a daemon of this fleet.
        found = orjson.loads(response.content)
        results = [Candidates.model_construct(**one) for one in found["results"]]
        return CandidatesResponse.model_construct(count=found["count"], results=results)

    async def search_arrow(self, name: str, stream: bytes, **options: Any) -> bytes:
        """Answers a batch in Arrow (columns vector, text) with an Arrow stream of all hits.

        Args:
            options: k, ef, filter (JSON text), include, model, for all queries.
        """
        response = await self.request(
            "POST",
            f"{index_path(name)}/search",
            content=stream,
            headers={"content-type": ARROW_STREAM, "accept": ARROW_STREAM},
            params=options,
        )
        return response.content

    async def _search(self, name: str, body: dict[str, Any], model: str | None) -> httpx.Response:
        if model is not None:
            body["model"] = model
        return await self.request(
            "POST", f"{index_path(name)}/search", content=orjson.dumps(body), headers=_JSON
        )


def index_path(name: str) -> str:
    """The path of an index.

    Raises:
        Invalid: no index can have this name.
    """
    return f"{INDEXES}/{_segment(name)}"


def _segment(value: str, safe: str = "") -> str:
    if not value or any(part in (".", "..") for part in value.split("/")):
        raise Invalid(f"{value!r} cannot stand in a path.")
    return quote(value, safe=safe)


def _plain(query: Query) -> dict[str, Any]:
    return query.model_dump(exclude_none=True)
