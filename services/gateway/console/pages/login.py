"""The login: the token once, a cookie from then on. The token stands in no page and no address."""

from __future__ import annotations

from starlette.responses import Response

from services.gateway.console.core.origins import safe_return
from services.gateway.console.core.sessions import Session
from services.gateway.console.desk import Visit, make_name, now
from services.gateway.console.routes import Page


async def show_login(visit: Visit) -> Response:
    """The form; whoever is in already is sent on."""
    back = safe_return(visit.query("next", "/console"))
    if not visit.desk.door.token or visit.session.kind == "member":
        return visit.go(back)
    return visit.page("login.html", back=back, wrong=False)


async def log_in(visit: Visit) -> Response:
    """Takes the token. A new session, so that one known before is worth no more than before."""
    door = visit.desk.door
    back = safe_return(await visit.field("next", "/console"))
    given = (await visit.field("token")).strip()
    if not door.token or not door.gatekeeper.is_token(given.encode()):
        return visit.page("login.html", status=401, back=back, wrong=True)
    response = visit.go(back)
    _give(visit, response, door.sessions.begin("member", make_name(), now()))
    return response


async def log_out(visit: Visit) -> Response:
    """Ends the session, in this browser and wherever its cookie was copied."""
    door = visit.desk.door
    door.sessions.end(visit.session, now())
    response = visit.go("/console/login" if door.token else "/console")
    visit.fresh = False
    for cookie in door.clear_cookies():
        response.headers.append("set-cookie", cookie)
    return response


def _give(visit: Visit, response: Response, session: Session) -> None:
    visit.fresh = False
    for cookie in visit.desk.door.write_cookies(session):
        response.headers.append("set-cookie", cookie)


PAGES = (
    Page("GET", "/console/login", show_login, open=True),
    Page("POST", "/console/login", log_in, open=True),
    Page("POST", "/console/logout", log_out),
)
