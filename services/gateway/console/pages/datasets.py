"""Datasets: what there is, what is in it, how it came to be, and a file more of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import cast, get_args
from urllib.parse import quote

import orjson
from starlette.responses import Response

from services.gateway.console.desk import HEADERS, Visit
from services.gateway.console.routes import Page
from services.gateway.console.streaming import stream_from
from shared.clients.ingestd import result_of
from shared.errors import Invalid, LakehouseError, NotFound
from shared.wire.catalogd import IngestFound, RegisterRequest, Snapshot
from shared.wire.ingestd import Contract, Mode
from shared.wire.queryd import SqlRequest, SqlResult

LIST = "/console/datasets"
ONE = LIST + "/{name}"
JOBS = "/console/ingests"
JOB = JOBS + "/{job}"
PREVIEW_ROWS = 25
# Newest snapshots that are shown, and asked for their ingests.
SHOWN_SNAPSHOTS = 20
INGEST_ID = "lakehouse.ingest-id"
SUFFIX = "_rejects"
# What the page's script calls files by their names; a packed one tells by what itself.
FILE_TYPES = frozenset({"text/csv", "text/tab-separated-values", "application/gzip"})


@dataclass(frozen=True, slots=True)
class Version:
    """A snapshot with what the ingest did that made it."""

    snapshot: Snapshot
    ingest: IngestFound | None


async def list_datasets(visit: Visit) -> Response:
    """All datasets, and the form that adds to them."""
    return visit.page("datasets.html", datasets=await visit.fleet.catalog.list_datasets())


async def ingest_file(visit: Visit) -> Response:
    """Passes files on to ingestd as they come, to be a job there; tells where to follow it."""
    mode, contract = visit.query("mode", "append"), visit.query("contract", "freeze")
    if mode not in get_args(Mode) or contract not in get_args(Contract):
        raise Invalid("The form's options are not known here. Load the page again.")
    given = visit.request.headers.get("content-type", "")
    job = await visit.fleet.ingest.start(
        visit.query("dataset").strip(),
        visit.request.stream(),
        mode=cast("Mode", mode),
        contract=cast("Contract", contract),
        content_type=given if is_file(given) else "application/octet-stream",
        **({"key": visit.query("key")} if mode == "upsert" else {}),
    )
    place = f"{JOBS}/{quote(job.job_id, safe='')}"
    return Response(orjson.dumps({"job": place}), 202, dict(HEADERS), "application/json")


def is_file(content_type: str) -> bool:
    """Whether a Content-Type is one that the page's script gives a file, or several in a form."""
    return content_type in FILE_TYPES or content_type.startswith("multipart/form-data;")


async def show_job(visit: Visit) -> Response:
    """What came of an ingest that has ended, or how far it is."""
    job = await visit.fleet.ingest.get_job(visit.request.path_params["job"])
    if job.status in ("queued", "running", "cancelled"):
        return visit.page("part_job.html", job=job)
    return visit.page("part_ingested.html", result=result_of(job))


async def watch_job(visit: Visit) -> Response:
    """Passes an ingest's progress on as it comes."""
    last_id = visit.request.headers.get("last-event-id", "")
    return await stream_from(
        visit.fleet.ingest.stream_events(visit.request.path_params["job"], last_id),
        lambda pieces: pieces,
        "text/event-stream",
    )


async def cancel_job(visit: Visit) -> Response:
    """Ends an ingest that is under way."""
    job = await visit.fleet.ingest.cancel_job(visit.request.path_params["job"])
    return visit.page("part_job.html", job=job)


async def show_dataset(visit: Visit) -> Response:
    """One dataset: columns, first rows, snapshots with their ingests."""
    name = visit.request.path_params["name"]
    as_of = visit.query("as_of") or None
    dataset = await visit.fleet.catalog.get_dataset(name)
    snapshots = (await visit.fleet.catalog.list_snapshots(name)).snapshots[::-1]
    preview, *versions = await asyncio.gather(
        _preview(visit, name, as_of),
        *(_find_version(visit, name, one) for one in snapshots[:SHOWN_SNAPSHOTS]),
    )
    return visit.page(
        "dataset.html",
        dataset=dataset,
        as_of=as_of,
        preview=preview,
        versions=versions,
        older=len(snapshots) - len(versions),
        rejects_name=_rejects_name(name),
    )


async def open_rejects(visit: Visit) -> Response:
    """Opens an ingest's rejects as a dataset of their own, in place of those opened before."""
    name = visit.request.path_params["name"]
    record = await _find_rejects(visit, name, await visit.field("ingest"))
    opened = RegisterRequest(name=_rejects_name(name), objects=[record], mode="replace")
    await visit.fleet.catalog.register(opened)
    return visit.go(f"{LIST}/{_rejects_name(name)}")


async def download_rejects(visit: Visit) -> Response:
    """An ingest's rejects as the Parquet file they are."""
    name = visit.request.path_params["name"]
    key = await _find_rejects(visit, name, visit.query("ingest"))
    return await stream_from(
        visit.fleet.storage.get_object(key),
        lambda body: body,
        "application/vnd.apache.parquet",
        content_disposition=f'attachment; filename="{name}{SUFFIX}.parquet"',
    )


async def _find_rejects(visit: Visit, name: str, ingest: str) -> str:
    """The object of an ingest's rejects: only one that the catalogue names is ever opened."""
    found = await visit.fleet.catalog.find_ingest(name, ingest) if ingest else None
    if found is None or found.record is None or found.record.rejects.object is None:
        raise NotFound("This ingest has no rejects, or the dataset no longer holds it.")
    return found.record.rejects.object


async def _find_version(visit: Visit, name: str, snapshot: Snapshot) -> Version:
    ingest = snapshot.summary.get(INGEST_ID)
    found = await visit.fleet.catalog.find_ingest(name, str(ingest)) if ingest else None
    return Version(snapshot, found)


async def _preview(visit: Visit, name: str, as_of: str | None) -> SqlResult | LakehouseError:
    """The first rows, or why they cannot be had: the rest of the page is worth having."""
    # Names of datasets are lower-case letters, digits and _, which catalogd has just checked.
    sql = f'SELECT * FROM "{name}" LIMIT {PREVIEW_ROWS}'
    try:
        return await visit.fleet.query.run_query(SqlRequest(sql=sql, as_of=as_of))
    except LakehouseError as error:
        return error


def _rejects_name(name: str) -> str:
    return name[: 63 - len(SUFFIX)] + SUFFIX


PAGES = (
    Page("GET", LIST, list_datasets),
    Page("POST", LIST + "/ingest", ingest_file, long=True, raw=True),
    Page("GET", JOB, show_job),
    Page("GET", JOB + "/events", watch_job, long=True),
    Page("POST", JOB + "/cancel", cancel_job, raw=True),
    Page("GET", ONE, show_dataset),
    Page("POST", ONE + "/rejects", open_rejects),
    Page("GET", ONE + "/rejects.parquet", download_rejects),
)
