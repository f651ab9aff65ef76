"""ingestd's one route: a file becomes part of a dataset."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Annotated

import httpx
from fastapi import FastAPI, Header, Query, Request

from services.ingestd.core.options import check_dataset, parse_media, parse_options
from services.ingestd.store.figures import Figures
from services.ingestd.store.ingest import Ingests
from services.ingestd.store.multipart import read_file_field
from services.ingestd.store.sources import read_object, read_reference
from services.ingestd.store.spool import Spool
from services.ingestd.store.workers import Workers
from shared.clients.catalogd import CatalogdClient
from shared.clients.storaged import StoragedClient
from shared.config import Config
from shared.lockfile import DirectoryLock
from shared.pool import BlockingPool
from shared.runtime import create_base
from shared.telling import RunTeller
from shared.wire.ingestd import INGEST_PATH, IngestQuery, IngestReference, IngestResult

# Threads that write bodies; each ingest has one write under way at a time.
_WRITERS = 4

_BODY = {
    "requestBody": {
        "required": True,
        "description": "The file itself, or a form with the file in its field `file`",
        "content": {
            "text/csv": {"schema": {"type": "string", "format": "binary"}},
            "application/x-ndjson": {"schema": {"type": "string", "format": "binary"}},
            "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "application/gzip": {"schema": {"type": "string", "format": "binary"}},
            "application/zstd": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {"schema": IngestReference.model_json_schema()},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary"}},
                    "required": ["file"],
                }
            },
        },
    }
}


def create_app(
    config: Config, *, transports: Mapping[str, httpx.AsyncBaseTransport] | None = None
) -> FastAPI:
    """The daemon's app.

    Args:
        config: the whole configuration.
        transports: in-process transports by service name, for tests.
    """
    section = config.ingestd

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        with DirectoryLock(config.data_dir("ingestd")):
            spool.clear()
            app.state.workers = workers = Workers(section, figures)
            app.state.ingests = Ingests(section, spool, workers, objects, catalog, figures, teller)
            try:
                yield
            finally:
                await workers.close()
                await teller.aclose()
                await catalog.aclose()
                await objects.aclose()
                pool.close()

    async def check() -> dict[str, str]:
        return {"storaged": await objects.check(), "catalogd": await catalog.check()}

    app = create_base("ingestd", config, lifespan=lifespan, ready=check)
    figures = Figures(app.state.metrics.registry)
    teller = RunTeller("ingestd", config, app.state.metrics.registry, transports)
    pool = BlockingPool("ingestd-spool", _WRITERS, section.max_concurrency)
    spool = Spool(config.data_dir("ingestd"), pool)
    objects = StoragedClient(config, transports)
    catalog = CatalogdClient(config, transports)

    @app.post(INGEST_PATH, openapi_extra=_BODY)
    async def ingest_file(
        request: Request,
        query: Annotated[IngestQuery, Query()],
        content_type: Annotated[str | None, Header(include_in_schema=False)] = None,
        content_encoding: Annotated[str | None, Header(include_in_schema=False)] = None,
    ) -> IngestResult:
        """Adds a file's rows to a dataset, or puts them in place of all others.

        The file is CSV or the like, JSON lines or Parquet, and is told apart by what it holds.

        The file may be packed by gzip or Zstandard, or lie in storage already.

        Every row is in the table or among the rejects, with its line number and the reason.
        The same input with the same options is taken once, however often it is sent. 409
        when the file does not go with the dataset, naming each column; nothing is written.
        """
        media = parse_media(content_type, content_encoding)
        options = parse_options(query, media)
        pieces = request.stream()
        if media.boundary is not None:
            pieces = read_file_field(pieces, media.boundary)
        elif media.reference:
            pieces = read_object(objects, await read_reference(pieces))
        ingests: Ingests = request.app.state.ingests
        async with aclosing(pieces):
            return await ingests.run(check_dataset(query.dataset), options, pieces)

    return app
