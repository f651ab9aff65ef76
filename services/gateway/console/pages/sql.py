"""SQL: an editor, the result as a table and a chart, and the whole of it as a file."""

from __future__ import annotations

from typing import Any, cast

from starlette.responses import Response

from services.gateway.console.core.charting import Kind, make_chart
from services.gateway.console.desk import Visit
from services.gateway.console.routes import Page
from services.gateway.console.streaming import stream_from
from shared.errors import Invalid, LakehouseError
from shared.wire.queryd import CSV_TYPE, PARQUET_TYPE, SqlRequest

PATH = "/console/sql"
# Rows shown in the page; a download has all of them.
SHOWN_ROWS = 500
FORMATS = {
    "csv": CSV_TYPE,
    "json": "application/json",
    "parquet": PARQUET_TYPE,
}


async def show_editor(visit: Visit) -> Response:
    """The editor, with a query that a link brought; it is shown, not run."""
    return visit.page("sql.html", **await _surroundings(visit), sql=visit.query("sql"), shown="")


async def run_query(visit: Visit) -> Response:
    """Runs what the editor holds."""
    request = await _read_request(visit)
    result = await visit.fleet.query.run_query(request)
    values = {
        "result": result,
        "sql": request.sql,
        "as_of": request.as_of,
        "chart": make_chart(result.columns, result.rows),
    }
    if visit.partial:
        return visit.page("part_sql.html", **values)
    shown = visit.render("part_sql.html", **values)
    return visit.page("sql.html", **await _surroundings(visit), sql=request.sql, shown=shown)


async def draw_chart(visit: Visit) -> Response:
    """The same query drawn from other columns, or in another way."""
    request = await _read_request(visit)
    kind = await visit.field("kind")
    result = await visit.fleet.query.run_query(request)
    chart = make_chart(
        result.columns,
        result.rows,
        across=_to_place(await visit.field("across")),
        up=_to_place(await visit.field("up")),
        kind=cast("Kind", kind) if kind in ("bar", "line") else None,
    )
    return visit.page("part_chart.html", chart=chart, result=result)


async def download(visit: Visit) -> Response:
    """All rows as a file, streamed."""
    name = await visit.field("format", "csv")
    if name not in FORMATS:
        raise Invalid(f"There are downloads as {', '.join(FORMATS)}.")
    request = await _read_request(visit, limited=False)
    return await stream_from(
        visit.fleet.query.stream_as(request, FORMATS[name]),
        lambda opened: opened[1],
        FORMATS[name],
        content_disposition=f'attachment; filename="result.{name}"',
    )


async def _read_request(visit: Visit, *, limited: bool = True) -> SqlRequest:
    sql = (await visit.field("sql")).strip()
    if not sql:
        raise Invalid("Write a query first: SELECT 1 is one.")
    as_of = (await visit.field("as_of")).strip() or None
    return SqlRequest(sql=sql, as_of=as_of, max_rows=SHOWN_ROWS if limited else None)


async def _surroundings(visit: Visit) -> dict[str, Any]:
    """What stands beside the editor; queryd being away does not take the editor with it."""
    try:
        return {"tables": await visit.fleet.query.list_tables(), "trouble": None}
    except LakehouseError as error:
        return {"tables": [], "trouble": error}


def _to_place(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 6 else None


PAGES = (
    Page("GET", PATH, show_editor),
    Page("POST", PATH, run_query, long=True),
    Page("POST", PATH + "/chart", draw_chart, long=True),
    Page("POST", PATH + "/download", download, long=True),
)
