"""The console itself: its routes, and what holds for each request to them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextvars import Token
from urllib.parse import quote

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from services.gateway.console.core.origins import SAFE, is_own
from services.gateway.console.desk import PAGE_S, Desk, Visit, make_name, now
from services.gateway.console.door import Door
from services.gateway.console.pages import (
    chat,
    datasets,
    drift,
    files,
    fleet,
    lift,
    login,
    pathway,
    playbook,
    search,
    sql,
    workflows,
)
from services.gateway.console.routes import Page
from services.gateway.console.store.clients import Clients
from services.gateway.console.store.fleet import FleetWatch
from services.gateway.console.store.rendering import load_environment
from services.gateway.console.store.static import read_static
from shared import context
from shared.config import Config
from shared.edge import Receive, Scope, Send
from shared.errors import Forbidden, Invalid, LakehouseError, MethodNotAllowed, NotFound
from shared.pool import BlockingPool
from shared.runtime import Transports

MODULES = (
    files,
    login,
    fleet,
    datasets,
    sql,
    search,
    playbook,
    pathway,
    workflows,
    lift,
    drift,
    chat,
)
FORM = "application/x-www-form-urlencoded"
CSRF_HEADER, CSRF_FIELD = "x-csrf-token", "_csrf"


class Console:
    """An ASGI app: the pages under /console.

    Args:
        config: the whole configuration.
        door: who is let in.
        figures: gives the gateway's own `/metrics`.
        pool: threads for files.
        transports: in-process transports by service name, for tests.
    """

    def __init__(
        self,
        config: Config,
        door: Door,
        figures: Callable[[], bytes],
        pool: BlockingPool,
        transports: Transports | None,
    ) -> None:
        static = read_static()
        self._desk = Desk(
            config=config,
            door=door,
            clients=Clients(config, transports),
            fleet=FleetWatch(config, figures, door.began, transports),
            environment=load_environment(),
            static=static,
            pool=pool,
        )
        pages = [page for module in MODULES for page in module.PAGES]
        self._router = Router(
            [
                Route(path, self._answer([page for page in pages if page.path == path]))
                for path in dict.fromkeys(page.path for page in pages)
            ],
            redirect_slashes=False,
            default=self._nowhere,
        )
        for route in self._router.routes:
            assert isinstance(route, Route)
            route.methods = None  # the page answers for its methods, in its own words

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._router(scope, receive, send)

    async def aclose(self) -> None:
        """Stops looking at the fleet and closes the connections."""
        await self._desk.fleet.aclose()
        await self._desk.clients.aclose()

    def _answer(self, pages: list[Page]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            visit = self._visit(request)
            scope = request.scope
            scope["lakehouse.route"] = pages[0].path
            try:
                response = await self._serve(visit, pages)
            except LakehouseError as error:
                quiet = pages[0].polled and visit.partial
                response = Response(status_code=204) if quiet else visit.problem(error)
            except ValidationError as error:
                response = visit.problem(_describe(error))
            if visit.fresh:
                for cookie in self._desk.door.write_cookies(visit.session):
                    response.headers.append("set-cookie", cookie)
            return response

        return answer

    def _visit(self, request: Request) -> Visit:
        door = self._desk.door
        session = door.find_session(request.scope)
        if door.token and door.has_token(request.scope):
            # A program with the token needs no session, and gets none.
            return Visit(self._desk, request, door.sessions.begin("member", make_name(), now()))
        fresh = session is None
        return Visit(
            self._desk, request, session or door.sessions.begin("guest", make_name(), now()), fresh
        )

    async def _serve(self, visit: Visit, pages: list[Page]) -> Response:
        method = "GET" if visit.request.method == "HEAD" else visit.request.method
        page = next((page for page in pages if page.method == method), None)
        if page is None:
            allowed = ", ".join(page.method for page in pages)
            raise MethodNotAllowed(f"This page takes {allowed}, not {method}.")
        if self._desk.door.token and visit.session.kind != "member" and not page.open:
            return _send_to_login(visit)
        if method not in SAFE:
            await self._check_source(visit, page)
        if not page.open:
            self._desk.fleet.touch()
        limit = None if page.long else _limit_time()
        try:
            return await page.handler(visit)
        finally:
            if limit is not None:
                context.deadline.reset(limit)

    async def _check_source(self, visit: Visit, page: Page) -> None:
        """Refuses what a page of somebody else's has a browser send.

        Raises:
            Forbidden: it comes from elsewhere, or from a page of an earlier session.
        """
        headers = visit.request.headers
        if not is_own(headers["host"], headers.get("origin"), headers.get("sec-fetch-site")):
            raise Forbidden(
                "This request comes from another site, so it was not carried out. "
                "Open the console by its own address and try again."
            )
        if self._desk.door.token and self._desk.door.has_token(visit.request.scope):
            return  # no page elsewhere can send that header
        given = headers.get(CSRF_HEADER, "")
        if not given and not page.raw and headers.get("content-type", "").startswith(FORM):
            given = await visit.field(CSRF_FIELD)
        if not self._desk.door.sessions.is_form_token(visit.session, given):
            raise Forbidden("This page is too old to send anything. Load it again and repeat.")

    async def _nowhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = self._visit(Request(scope, receive))
        error = NotFound("There is no such page in the console. The menu leads to those there are.")
        door = self._desk.door
        allowed = not door.token or visit.session.kind == "member"
        response = visit.problem(error) if allowed else _send_to_login(visit)
        await response(scope, receive, send)


def _send_to_login(visit: Visit) -> Response:
    url = visit.request.url
    back = f"{url.path}?{url.query}" if url.query else url.path
    if visit.partial or visit.request.method not in SAFE:
        # The page that asked is still there; what it asked for cannot be repeated by a link.
        back = "/console"
    return visit.go(f"/console/login?next={quote(back, safe='')}")


def _limit_time() -> Token[float | None]:
    until = time.monotonic() + PAGE_S
    known = context.deadline.get()
    return context.deadline.set(until if known is None else min(until, known))


def _describe(error: ValidationError) -> Invalid:
    """What is wrong with a form, in one sentence."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the form"
    return Invalid(f"{where}: {first['msg']}. Change it and send it again.")
