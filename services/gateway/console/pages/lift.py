"""Lift: what the gate's reports say, with their intervals."""

from __future__ import annotations

from starlette.responses import Response

from services.gateway.console.core.lift import view_lift
from services.gateway.console.desk import Visit
from services.gateway.console.routes import Page
from services.gateway.console.store.reports import LIFT, list_reports, read_report

PATH = "/console/lift"


async def show_lift(visit: Visit) -> Response:
    """One report, the first unless another is asked for."""
    desk = visit.desk
    names = await desk.pool.run(list_reports, desk.reports, LIFT)
    name = visit.query("report") or (names[0] if names else "")
    report = await desk.pool.run(read_report, desk.reports, LIFT, name) if name else None
    return visit.page("lift.html", names=names, name=name, view=view_lift(report))


PAGES = (Page("GET", PATH, show_lift),)
