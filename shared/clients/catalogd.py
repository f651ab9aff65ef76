"""Client of catalogd: datasets, their files, and the registering of objects."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import httpx

from shared.clients.base import ServiceClient
from shared.config import Config
from shared.errors import NotFound
from shared.wire.catalogd import (
    Dataset,
    DatasetDeleted,
    DatasetList,
    Files,
    Identity,
    IngestFound,
    RegisterRequest,
    RegisterResponse,
    Snapshots,
)

DATASETS_PATH = "/catalog/datasets"


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
            headers={"content-type": "application/json"},
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
            snapshot: a snapshot id or an RFC 3339 time; the current one when absent.

        Raises:
            NotFound: no such dataset, or no such snapshot is kept.
            Invalid: `snapshot` is neither an id nor a time.
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


def dataset_path(name: str) -> str:
    """The path of a dataset on the wire."""
    return f"{DATASETS_PATH}/{quote(name, safe='')}"
