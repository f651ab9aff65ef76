"""ingestd's routes: files become part of a dataset, at once or as a job."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Annotated

import httpx
from fastapi import FastAPI, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from services.ingestd.core.prefer import Preference, check_key, parse_prefer
from services.ingestd.core.requested import check_dataset, parse_media, parse_options
from services.ingestd.store.figures import Figures
from services.ingestd.store.ingest import Ingests
from services.ingestd.store.intake import Asked, Intake
from services.ingestd.store.jobs import Jobs
from services.ingestd.store.multipart import read_files
from services.ingestd.store.sources import read_reference
from services.ingestd.store.spool import Spool, name_body
from services.ingestd.store.workers import Workers
from shared.clients.catalogd import CatalogdClient
from shared.clients.storaged import StoragedClient
from shared.config import Config
from shared.lockfile import DirectoryLock
from shared.pool import BlockingPool
from shared.runtime import create_base
from shared.telling import RunTeller
from shared.wire.ingestd import (
    INGEST_PATH,
    JOB_ID,
    JOBS_PATH,
    IngestJob,
    IngestJobs,
    IngestQuery,
    IngestReference,
    IngestResult,
    JobStatus,
)

# Threads that write bodies; each ingest has one write under way at a time.
_WRITERS = 4

JobId = Annotated[str, Path(pattern=JOB_ID)]
Wait = Annotated[float, Query(ge=0, le=300, description="Seconds to wait for the job's end")]
_PREFER = "`respond-async` makes it a job; `wait=N` waits so many seconds for the job's end"
_KEY = "Names the request: sent again with the same content it is the same job"

_BODY = {
    "requestBody": {
        "required": True,
        "description": "The file itself, or a form with a field `file` for each of several files, "
        "or the names of objects in storage",
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
                    "properties": {
                        "file": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "minItems": 1,
                        }
                    },
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
            app.state.workers = workers = Workers(section, figures)
            ingests = Ingests(section, spool, workers, objects, catalog, figures, pool, teller)
            app.state.jobs = jobs = Jobs(section, job_folder, spool, ingests, objects, figures)
            app.state.intake = Intake(section, spool, ingests, jobs, objects)
            try:
                await jobs.open()
                yield
            finally:
                await jobs.close()
                await workers.close()
                await teller.aclose()
                await catalog.aclose()
                await objects.aclose()
                pool.close()

    async def check() -> dict[str, str]:
        jobs: Jobs = app.state.jobs
        return {
            "storaged": await objects.check(),
            "catalogd": await catalog.check(),
            "jobs": jobs.check(),
        }

    app = create_base("ingestd", config, lifespan=lifespan, ready=check)
    figures = Figures(app.state.metrics.registry)
    teller = RunTeller("ingestd", config, app.state.metrics.registry, transports)
    pool = BlockingPool("ingestd-spool", _WRITERS, section.max_concurrency)
    spool = Spool(config.data_dir("ingestd"), pool)
    job_folder = config.data_dir("ingestd") / "jobs"
    objects = StoragedClient(config, transports)
    catalog = CatalogdClient(config, transports)

    @app.post(
        INGEST_PATH,
        openapi_extra=_BODY,
        response_model=IngestResult,
        responses={202: {"model": IngestJob, "description": "Taken on as a job"}},
    )
    async def ingest_file(
        request: Request,
        query: Annotated[IngestQuery, Query()],
        prefer: Annotated[list[str] | None, Header(description=_PREFER)] = None,
        idempotency_key: Annotated[str | None, Header(description=_KEY)] = None,
        content_type: Annotated[str | None, Header(include_in_schema=False)] = None,
        content_encoding: Annotated[str | None, Header(include_in_schema=False)] = None,
        content_length: Annotated[str | None, Header(include_in_schema=False)] = None,
    ) -> Response:
        """Adds a file's rows to a dataset, puts them in place of all others, or of their keys'.

        The file is CSV or the like, JSON lines or Parquet, and is told apart by what it holds.

        The file may be packed by gzip or Zstandard, or lie in storage already. Several files
        are one ingest: all of them in one commit, or none.

        Every row is in the table or among the rejects, with its line number and the reason.
        The same input with the same options is taken once, however often it is sent. 409
        when the file does not go with the dataset, naming each column; nothing is written.
        A large file, or any that is preferred to be, becomes a job: 202, and `Location` says
        where its progress is told.
        """
        media = parse_media(content_type, content_encoding)
        wanted = parse_prefer(prefer or [])
        asked = Asked(
            check_dataset(query.dataset),
            parse_options(query, media),
            wanted,
            check_key(idempotency_key),
            int(content_length) if content_length and content_length.isdigit() else None,
        )
        intake: Intake = request.app.state.intake
        jobs: Jobs = request.app.state.jobs
        pieces = request.stream()
        if media.reference:
            named = await read_reference(pieces, section.max_files)
            taken = await intake.take_objects(asked, named)
        else:
            files = name_body(pieces)
            if media.boundary is not None:
                files = read_files(pieces, media.boundary, section.max_files)
            async with aclosing(files):
                taken = await intake.take_files(asked, files)
        if isinstance(taken, IngestResult):
            return render(taken)
        result = await jobs.answer(taken, wanted.wait_s)
        return render(result or jobs.show(taken), wanted)

    @app.get(JOBS_PATH, tags=["jobs"])
    async def list_jobs(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: Annotated[int | None, Query(ge=1, description="`next_cursor` of a page")] = None,
        status: Annotated[JobStatus | None, Query()] = None,
        dataset: Annotated[str | None, Query(max_length=63)] = None,
    ) -> IngestJobs:
        """Jobs, newest first: those that have not ended, and the last that have."""
        jobs: Jobs = request.app.state.jobs
        return jobs.list(limit, cursor, status, dataset)

    @app.get(JOBS_PATH + "/{job_id}", tags=["jobs"])
    async def get_job(request: Request, job_id: JobId, wait: Wait = 0.0) -> IngestJob:
        """A job with its progress; with `wait` as soon as it has ended."""
        jobs: Jobs = request.app.state.jobs
        return await jobs.get(job_id, wait)

    @app.get(
        JOBS_PATH + "/{job_id}/events",
        tags=["jobs"],
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}, "description": "Progress"}},
    )
    async def watch_job(
        request: Request,
        job_id: JobId,
        last_event_id: Annotated[str, Header(max_length=100)] = "",
    ) -> StreamingResponse:
        """A job's progress as server-sent events: `progress`, then `end` with the whole job.

        With `Last-Event-ID` the stream goes on after that event.
        """
        jobs: Jobs = request.app.state.jobs
        return StreamingResponse(
            jobs.watch(job_id, last_event_id),
            media_type="text/event-stream",
            headers={"cache-control": "no-store"},
        )

    @app.post(JOBS_PATH + "/{job_id}/cancel", tags=["jobs"])
    @app.delete(JOBS_PATH + "/{job_id}", tags=["jobs"], operation_id="delete_job")
    async def cancel_job(request: Request, job_id: JobId) -> IngestJob:
        """Ends a job that waits or runs; nothing of it is stored.

        409 when it is being registered already, or has ended otherwise.
        """
        jobs: Jobs = request.app.state.jobs
        return await jobs.cancel(job_id)

    return app


def render(found: IngestResult | IngestJob, wanted: Preference | None = None) -> Response:
    """An answer at once, or a job with the address of its progress."""
    headers: dict[str, str] = {}
    status = 200
    if isinstance(found, IngestJob):
        status = 202
        # Relative to the request's own path, which the gateway knows by another name.
        headers["location"] = f"{JOBS_PATH.removeprefix('/')}/{found.job_id}"
    if wanted is not None and wanted.applied():
        headers["preference-applied"] = wanted.applied()
    content = found.model_dump_json(by_alias=True)
    return Response(content, status, headers, "application/json")
