"""Client of catalogd: datasets, their files, and the registering of objects."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import httpx

from shared.clients.base import ServiceClient
from shared.config import Config
from shared.errors import NotFound
from shared.wire.base import Request
from shared.wire.catalogd import (
    Collected,
    CollectRequest,
    Compacted,
    CompactRequest,
    Dataset,
    DatasetDeleted,
    DatasetList,
    Expired,
    ExpireRequest,
    Files,
    Identity,
    IngestFound,
    RegisterRequest,
    RegisterResponse,
    RollbackRequest,
    RolledBack,
    Snapshots,
    TagDeleted,
    Tagged,
    TagRequest,
)

DATASETS_PATH = "/catalog/datasets"
COLLECT_PATH = "/catalog/collect"
_JSON = {"content-type": "application/json"}


class CatalogdClient(ServiceClient):
    """Talks to catalogd.

    Args:
        config: for the address and the token.
        transports: in-process transports by service name, in place of the network.
    """

    def __init__(
        self, config: Config, transports: Mapping[str, httpx.AsyncBaseTransport] | None = None
    ) -> None:
        super().__init__(config, "catalogd", transports)

    async def register(self, request: RegisterRequest) -> RegisterResponse:
        """Makes objects part of a dataset; safe to send again after any failure.

        Raises:
            Conflict: the columns do not fit (the details name each), the dataset was deleted
                since its identity was asked for, its current snapshot is not `base_snapshot`,
                or it does not hold a file that a rewrite takes out.
            Unprocessable: an object is missing or cannot be part of a dataset.
        """
        response = await self.request(
            "POST",
            DATASETS_PATH,
            content=request.model_dump_json(exclude_defaults=True),
            headers=_JSON,
        )
        return RegisterResponse.model_validate_json(response.content)

    async def list_datasets(self) -> list[Dataset]:
        """All datasets by name."""
        response = await self.request("GET", DATASETS_PATH)
        return DatasetList.model_validate_json(response.content).datasets

    async def get_dataset(self, name: str) -> Dataset:
        """One dataset as its current snapshot shows it.

        Raises:
            NotFound: there is none of this name.
        """
        response = await self.request("GET", dataset_path(name))
        return Dataset.model_validate_json(response.content)

    async def list_files(self, name: str, snapshot: str | None = None) -> Files:
        """The files of a snapshot and the columns they are read by.

        Args:
            name: the dataset.
            snapshot: a snapshot id, a tag or an RFC 3339 time; the current one when absent.

        Raises:
            NotFound: no such dataset, or no such snapshot is kept.
            Invalid: `snapshot` is none of these.
        """
        params = {} if snapshot is None else {"snapshot": snapshot}
        response = await self.request("GET", f"{dataset_path(name)}/files", params=params)
        return Files.model_validate_json(response.content)

    async def list_snapshots(self, name: str) -> Snapshots:
        """Every retained snapshot, oldest first.

        Raises:
            NotFound: there is no such dataset.
        """
        response = await self.request("GET", f"{dataset_path(name)}/snapshots")
        return Snapshots.model_validate_json(response.content)

    async def delete_dataset(self, name: str) -> DatasetDeleted:
        """Removes a dataset and its identity; its objects are collected later.

        Raises:
            NotFound: there is no such dataset.
        """
        response = await self.request("DELETE", dataset_path(name))
        return DatasetDeleted.model_validate_json(response.content)

    async def reserve_identity(self, name: str) -> Identity:
        """The uuid under which a dataset's objects are stored, also before it exists."""
        response = await self.request("PUT", f"{dataset_path(name)}/identity")
        return Identity.model_validate_json(response.content)

    async def find_ingest(self, name: str, ingest_id: str) -> IngestFound | None:
        """The ingest of this id if the dataset holds it, else None."""
        path = f"{dataset_path(name)}/ingests/{quote(ingest_id, safe='')}"
        try:
            response = await self.request("GET", path)
        except NotFound:
            return None
        return IngestFound.model_validate_json(response.content)

    async def roll_back(self, name: str, snapshot: str) -> RolledBack:
        """Makes a dataset what it was at a retained snapshot; safe to send again.

        Args:
            name: the dataset.
            snapshot: a snapshot id, an RFC 3339 time or a tag.

        Raises:
            NotFound: no such dataset, or no such snapshot is kept.
            Invalid: `snapshot` is none of these.
        """
        body = RollbackRequest(snapshot=snapshot)
        return RolledBack.model_validate_json(await self._post(name, "rollback", body))

    async def set_tag(self, name: str, tag: str, snapshot: str | None = None) -> Tagged:
        """Names a snapshot, the current one unless given; it is kept as long as it has a name.

        Raises:
            NotFound: no such dataset, or no such snapshot is kept.
        """
        body = TagRequest(snapshot=snapshot)
        response = await self.request(
            "PUT", tag_path(name, tag), content=body.model_dump_json(), headers=_JSON
        )
        return Tagged.model_validate_json(response.content)

    async def delete_tag(self, name: str, tag: str) -> TagDeleted:
        """Takes a tag away.

        Raises:
            NotFound: no such dataset or tag.
        """
        response = await self.request("DELETE", tag_path(name, tag))
        return TagDeleted.model_validate_json(response.content)

    async def compact(self, name: str, target_mb: int | None = None) -> Compacted:
        """Merges small files into larger ones; `more` says that another round is worth while.

        Raises:
            NotFound: there is no such dataset.
        """
        body = CompactRequest(target_mb=target_mb)
        return Compacted.model_validate_json(await self._post(name, "compact", body))

    async def expire(self, name: str, keep: int | None = None) -> Expired:
        """Lets go of all snapshots but the newest and those that a tag names.

        Raises:
            NotFound: there is no such dataset.
        """
        body = ExpireRequest(keep=keep)
        return Expired.model_validate_json(await self._post(name, "expire", body))

    async def collect(self, grace_s: float | None = None) -> Collected:
        """Removes files that no retained snapshot of any dataset names, in one bounded round."""
        body = CollectRequest(grace_s=grace_s)
        response = await self.request(
            "POST", COLLECT_PATH, content=body.model_dump_json(), headers=_JSON
        )
        return Collected.model_validate_json(response.content)

    async def _post(self, name: str, action: str, body: Request) -> bytes:
        path = f"{dataset_path(name)}/{action}"
        response = await self.request("POST", path, content=body.model_dump_json(), headers=_JSON)
        return response.content


def tag_path(name: str, tag: str) -> str:
    """The path of a tag on the wire."""
    return f"{dataset_path(name)}/tags/{quote(tag, safe='')}"


def dataset_path(name: str) -> str:
    """The path of a dataset on the wire."""
    return f"{DATASETS_PATH}/{quote(name, safe='')}"
