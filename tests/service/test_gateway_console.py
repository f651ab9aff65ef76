"""The console in one process: who is let in, what is refused, and that everything is escaped."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.gateway.app import create_app
from services.gateway.console.app import MODULES
from services.gateway.console.core.origins import SAFE
from shared.daemons import BUILT
from tests.support.apps import client_of, make_config
from tests.support.console import EVIL, Answers, answer_with

pytestmark = pytest.mark.anyio

TOKEN = "s3cret-token"
PAGES = [
    "/console",
    "/console/",
    "/console/fleet/daemons",
    "/console/datasets",
    "/console/datasets/evil",
    "/console/ingests/j1",
    "/console/ingests/j2",
    "/console/ingests/j1/events",
    "/console/sql?sql=select+1",
    "/console/search?q=" + EVIL,
    "/console/corpora",
    "/console/playbook",
    "/console/playbook/e1",
    "/console/pathway",
    "/console/pathway?q=evil",
    "/console/pathway/t1",
    "/console/workflows",
    "/console/workflows/r1",
    "/console/workflows/r1/live",
    "/console/lift",
    "/console/drift?dataset=evil",
    "/console/chat",
    "/console/chat/models",
    "/console/static/console.css",
    "/console/static/console.js",
    "/console/static/htmx.min.js",
    "/console/static/icon.svg",
]
SENT: list[tuple[str, dict[str, str], str]] = [
    ("/console/sql", {"sql": "select 1"}, "rows"),
    ("/console/sql/chart", {"sql": "select 1", "kind": "line", "up": "1"}, "svg"),
    ("/console/sql/download", {"sql": "select 1", "format": "csv"}, "a,b"),
    ("/console/datasets/ingest?dataset=evil", {}, '"/console/ingests/j1"'),
    ("/console/datasets/ingest?dataset=evil&mode=upsert&key=id", {}, '"/console/ingests/j1"'),
    ("/console/ingests/j2/cancel", {}, "Cancelled"),
    ("/console/datasets/evil/rejects", {"ingest": "i1"}, "/console/datasets/evil_rejects"),
    (
        "/console/search/rate",
        {"query": "q", "corpus": "evil", "id": "1", "rating": "1", "shown": "a"},
        "Recorded",
    ),
    ("/console/search/undo", {"episode": "e1"}, "Taken back"),
    ("/console/corpora", {"name": "n", "dataset": "evil", "id": "id", "text": "{a}"}, "corpora"),
    ("/console/corpora/evil/refresh", {}, "corpora"),
    ("/console/playbook/e1/retire", {"reason": "slip"}, "/console/playbook/e1"),
    ("/console/pathway/t1/retire", {"reason": "old"}, "/console/pathway/t1"),
    ("/console/workflows", {"document": "name: a"}, "/console/workflows/r1"),
    ("/console/workflows/r1/cancel", {}, "node"),
    ("/console/workflows/r1/resume", {}, "node"),
    ("/console/drift/compare", {"dataset": "evil", "before": "1", "now": "2"}, "by more than"),
    ("/console/chat/send", {}, "data:"),
    ("/console/login", {"token": "x"}, "not the token"),
    ("/console/logout", {}, "/console"),
]


@asynccontextmanager
async def console(
    tmp_path: Path, answers: Answers | None = None, **sections: dict[str, Any]
) -> AsyncGenerator[tuple[httpx.AsyncClient, Answers]]:
    """A gateway whose daemons give canned answers, hostile ones unless told otherwise."""
    given = answers or Answers()
    config = make_config(tmp_path, **sections)
    transports = {
        name: httpx.MockTransport(answer_with(given, name)) for name in BUILT if name != "gateway"
    }
    async with client_of(create_app(config, transports=transports)) as client:
        yield client, given


async def form_token(client: httpx.AsyncClient, page: str = "/console/chat") -> str:
    """The form token of the client's session, as its pages carry it."""
    found = re.search(r'"x-csrf-token": "([0-9a-f]+)"', (await client.get(page)).text)
    assert found is not None
    return found[1]


async def send(client: httpx.AsyncClient, path: str, fields: dict[str, str]) -> httpx.Response:
    """What HTMX sends."""
    headers = {"hx-request": "true", "x-csrf-token": await form_token(client)}
    if path.endswith("/chat/send"):
        body = {"model": "tier/local_fast", "messages": [{"role": "user", "content": "hi"}]}
        return await client.post(path, json=body, headers=headers)
    return await client.post(path, data=fields, headers=headers)


