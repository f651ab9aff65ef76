"""Pathway: traces of what was tried, their search, their past, and retiring them."""

from __future__ import annotations

from typing import Any, cast, get_args

from starlette.responses import Response

from services.gateway.console.desk import Visit
from services.gateway.console.routes import Page
from shared.wire.pathwayd import PathwayHit, PathwaySearch, Status, Trace

PATH = "/console/pathway"
PAGE_SIZE = 50
FOUND = 25


async def list_traces(visit: Visit) -> Response:
    """Traces found by a query, or the newest."""
    query, status = visit.query("q").strip(), visit.query("status")
    values: dict[str, Any] = {"query": query, "state": status, "cursor": None}
    traces: list[Trace] | list[PathwayHit]
    known = status if status in get_args(Status) else None
    if query:
        search = PathwaySearch(
            query=query, k=FOUND, include_superseded=status != "live", explain=True
        )
        results = await visit.fleet.pathway.search(search)
        traces = [hit for hit in results.hits if known in (None, hit.status)]
        values["semantic"] = results.semantic
    else:
        page = await visit.fleet.pathway.list_traces(
            PAGE_SIZE, visit.query("cursor") or None, cast("Status | None", known)
        )
        traces, values["cursor"], values["semantic"] = page.traces, page.cursor, None
    stats = await visit.fleet.pathway.stats()
    return visit.page("pathway.html", traces=traces, stats=stats, **values)


async def show_trace(visit: Visit) -> Response:
    """One trace and its past."""
    trace_id = visit.request.path_params["trace"]
    trace = await visit.fleet.pathway.get(trace_id)
    history = await visit.fleet.pathway.history(trace_id)
    return visit.page("trace.html", trace=trace, history=history)


async def retire_trace(visit: Visit) -> Response:
    """Retires a trace: no search shows it again, its history stays."""
    reason = (await visit.field("reason")).strip() or None
    await visit.fleet.pathway.retire(visit.request.path_params["trace"], reason)
    return visit.go(visit.request.url.path.removesuffix("/retire"))


PAGES = (
    Page("GET", PATH, list_traces),
    Page("GET", PATH + "/{trace}", show_trace),
    Page("POST", PATH + "/{trace}/retire", retire_trace),
)
