"""catalogd's routes: datasets, their snapshots and files, and the registering of objects."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
import orjson
from fastapi import FastAPI, Path, Query, Response
from starlette.types import Scope

from services.catalogd.iceberg_routes import add_iceberg_routes
from services.catalogd.store.catalogue import Catalogue
from services.catalogd.store.figures import Figures
from shared.clients.storaged import StoragedClient
from shared.config import Config
from shared.edge import render_envelope
from shared.errors import LakehouseError
from shared.protocols import iceberg_error
from shared.runtime import create_base
from shared.wire.catalogd import (
    DATASET_NAME,
    TAG_NAME,
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
from shared.wire.iceberg import ICEBERG_PATH

Name = Annotated[
    str,
    Path(pattern=DATASET_NAME, description="Dataset: a lower-case letter, then letters, digits, _"),
]
At = Annotated[
    str | None,
    Query(
        alias="snapshot",
        max_length=64,
        description="A snapshot id, a tag or an RFC 3339 time; the current snapshot when absent",
    ),
]
TagName = Annotated[
    str, Path(pattern=TAG_NAME, description="Tag: a letter, then letters, digits and . _ -")
]


def render_error(scope: Scope, error: LakehouseError, service: str, request_id: str) -> bytes:
    """Iceberg's shape on Iceberg's routes, the fleet's envelope elsewhere."""
    if scope["path"].startswith(f"{ICEBERG_PATH}/"):
        return orjson.dumps(iceberg_error(error))
    return render_envelope(scope, error, service, request_id)


def create_app(
    config: Config, *, transports: Mapping[str, httpx.AsyncBaseTransport] | None = None
) -> FastAPI:
    """The daemon's app.

    Args:
        config: the whole configuration.
        transports: in-process transports by service name, for tests.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        try:
            await catalogue.open()
            yield
        finally:
            await catalogue.close()
            await objects.aclose()

    app = create_base(
        "catalogd",
        config,
        lifespan=lifespan,
        ready=lambda: catalogue.check(),
        render_error=render_error,
    )
    objects = StoragedClient(config, transports)
    catalogue = Catalogue(config, objects, Figures(app.state.metrics.registry))

    @app.post("/catalog/datasets", responses={201: {"model": RegisterResponse}})
    async def register_objects(request: RegisterRequest, response: Response) -> RegisterResponse:
        """Makes Parquet objects part of a dataset, exactly once per ingest id.

        201 when it made the dataset, 200 when it changed it or had the ingest already; 409
        when the columns differ, with each of them in the details.
        """
        answer = await catalogue.register(request)
        response.status_code = 201 if answer.status == "created" else 200
        return answer

    @app.get("/catalog/datasets")
    async def list_datasets() -> DatasetList:
        """All datasets by name, each as its current snapshot shows it."""
        return await catalogue.list_datasets()

    @app.get("/catalog/datasets/{name}")
    async def get_dataset(name: Name) -> Dataset:
        """One dataset as its current snapshot shows it."""
        return await catalogue.get_dataset(name)

    @app.delete("/catalog/datasets/{name}")
    async def delete_dataset(name: Name) -> DatasetDeleted:
        """Removes a dataset with its ingests and its identity. Its objects stay in storage."""
        return await catalogue.delete_dataset(name)

    @app.get("/catalog/datasets/{name}/files")
    async def list_files(name: Name, at: At = None) -> Files:
        """The Parquet files of one snapshot, and the columns they are read by."""
        return await catalogue.list_files(name, at)

    @app.get("/catalog/datasets/{name}/snapshots")
    async def list_snapshots(name: Name) -> Snapshots:
        """Every retained snapshot, oldest first."""
        return await catalogue.list_snapshots(name)

    @app.put("/catalog/datasets/{name}/identity")
    async def reserve_identity(name: Name) -> Identity:
        """The uuid of a name, the same until the dataset is deleted."""
        return await catalogue.reserve_identity(name)

    @app.get("/catalog/datasets/{name}/ingests/{ingest_id:path}")
    async def find_ingest(name: Name, ingest_id: str) -> IngestFound:
        """An ingest that the dataset holds; 404 when it holds none of this id."""
        return await catalogue.find_ingest(name, ingest_id)

    @app.post("/catalog/datasets/{name}/rollback")
    async def roll_back(name: Name, request: RollbackRequest) -> RolledBack:
        """Makes the dataset what it was at a retained snapshot, by a new snapshot.

        Nothing is lost: rolling back to `previous` undoes it. Ingests whose rows went away are
        `superseded`.
        """
        return await catalogue.roll_back(name, request.snapshot)

    @app.put("/catalog/datasets/{name}/tags/{tag}", responses={201: {"model": Tagged}})
    async def set_tag(
        name: Name, tag: TagName, response: Response, request: TagRequest | None = None
    ) -> Tagged:
        """Names a snapshot, which is kept as long as it has a name; 201 when the tag is new."""
        answer = await catalogue.set_tag(name, tag, request.snapshot if request else None)
        response.status_code = 201 if answer.status == "created" else 200
        return answer

    @app.delete("/catalog/datasets/{name}/tags/{tag}")
    async def remove_tag(name: Name, tag: TagName) -> TagDeleted:
        """Takes a tag away; its snapshot is kept as long as others of its age are."""
        return await catalogue.remove_tag(name, tag)

    @app.post("/catalog/datasets/{name}/expire")
    async def expire_snapshots(name: Name, request: ExpireRequest | None = None) -> Expired:
        """Lets go of all snapshots but the newest and those that a tag names."""
        return await catalogue.expire(name, request.keep if request else None)

    @app.post("/catalog/datasets/{name}/compact")
    async def compact_files(name: Name, request: CompactRequest | None = None) -> Compacted:
        """Merges small files into larger ones, as much as one round may; the rows stay the same."""
        return await catalogue.compact(name, request.target_mb if request else None)

    @app.post("/catalog/collect")
    async def collect_orphans(request: CollectRequest | None = None) -> Collected:
        """Removes files that no retained snapshot of any dataset names, in one bounded round."""
        return await catalogue.collect(request.grace_s if request else None)

    add_iceberg_routes(app, catalogue)
    return app