class Dangers(HTMLParser):
    """What a browser would run, or load from elsewhere, if the content policy let it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in ("style", "iframe", "object", "embed", "base", "b") or (
            tag in ("script", "img") and not given.get("src", "").startswith("/console/static/")
        ):
            self.found.append(f"<{tag}>")
        for name, value in given.items():
            address = name in ("href", "src", "action", "formaction") or name.startswith("hx-")
            wrong = re.match(r"\s*(javascript|data|https?):|//", value) if address else None
            if name.startswith("on") or name == "style" or wrong:
                self.found.append(f"{tag} {name}={value[:60]}")


def list_dangers(page: str) -> list[str]:
    """The dangers of a page; nothing is lost to a parser that a browser would find."""
    parser = Dangers()
    parser.feed(page)
    parser.close()
    return parser.found


def test_dangers_are_found_where_they_are() -> None:
    assert list_dangers(EVIL) == ["<img>", 'img onerror=alert("1")', "<script>"]
    assert list_dangers('<a href="javascript:x" style="a">b</a>') == [
        "a href=javascript:x",
        "a style=a",
    ]


def test_every_route_is_tried_here() -> None:
    tried = {path.partition("?")[0] for path in [*PAGES, *(path for path, _, _ in SENT)]}
    tried |= {"/console/login", "/console/datasets/evil/rejects.parquet"}
    for module in MODULES:
        for page in module.PAGES:
            pattern = re.sub(r"\{\w+\}", "[^/]+", page.path)
            assert any(re.fullmatch(pattern, path) for path in tried), page.path


async def test_a_search_of_traces_keeps_to_the_state_that_was_chosen(tmp_path: Path) -> None:
    async with console(tmp_path) as (client, _):
        for state, shown in (("", True), ("live", True), ("superseded", False)):
            page = await client.get(f"/console/pathway?q=evil&status={state}")
            assert ("/console/pathway/t1" in page.text) is shown, state


@pytest.mark.parametrize("path", PAGES)
async def test_pages_escape_whatever_daemons_answer(tmp_path: Path, path: str) -> None:
    async with console(tmp_path) as (client, _):
        answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    assert EVIL not in answer.text
    assert "<b onclick" not in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    if "static" not in path:
        assert answer.headers["cache-control"] == "no-store"
        assert list_dangers(answer.text) == []


@pytest.mark.parametrize("path", [p for p in PAGES if "evil" in p.lower() or "/t1" in p])
async def test_hostile_text_is_shown_as_text(tmp_path: Path, path: str) -> None:
    async with console(tmp_path) as (client, _):
        answer = await client.get(path)
    assert "&lt;img src=x onerror" in answer.text or "chat" in path or "drift" in path


@pytest.mark.parametrize(("path", "fields", "wanted"), SENT, ids=[path for path, _, _ in SENT])
async def test_what_a_page_sends_is_carried_out(
    tmp_path: Path, path: str, fields: dict[str, str], wanted: str
) -> None:
    async with console(tmp_path) as (client, _):
        answer = await send(client, path, fields)
    shown = answer.text + answer.headers.get("hx-redirect", "")
    assert wanted in shown, shown
    assert EVIL not in answer.text or "event-stream" in answer.headers["content-type"]


@pytest.mark.parametrize("path", [path for path, _, _ in SENT])
async def test_nothing_is_done_without_the_pages_own_token(tmp_path: Path, path: str) -> None:
    async with console(tmp_path) as (client, given):
        token = await form_token(client)
        given.calls.clear()
        tries: list[dict[str, str]] = [
            {},
            {"x-csrf-token": "0" * 64},
            {"x-csrf-token": token, "origin": "http://evil.example"},
            {"x-csrf-token": token, "origin": "null"},
            {"x-csrf-token": token, "sec-fetch-site": "cross-site"},
            {"x-csrf-token": token, "origin": "http://127.0.0.1:9999"},
        ]
        for headers in tries:
            refused = await client.post(path, data={"sql": "select 1"}, headers=headers)
            assert refused.status_code == 403, headers
        # Another browser's token, and this one's without its cookie.
        client.cookies.clear()
        refused = await client.post(path, headers={"x-csrf-token": token})
        assert refused.status_code == 403
        other = await client.get(path.partition("?")[0])
        assert other.status_code in (200, 303, 404, 405)
        changed = [call for call in given.calls if call.method not in SAFE]
        assert [call for call in changed if "/search" not in call.url.path] == []


async def test_the_token_field_of_a_form_is_taken_too(tmp_path: Path) -> None:
    async with console(tmp_path) as (client, _):
        token = await form_token(client)
        fields = {"_csrf": token, "sql": "select 1"}
        same = {"origin": "http://127.0.0.1", "sec-fetch-site": "same-origin"}
        answer = await client.post("/console/sql", data=fields, headers=same)
    assert answer.status_code == 200
    assert "<!doctype html>" in answer.text


async def test_a_foreign_host_is_refused(tmp_path: Path) -> None:
    async with console(tmp_path) as (client, _):
        answer = await client.get("/console", headers={"host": "rebound.example"})
    assert answer.status_code == 421


async def test_methods_and_pages_that_there_are_not(tmp_path: Path) -> None:
    async with console(tmp_path) as (client, _):
        assert (await client.get("/console/nope")).status_code == 404
        assert (await client.get("/console/static/../app.py")).status_code == 404
        assert (await client.get("/console/static/nope.css")).status_code == 404
        refused = await client.delete("/console/sql")
        assert refused.status_code == 405
        assert (await client.head("/console/chat")).status_code == 200
        # What only begins like the console is the gateway's own to answer.
        assert "error" in (await client.get("/consoles")).json()


async def test_the_token_is_asked_for_once_and_never_shown(tmp_path: Path) -> None:
    async with console(tmp_path, auth={"token": TOKEN}) as (client, given):
        for path in PAGES:
            answer = await client.get(path)
            if "static" in path:
                assert answer.status_code == 200
                continue
            assert answer.status_code == 303
            assert answer.headers["location"].startswith("/console/login?next=%2Fconsole")
        partial = await client.get("/console/fleet/daemons", headers={"hx-request": "true"})
        assert partial.headers["hx-redirect"].startswith("/console/login")
        assert given.calls == []
        token = await form_token(client, "/console/login")
        wrong = {"_csrf": token, "token": "guess", "next": "/console/sql"}
        refused = await client.post("/console/login", data=wrong)
        assert refused.status_code == 401
        taken = await client.post("/console/login", data={**wrong, "token": TOKEN})
        assert (taken.status_code, taken.headers["location"]) == (303, "/console/sql")
        cookies = taken.headers.get_list("set-cookie")
        assert len(cookies) == 3
        for cookie in cookies:
            assert "HttpOnly; SameSite=Strict" in cookie
            assert TOKEN not in cookie
        page = await client.get("/console/datasets")
        assert page.status_code == 200
        assert TOKEN not in page.text
        # Daemons get the fleet's token, whatever the browser holds.
        assert {call.headers.get("authorization") for call in given.calls} == {f"Bearer {TOKEN}"}
        # The session is the console's alone.
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/openapi.json")).status_code == 200
        assert (await client.get("/docs")).status_code == 200
        kept = {one.name: str(one.value) for one in client.cookies.jar if one.path == "/console"}
        out = {"_csrf": await form_token(client)}
        gone = await client.post("/console/logout", data=out)
        assert gone.headers["location"] == "/console/login"
        copied = "; ".join(f"{name}={value}" for name, value in kept.items())
        client.cookies.clear()
        back = await client.get("/console", headers={"cookie": copied})
        assert back.status_code == 303


async def test_the_api_page_leads_a_browser_to_the_login_and_a_program_to_a_401(
    tmp_path: Path,
) -> None:
    async with console(tmp_path, auth={"token": TOKEN}) as (client, _):
        browser = await client.get("/docs", headers={"accept": "text/html,*/*"})
        assert (browser.status_code, browser.content) == (303, b"")
        assert browser.headers["location"] == "/console/login?next=/docs"
        assert (await client.get("/docs")).status_code == 401
        assert (await client.get("/openapi.json")).status_code == 401
        bearer = {"authorization": f"Bearer {TOKEN}", "accept": "text/html"}
        assert (await client.get("/docs", headers=bearer)).status_code == 200


async def test_a_program_with_the_token_needs_no_login(tmp_path: Path) -> None:
    async with console(tmp_path, auth={"token": TOKEN}) as (client, _):
        headers = {"authorization": f"Bearer {TOKEN}"}
        answer = await client.post("/console/sql", data={"sql": "select 1"}, headers=headers)
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers
        evil = {**headers, "origin": "http://evil.example"}
        refused = await client.post("/console/sql", data={"sql": "select 1"}, headers=evil)
        assert refused.status_code == 403


async def test_the_allow_list_holds_for_the_console(tmp_path: Path) -> None:
    auth = {"token": TOKEN, "allow_ips": ["10.0.0.0/8"]}
    async with console(tmp_path, auth=auth) as (client, _):
        assert (await client.get("/console/login")).status_code == 403


@pytest.mark.parametrize("path", [p for p in PAGES if "static" not in p])
async def test_a_fleet_that_is_away_is_told_in_a_sentence(tmp_path: Path, path: str) -> None:
    async with console(tmp_path, Answers(down=True)) as (client, _):
        answer = await client.get(path)
    usable = ("/console", "/console/", "/console/fleet", "/console/sql", "/console/chat")
    lift = path.startswith(("/console/lift", "/console/drift"))
    if path in usable or path.startswith(usable[2:]) or lift:
        assert answer.status_code == 200
    else:
        assert answer.status_code == 503
        assert "cannot be reached" in answer.text
    assert "Traceback" not in answer.text


async def test_an_error_is_a_part_for_htmx_and_polls_keep_quiet(tmp_path: Path) -> None:
    htmx = {"hx-request": "true"}
    async with console(tmp_path, Answers(down=True)) as (client, _):
        part = await client.get("/console/corpora", headers=htmx)
        assert part.status_code == 503
        assert "<!doctype" not in part.text
        assert 'class="problem"' in part.text
        poll = await client.get("/console/workflows/r1/live", headers=htmx)
        assert (poll.status_code, poll.content) == (204, b"")


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/console/sql", {"sql": "  "}),
        ("/console/sql/download", {"sql": "select 1", "format": "exe"}),
        ("/console/search/rate", {"query": "q", "corpus": "c", "id": "1", "rating": "5"}),
        ("/console/search/rate", {"query": "", "corpus": "c", "id": "1", "rating": "1"}),
        ("/console/corpora", {"name": "n", "dataset": "", "id": "id", "text": "x"}),
        ("/console/workflows", {"document": ""}),
        ("/console/datasets/ingest?dataset=a&mode=destroy", {}),
        ("/console/chat/send", {"model": "x"}),
    ],
)
async def test_a_wrong_form_says_what_to_do(
    tmp_path: Path, path: str, fields: dict[str, str]
) -> None:
    async with console(tmp_path) as (client, _):
        headers = {"hx-request": "true", "x-csrf-token": await form_token(client)}
        answer = await client.post(path, data=fields, headers=headers)
    assert answer.status_code == 400
    assert 'class="problem"' in answer.text


async def test_a_form_without_end_is_refused(tmp_path: Path) -> None:
    async with console(tmp_path) as (client, _):
        headers = {"x-csrf-token": await form_token(client)}
        answer = await client.post("/console/sql", data={"sql": "x" * 5_000_000}, headers=headers)
    assert answer.status_code == 413


async def test_one_press_of_a_thumb_is_one_episode(tmp_path: Path) -> None:
    fields = {"query": "q", "corpus": "evil", "id": "1", "rating": "1", "shown": "a"}
    async with console(tmp_path) as (client, given):
        for _ in range(2):
            await send(client, "/console/search/rate", fields)
        await send(client, "/console/search/rate", {**fields, "rating": "-1"})
    keys = [call.headers["idempotency-key"] for call in given.calls if call.method == "POST"]
    assert keys[0] == keys[1] != keys[2]


async def test_only_rejects_that_the_catalogue_names_are_opened(tmp_path: Path) -> None:
    async with console(tmp_path) as (client, given):
        good = await client.get("/console/datasets/evil/rejects.parquet?ingest=i1")
        assert good.content == b"PAR1"
        assert "attachment" in good.headers["content-disposition"]
        for asked in ("", "../../secrets", "unknown"):
            path = "/console/datasets/evil/rejects.parquet"
            refused = await client.get(path, params={"ingest": asked})
            assert refused.status_code == 404
        read = [call.url.path for call in given.calls if "/storage/" in call.url.path]
        assert read == ["/storage/objects/datasets/u/rejects/x.parquet"]


async def test_reports_outside_their_folder_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    (folder / "reality-tests").mkdir(parents=True)
    (tmp_path / "secret.json").write_text('{"arms": {"a": {"delta": 1, "low": 0, "high": 2}}}')
    (folder / "reality-tests" / "broken.json").write_text("{")
    async with console(tmp_path, gateway={"console_reports": folder}) as (client, _):
        assert "broken" in (await client.get("/console/lift")).text
        outside = await client.get("/console/lift", params={"report": "../../secret"})
    assert "cannot be shown" in outside.text
    assert "svg viewBox" not in outside.text


async def test_the_rest_of_a_page_survives_a_daemon_that_is_away(tmp_path: Path) -> None:
    answers = Answers(away={"queryd"})
    async with console(tmp_path, answers) as (client, _):
        page = await client.get("/console/datasets/evil")
    assert page.status_code == 200
    assert "queryd cannot be reached" in page.text
    assert "Snapshots and rejects" in page.text


def test_nothing_of_the_console_is_loaded_before_it_is_asked_for() -> None:
    import subprocess
    import sys

    code = (
        "import sys, services.gateway.app; "
        "print('jinja2' in sys.modules, 'services.gateway.console.app' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
