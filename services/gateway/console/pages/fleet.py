"""The first page: every daemon, how it is, and what it does."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from services.gateway.console.desk import Visit
from services.gateway.console.routes import Page


async def show_fleet(visit: Visit) -> Response:
    """The whole page."""
    return visit.page("fleet.html", **await _read(visit))


async def show_daemons(visit: Visit) -> Response:
    """The part that changes."""
    return visit.page("part_fleet.html", **await _read(visit))


async def _read(visit: Visit) -> dict[str, Any]:
    states = await visit.desk.fleet.read()
    built = [state for state in states if state.state != "absent"]
    rates = [state.rate.requests for state in built if state.rate is not None]
    return {
        "states": states,
        "built": len(built),
        "ready": sum(state.state == "ready" for state in built),
        "total_rate": sum(rates) if rates else None,
        "in_flight": sum(state.in_flight for state in built),
        "troubled": [state for state in built if state.state != "ready"],
    }


PAGES = (
    Page("GET", "/console", show_fleet),
    Page("GET", "/console/", show_fleet),
    Page("GET", "/console/fleet/daemons", show_daemons, polled=True),
)
