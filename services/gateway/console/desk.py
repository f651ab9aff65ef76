"""What every page works with: the request, its session, the fleet, and how it is answered."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.console.core.sessions import Session
from services.gateway.console.door import Door
from services.gateway.console.store.clients import Clients
from services.gateway.console.store.fleet import FleetWatch
from services.gateway.console.store.static import StaticFile
from shared.config import Config
from shared.errors import LakehouseError, TooLarge
from shared.pool import BlockingPool
from shared.version import VERSION

# Longest form: a query of a million characters, encoded. Bytes.
MOST_FORM = 4 * 1024 * 1024
# Seconds that a page may take to be put together.
PAGE_S = 30.0

HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not no-referrer: under that a browser hides where a form comes from.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Desk:
    """The parts that pages share."""

    config: Config
    door: Door
    clients: Clients
    fleet: FleetWatch
    environment: Environment
    static: Mapping[str, StaticFile]
    pool: BlockingPool

    @property
    def reports(self) -> Path:
        """Where reports lie."""
        return (self.config.base_dir / self.config.gateway.console_reports).resolve()


@dataclass(slots=True)
class Visit:
    """One request to the console.

    `fresh` is set where the browser had no session yet: the answer brings it one.
    """

    desk: Desk
    request: Request
    session: Session
    fresh: bool = False
    _form: dict[str, list[str]] | None = field(default=None)

    @property
    def fleet(self) -> Clients:
        """Clients of the daemons."""
        return self.desk.clients

    @property
    def partial(self) -> bool:
        """Whether HTMX asks for a part of a page."""
        return "hx-request" in self.request.headers and (
            "hx-history-restore-request" not in self.request.headers
            and "hx-boosted" not in self.request.headers
        )

    def query(self, name: str, default: str = "") -> str:
        """A parameter of the address."""
        return self.request.query_params.get(name, default)

    async def form(self) -> dict[str, list[str]]:
        """The form's fields.

        Raises:
            TooLarge: it is longer than any form here.
        """
        if self._form is None:
            body = bytearray()
            async for piece in self.request.stream():
                body += piece
                if len(body) > MOST_FORM:
                    raise TooLarge("The form is too long. Send less at once.")
            text = body.decode("utf-8", "replace")
            self._form = parse_qs(text, keep_blank_values=True, max_num_fields=2000)
        return self._form

    async def field(self, name: str, default: str = "") -> str:
        """One field of the form; browsers send line ends as CR LF."""
        return (await self.form()).get(name, [default])[-1].replace("\r\n", "\n")

    def render(self, template: str, **values: Any) -> str:
        """A template's text."""
        return self.desk.environment.get_template(template).render(
            values,
            csrf=self.desk.door.sessions.form_token(self.session),
            member=self.session.kind == "member",
            path=self.request.url.path,
            version=VERSION,
        )

    def page(self, template: str, /, *, status: int = 200, **values: Any) -> Response:
        """A template as the answer."""
        return self.answer(self.render(template, **values), status)

    def answer(self, html: str, status: int = 200) -> Response:
        """A page or a part of one."""
        return Response(html, status, dict(HEADERS), "text/html; charset=utf-8")

    def problem(self, error: LakehouseError) -> Response:
        """An error in one sentence: alone where a part of a page was asked for, else as a page."""
        template = "part_error.html" if self.partial else "error.html"
        return self.page(template, status=error.status, error=error)

    def go(self, path: str) -> Response:
        """Sends the browser to another page of this console."""
        if self.partial:
            return Response("", 200, {**HEADERS, "hx-redirect": path})
        return Response("", 303, {**HEADERS, "location": path})


Handler = Callable[[Visit], Awaitable[Response]]


def make_name() -> str:
    """A random name for a session."""
    return secrets.token_hex(16)


def now() -> float:
    """Seconds since 1970."""
    return time.time()
