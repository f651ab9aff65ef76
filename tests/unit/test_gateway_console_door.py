"""Sessions, form tokens, origins: who a browser is, and where a request comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.gateway.console.core.origins import is_own, safe_return
from services.gateway.console.core.sessions import Sessions
from services.gateway.console.door import Door
from shared.edge import Message
from tests.support.apps import make_config

NOW = 1_000_000.0


def make(token: str = "tok", secret: bytes = b"s") -> Sessions:
    return Sessions(token, secret, 3600)


def test_a_cookie_is_read_back_until_its_end() -> None:
    sessions = make()
    cookie = sessions.write(sessions.begin("member", "abc", NOW))
    found = sessions.read(cookie, NOW + 3599)
    assert found is not None
    assert (found.kind, found.name) == ("member", "abc")
    assert sessions.read(cookie, NOW + 3600) is None


def test_a_cookie_cannot_be_made_or_changed() -> None:
    sessions = make()
    cookie = sessions.write(sessions.begin("guest", "abc", NOW))
    for forged in (
        cookie.replace("guest", "member"),
        cookie.replace("abc", "abd"),
        cookie[:-1] + ("0" if cookie[-1] != "0" else "1"),
        "",
        "....",
        "member.abc.9999999999.",
        "é" * 40,
    ):
        assert sessions.read(forged, NOW) is None


def test_another_token_ends_every_session_and_the_same_one_keeps_them() -> None:
    cookie = make("tok").write(make("tok").begin("member", "abc", NOW))
    assert make("other").read(cookie, NOW) is None
    # Another process of the same fleet, whose random secret is another.
    assert make("tok", b"other").read(cookie, NOW) is not None
    assert make("", b"a").read(make("", b"b").write(make().begin("guest", "x", NOW)), NOW) is None


def test_an_ended_session_is_refused_and_forgotten_at_its_end() -> None:
    sessions = make()
    session = sessions.begin("member", "abc", NOW)
    sessions.end(session, NOW)
    assert sessions.read(sessions.write(session), NOW + 1) is None
    sessions.end(sessions.begin("member", "later", NOW + 9000), NOW + 9000)
    assert sessions.read(sessions.write(session), NOW + 9000) is None


def test_a_form_token_belongs_to_one_session() -> None:
    sessions = make()
    mine, other = sessions.begin("guest", "a", NOW), sessions.begin("guest", "b", NOW)
    assert sessions.is_form_token(mine, sessions.form_token(mine))
    assert not sessions.is_form_token(mine, sessions.form_token(other))
    assert not sessions.is_form_token(mine, "")
    assert not sessions.is_form_token(mine, "ü")
    assert sessions.form_token(mine) not in sessions.write(mine)


@pytest.mark.parametrize(
    ("origin", "site", "own"),
    [
        ("http://127.0.0.1:3110", "same-origin", True),
        ("http://127.0.0.1:3110", None, True),
        (None, None, True),
        (None, "none", True),
        ("http://127.0.0.1:8000", "same-site", False),
        ("http://127.0.0.1:8000", None, False),
        ("http://evil.example", "cross-site", False),
        ("null", None, False),
        ("http://127.0.0.1:3110", "cross-site", False),
        ("http://127.0.0.1:3110.evil.example", None, False),
    ],
)
def test_a_request_is_taken_only_from_our_own_pages(
    origin: str | None, site: str | None, own: bool
) -> None:
    assert is_own("127.0.0.1:3110", origin, site) is own


@pytest.mark.parametrize(
    ("path", "safe"),
    [
        ("/console/sql?sql=select+1", "/console/sql?sql=select+1"),
        ("/docs", "/docs"),
        ("//evil.example", "/console"),
        ("/console//evil.example", "/console"),
        ("https://evil.example", "/console"),
        ("/\\evil.example", "/console"),
        ("/console/\r\nset-cookie: a=b", "/console"),
        ("/consoles", "/console"),
        ("", "/console"),
    ],
)
def test_a_login_leads_only_to_our_own_pages(path: str, safe: str) -> None:
    assert safe_return(path) == safe


def scope_of(path: str, **headers: str) -> dict[str, Any]:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "path": path, "headers": pairs}


async def collect(_: Message) -> None:
    """Takes a message."""


def test_the_door_turns_a_login_into_the_token_for_the_api_page(tmp_path: Path) -> None:
    door = Door(make_config(tmp_path, auth={"token": "tok"}))
    member = door.sessions.begin("member", "abc", 2e9)
    guest = door.sessions.begin("guest", "abc", 2e9)
    named = {s.kind: f"a=b; {door.cookie}={door.sessions.write(s)}" for s in (member, guest)}
    scope, _ = door.admit(scope_of("/docs", cookie=named["member"]), collect)
    assert (b"authorization", b"Bearer tok") in scope["headers"]
    scope, _ = door.admit(scope_of("/docs", cookie=named["guest"]), collect)
    assert all(name != b"authorization" for name, _ in scope["headers"])


def test_cookies_keep_to_the_console_and_the_api_page(tmp_path: Path) -> None:
    door = Door(make_config(tmp_path, auth={"token": "tok"}, gateway={"port": 4000}))
    cookies = door.write_cookies(door.sessions.begin("member", "abc", 2e9))
    assert [c.split("; ")[1] for c in cookies] == [
        "Path=/console",
        "Path=/docs",
        "Path=/openapi.json",
    ]
    for cookie in cookies:
        assert cookie.startswith("lakehouse_4000=member.")
        assert cookie.endswith("HttpOnly; SameSite=Strict")
        assert "tok" not in cookie.replace("token", "")
