"""Script, style and icon. They hold nothing of the fleet's, so the login page may have them."""

from __future__ import annotations

from starlette.responses import Response

from services.gateway.console.desk import HEADERS, Visit
from services.gateway.console.routes import Page
from shared.errors import NotFound

# Their addresses change with their content.
_KEPT = "public, max-age=31536000, immutable"


async def get_file(visit: Visit) -> Response:
    """One static file."""
    found = visit.desk.static.get(visit.request.path_params["name"])
    if found is None:
        raise NotFound("There is no such file in the console.")
    headers = {**HEADERS, "cache-control": _KEPT, "etag": f'"{found.version}"'}
    return Response(found.content, 200, headers, found.media_type)


PAGES = (Page("GET", "/console/static/{name}", get_file, open=True),)
