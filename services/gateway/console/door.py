"""The door: which browsers are let in, and how the gateway's own pages learn of it.

Light enough to be there before the console is: it looks at requests for `/docs` too.
"""

from __future__ import annotations

import secrets
import time
from http.cookies import CookieError, SimpleCookie

from services.gateway.console.core.sessions import Session, Sessions
from shared.auth import Gatekeeper
from shared.config import Config
from shared.edge import Message, Scope, Send

# Pages beside the console that a login opens. The cookie goes to these paths and no other.
OPENED = ("/docs", "/openapi.json")
CONSOLE = "/console"


class AddressCheck:
    """Lets in whom the allow-list names; the console itself asks for the token."""

    def __init__(self, gatekeeper: Gatekeeper) -> None:
        self._gatekeeper = gatekeeper

    def check(self, peer: str, authorization: bytes | None, api_key: bytes | None) -> None:
        """Lets the request pass or raises Forbidden."""
        self._gatekeeper.check_address(peer)


class Door:
    """Knows sessions.

    Args:
        config: the token, the allow-list, the port (cookies do not keep ports apart), and how
            long a session lasts.
    """

    def __init__(self, config: Config) -> None:
        section = config.gateway
        self.token = config.token
        self.gatekeeper = Gatekeeper(config.token, config.auth.allow_ips)
        self.sessions = Sessions(config.token, secrets.token_bytes(32), section.console_session_s)
        self.cookie = f"lakehouse_{section.port}"
        self.began = time.monotonic()

    def find_session(self, scope: Scope) -> Session | None:
        """The session that a request's cookie names."""
        for name, value in scope["headers"]:
            if name == b"cookie" and self.cookie.encode() in value:
                given = _read_cookie(value.decode("latin-1"), self.cookie)
                session = self.sessions.read(given, time.time()) if given else None
                if session is not None:
                    return session
        return None

    def has_token(self, scope: Scope) -> bool:
        """Whether a request brings the token itself, as programs do."""
        for name, value in scope["headers"]:
            if name == b"authorization" and value[:7].lower() == b"bearer ":
                return self.gatekeeper.is_token(value[7:].strip())
        return False

    def admit(self, scope: Scope, send: Send) -> tuple[Scope, Send]:
        """A request for one of the `OPENED` pages: with the token in place of a login.

        A browser without one is sent to the login instead of a 401.
        """
        session = self.find_session(scope)
        if session is not None and session.kind == "member":
            credentials = (b"authorization", f"Bearer {self.token}".encode())
            kept = [pair for pair in scope["headers"] if pair[0] != b"authorization"]
            return {**scope, "headers": [*kept, credentials]}, send
        html = any(n == b"accept" and b"text/html" in v for n, v in scope["headers"])
        if not html or scope["path"] != "/docs":
            return scope, send
        refused = False

        async def send_or_ask(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] == 401:
                refused = True
                await send(
                    {
                        "type": "http.response.start",
                        "status": 303,
                        "headers": [
                            (b"location", f"{CONSOLE}/login?next=/docs".encode()),
                            (b"content-length", b"0"),
                        ],
                    }
                )
            elif refused:
                await send({**message, "body": b""})
            else:
                await send(message)

        return scope, send_or_ask

    def write_cookies(self, session: Session) -> list[str]:
        """Set-Cookie values that give a browser this session, one for each path."""
        value = self.sessions.write(session)
        paths = (CONSOLE, *OPENED) if session.kind == "member" else (CONSOLE,)
        return [self._cookie(value, path, self.sessions.lasts_s) for path in paths]

    def clear_cookies(self) -> list[str]:
        """Set-Cookie values that take the session from a browser."""
        return [self._cookie("", path, 0) for path in (CONSOLE, *OPENED)]

    def _cookie(self, value: str, path: str, age_s: int) -> str:
        kept = f"{self.cookie}={value}; Path={path}; Max-Age={age_s}"
        return f"{kept}; HttpOnly; SameSite=Strict"


def _read_cookie(header: str, name: str) -> str | None:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return None
    return found.value if found is not None else None
