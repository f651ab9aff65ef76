"""Who a browser is: a signed cookie, and a form token bound to it.

The cookie holds no secret of the fleet: a kind (guest, or member once the token was given), a
random name, an end, and an HMAC over them. It is worth nothing under another token, so
changing the token ends every session. Forms carry an HMAC over the cookie's random name,
which a page from elsewhere can neither read nor make.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Literal

Kind = Literal["guest", "member"]
_KINDS: dict[str, Kind] = {"guest": "guest", "member": "member"}


@dataclass(frozen=True, slots=True)
class Session:
    """One browser until `ends`, in seconds since 1970."""

    kind: Kind
    name: str
    ends: int


class Sessions:
    """Makes and reads cookies.

    Args:
        token: the fleet's secret; empty when there is none.
        secret: random bytes of this process, which stand in for a token where there is none.
        lasts_s: seconds that a session lasts.
    """

    def __init__(self, token: str, secret: bytes, lasts_s: float) -> None:
        material = token.encode() if token else secret
        self._key = hmac.digest(material, b"lakehouse console", hashlib.sha256)
        self.lasts_s = int(lasts_s)
        self._ended: dict[str, int] = {}

    def begin(self, kind: Kind, name: str, now: float) -> Session:
        """A session that begins now. `name` must be random: it is what forms are bound to."""
        return Session(kind, name, int(now) + self.lasts_s)

    def write(self, session: Session) -> str:
        """The cookie's value."""
        body = f"{session.kind}.{session.name}.{session.ends}"
        return f"{body}.{self._sign('session', body)}"

    def read(self, value: str, now: float) -> Session | None:
        """The session of a cookie; None when it is forged, over, or was ended."""
        body, _, signature = value.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign("session", body).encode()):
            return None
        kind, name, ends = body.split(".")
        session = Session(_KINDS[kind], name, int(ends))
        return None if session.ends <= now or name in self._ended else session

    def end(self, session: Session, now: float) -> None:
        """Has a session refused from now on, also where its cookie was copied."""
        self._ended = {name: ends for name, ends in self._ended.items() if ends > now}
        self._ended[session.name] = session.ends

    def form_token(self, session: Session) -> str:
        """What forms of this session carry."""
        return self._sign("form", session.name)

    def is_form_token(self, session: Session, given: str) -> bool:
        """Whether a form was made for this session, in constant time."""
        return hmac.compare_digest(given.encode(), self.form_token(session).encode())

    def _sign(self, use: str, text: str) -> str:
        return hmac.digest(self._key, f"{use}\0{text}".encode(), hashlib.sha256).hex()
