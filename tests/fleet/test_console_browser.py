"""The console in a real browser against a real fleet: every page is clicked through.

No page may have its browser complain: no error, nothing refused by the content policy, no
request to anywhere else. axe-core looks for what keeps people with a keyboard or a screen
reader out. CONSOLE_PICTURES=DIR keeps pictures of every page, wide and narrow, light and dark.
"""

from __future__ import annotations

import re
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from scripts.private_fleet import PrivateFleet
from scripts.staffing_data import write_workers
from tests.support.browser import DESKTOP, PHONE, Watched, launched, open_page

pytestmark = pytest.mark.timeout(600)

ROWS = 600
EMBEDDED = 120
EVIL = '<img src=x onerror=alert("cell")><script>alert(1)</script>'
EVIL_COLUMN = "<b onclick=alert(2)>name</b>"
PAGES = {
    "fleet": "/console",
    "datasets": "/console/datasets",
    "dataset": "/console/datasets/workers",
    "hostile": "/console/datasets/hostile",
    "sql": "/console/sql",
    "search": "/console/search?q=a+nurse+for+night+shifts&playbook=on",
    "playbook": "/console/playbook",
    "pathway": "/console/pathway",
    "trace": "/console/pathway/tried-1",
    "workflows": "/console/workflows",
    "run": "/console/workflows/seen-1",
    "lift": "/console/lift",
    "drift": "/console/drift?dataset=workers",
    "chat": "/console/chat",
    "missing": "/console/datasets/no_such_dataset",
}
# Both widths and both colours; the other two looks differ in neither alone.
EXAMINED = ("wide-light", "narrow-dark")
FLOW = """
name: staffing report
run_id: seen-1
outcome: $rows.output.rows[0][0]
nodes:
  - {id: rows, mode: sql, with: {sql: "select count(*) from workers"}}
  - {id: gate, mode: matrix.downgrade, with: {mode: composed, model: tier/frontier_review}}
  - {id: find, mode: matrix.search, depends_on: [rows], with: {query: "night nurse", k: 3}}
  - {id: shout, mode: fixture.upper, depends_on: [find, gate], with: {text: "found"}}
  - {id: broken, mode: sql, with: {sql: "select * from no_such_table"}}
  - {id: after, mode: fixture.echo, depends_on: [broken, shout]}
"""


def fill(api: httpx.Client) -> None:
    """Real data: workers, a hostile file with a reject, a corpus, traces, a run."""
    lines = b"".join(write_workers(ROWS)).decode().splitlines(keepends=True)
    for part in (lines[: ROWS // 2], [lines[0], *lines[ROWS // 2 :]]):
        post(api, "/v1/ingest?dataset=workers", content="".join(part).encode())
    quoted = EVIL.replace('"', '""')
    column = EVIL_COLUMN.replace('"', '""')
    hostile = f'"{column}",id\n"{quoted}",1\nplain,2\ntoo,many,fields\n'
    post(api, "/v1/ingest?dataset=hostile", content=hostile.encode())
    specs: list[dict[str, Any]] = [
        {
            "name": "workers",
            "source": {"sql": f"select * from workers order by worker_id limit {EMBEDDED}"},
            "id": "worker_id",
            "text": "{summary} Works {shift} shifts.",
            "metadata": ["role", "city", "state", "hourly_rate"],
        },
        {
            "name": "hostile",
            "source": {"dataset": "hostile"},
            "id": "id",
            "text": "a nurse for night shifts {" + EVIL_COLUMN + "}",
            "metadata": [EVIL_COLUMN],
        },
    ]
    for spec in specs:
        post(api, "/v1/matrix/corpora?wait=120", json=spec)
    rated = [{"corpus": "workers", "id": "W-000003", "rating": 1}]
    episode = {"query": f"books closed in a ledger {EVIL}", "ratings": rated, "source": "test"}
    post(api, "/v1/matrix/playbook", json=episode)
    for number in (1, 2):
        content = {"task": "match a night nurse", "note": EVIL, "outcome": "worked"}
        trace = {"id": f"tried-{number}", "content": content, "tags": ["staffing", EVIL]}
        post(api, "/v1/pathway/traces", json=trace)
    api.put("/v1/pathway/traces/tried-1", json={"content": {"task": "match", "n": 2}})
    post(
        api,
        "/v1/observer/workflows/runs",
        content=FLOW.encode(),
        headers={"content-type": "application/yaml"},
    )
    api.get("/v1/observer/workflows/runs/seen-1?wait=60").raise_for_status()


def post(api: httpx.Client, path: str, **sent: Any) -> None:
    """Sends, and stops the tests where it fails."""
    headers = {"content-type": "text/csv"} if "ingest" in path else {}
    answer = api.post(path, headers={**headers, **sent.pop("headers", {})}, **sent)
    assert answer.is_success, answer.text


@pytest.fixture(scope="module")
def base() -> Generator[str]:
    """A fleet with something in it."""
    settings = {"MODELS__LOCAL_FAST": "fake/fake-chat:latest"}
    with PrivateFleet(settings=settings) as fleet:
        url = fleet.urls["gateway"]
        with httpx.Client(base_url=url, timeout=180, trust_env=False) as api:
            fill(api)
        yield url


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    """One browser for all of them."""
    with launched() as found:
        yield found


@pytest.fixture
def watched(browser: Browser, base: str) -> Generator[Watched]:
    """A window; whatever its browser complained about fails the test."""
    context, window = open_page(browser, base)
    yield window
    context.close()
    assert window.complaints == []


@pytest.mark.parametrize("look", ["wide-light", "wide-dark", "narrow-light", "narrow-dark"])
def test_every_page_is_whole_in_every_look(browser: Browser, base: str, look: str) -> None:
    width, colour = look.split("-")
    size = DESKTOP if width == "wide" else PHONE
    context, window = open_page(browser, base, size=size, dark=colour == "dark")
    axe = Axe()
    found: list[str] = []
    for name, path in PAGES.items():
        page = window.go(path)
        if name == "sql":
            run_sql(page, "select role, count(*) n, avg(hourly_rate) pay from workers group by 1")
        if name == "drift":
            page.get_by_role("button", name="Compare").click()
            expect(page.locator("#compared table")).to_be_visible()
        if name == "chat":
            page.get_by_label("Message").fill("welders in Oslo")
            page.get_by_role("button", name="Send").click()
            expect(page.locator(".turn-note")).to_be_visible()
        page.wait_for_load_state("networkidle") if name not in ("fleet", "run") else None
        window.picture(f"{look}-{name}")
        assert page.locator("main h1").count() == 1
        # Nothing but boxes made for it scrolls sideways.
        if page.evaluate("document.documentElement.scrollWidth - innerWidth") > 0:
            found.append(f"{name}: the page is wider than its window")
        if look in EXAMINED:
            problems = violations(axe.run(page))
            found += [f"{name}: {v['id']}: {v['nodes'][0]['html'][:120]}" for v in problems]
        complaints = window.take_complaints()
        if name == "missing":  # a 404 is told on the browser's own console
            complaints = [one for one in complaints if "404" not in one]
        found += [f"{name}: {one}" for one in complaints]
    context.close()
    assert not found, "\n".join(found)


def violations(report: Any) -> list[Any]:
    """What axe-core found."""
    return report.response["violations"]


def run_sql(page: Page, sql: str) -> None:
    """Runs a query as a person does."""
    page.get_by_label("Query", exact=True).fill(sql)
    page.get_by_label("Query", exact=True).press("Control+Enter")
    expect(page.locator("#sql-result h2").first).to_be_visible()


def test_the_fleet_is_shown_alive(watched: Watched, base: str) -> None:
    page = watched.go("/console")
    assert page.locator("tbody tr").count() == 13
    assert page.locator(".badge-ready").count() >= 12
    with httpx.Client(base_url=base, trust_env=False) as api:
        deadline = time.monotonic() + 30
        while page.locator("svg.spark").count() < 12:
            api.get("/v1/sql/tables")
            assert time.monotonic() < deadline, "no sparklines"
            page.wait_for_timeout(100)
    row = page.get_by_role("row", name="queryd")
    expect(row.locator("td").nth(5)).not_to_have_text("0", timeout=15_000)


def test_a_keyboard_reaches_everything(watched: Watched) -> None:
    page = watched.go("/console")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page = watched.go("/console")
    seen: list[str] = []
    for _ in range(14):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.textContent.trim()"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", seen[-1]
    wanted = {"Fleet", "Datasets", "SQL", "Search", "Playbook", "Pathway", "Workflows", "Chat"}
    assert wanted <= set(seen)


def test_a_file_is_ingested_with_its_progress(watched: Watched, tmp_path: Path) -> None:
    file = tmp_path / "My Staff.csv"
    file.write_text("name,age\n" + "".join(f"n{i},{i}\n" for i in range(5000)) + "a,b,c,d\n")
    page = watched.go("/console/datasets")
    page.get_by_label("File", exact=True).set_input_files(file)
    assert page.get_by_label("Dataset", exact=True).input_value() == "my_staff"
    page.get_by_role("button", name="Ingest").click()
    expect(page.locator("#ingest-progress")).to_be_visible()
    expect(page.locator("#ingest-result")).to_contain_text("5,000 rows are in my_staff")
    expect(page.locator("#ingest-result")).to_contain_text("1 of 5,001 could not be used")
    watched.picture("ingested")
    page.get_by_role("link", name="Look at my_staff").click()
    expect(page.get_by_role("heading", name="my_staff")).to_be_visible()
    assert page.locator("td.warn").inner_text() == "1"
    with page.expect_download() as told:
        page.get_by_role("link", name="Download rejects").click()
    assert Path(told.value.path()).read_bytes()[:4] == b"PAR1"
    page.get_by_role("button", name="Open rejects").click()
    expect(page.get_by_role("heading", name="my_staff_rejects")).to_be_visible()
    expect(page.locator(".data").first).to_contain_text("too_many_fields")


def test_an_ingest_shows_its_stages_and_is_cancelled(
    watched: Watched, base: str, tmp_path: Path
) -> None:
    file = tmp_path / "long.csv"
    with file.open("w") as out:
        out.write("id,name\n")
        # Quotes that are not doubled make it the careful reader's, which takes a while.
        out.writelines(f'{i},"a "quoted" name {i}"\n' for i in range(1_500_000))
    page = watched.go("/console/datasets")
    page.locator("#file").set_input_files(file)
    page.get_by_role("button", name="Ingest").click()
    words = page.locator("#ingest-words")
    expect(words).to_contain_text("every row", timeout=30_000)
    expect(words).to_contain_text("rows · ", timeout=30_000)
    expect(words).to_contain_text(" MB")
    watched.picture("ingesting")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#ingest-result")).to_contain_text("nothing was stored")
    expect(page.locator("#ingest-progress")).to_be_hidden()
    tables = httpx.get(f"{base}/v1/catalog/datasets", trust_env=False).json()["datasets"]
    assert "long" not in [one["name"] for one in tables]


def test_an_upsert_replaces_by_key(watched: Watched, tmp_path: Path) -> None:
    for mode, text in (
        ("append", "id,name\n1,Ann\n2,Bob\n"),
        ("upsert", "id,name\n2,Bea\n3,Cy\n"),
    ):
        file = tmp_path / "people.csv"
        file.write_text(text)
        page = watched.go("/console/datasets")
        page.locator("#file").set_input_files(file)
        assert page.locator("#key").is_hidden()
        page.get_by_label("Rows", exact=True).select_option(mode)
        if mode == "upsert":
            page.get_by_label("Key", exact=True).fill("id")
        page.get_by_role("button", name="Ingest").click()
        expect(page.locator("#ingest-result")).to_contain_text("2 rows are in people")
    expect(page.locator("#ingest-result")).to_contain_text("1 took the place of others")
    watched.picture("upserted")
    files = [tmp_path / "p1.csv", tmp_path / "p2.jsonl"]
    files[0].write_text("id,name\n8,Bo\n")
    files[1].write_text('{"id": 9, "name": "Cy"}\n')
    page.reload()
    page.locator("#file").set_input_files(files)
    page.get_by_label("Dataset", exact=True).fill("people")
    page.get_by_role("button", name="Ingest").click()
    expect(page.locator("#ingest-result")).to_contain_text("p2.jsonl: 1 of 1 rows")


def test_a_refused_file_says_why(browser: Browser, base: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.csv"
    file.write_text("other,columns\n1,2\n")
    context, window = open_page(browser, base)
    page = window.go("/console/datasets")
    page.get_by_label("File", exact=True).set_input_files(file)
    page.get_by_label("Dataset", exact=True).fill("workers")
    page.get_by_role("button", name="Ingest").click()
    problem = page.locator("#ingest-result .problem")
    expect(problem).to_be_visible()
    assert "does not go together" in problem.inner_text()
    window.picture("refused")
    context.close()


def test_sql_is_run_kept_drawn_and_downloaded(watched: Watched) -> None:
    page = watched.go("/console/sql")
    page.locator("#tables button", has_text="workers").first.click()
    assert "workers" in page.get_by_label("Query", exact=True).input_value()
    run_sql(page, "select city, count(*) as n from workers group by 1 order by 2 desc limit 8")
    expect(page.locator("#sql-result h2").first).to_have_text("8 rows")
    expect(page.locator("#chart rect.bar")).to_have_count(8)
    page.get_by_label("as", exact=True).select_option("line")
    expect(page.locator("#chart polyline.line")).to_have_count(1)
    with page.expect_download() as told:
        page.get_by_role("button", name="CSV").click()
    text = Path(told.value.path()).read_text()
    assert text.splitlines()[0] == "city,n"
    assert len(text.splitlines()) == 9
    with page.expect_download() as told:
        page.get_by_role("button", name="JSON").click()
    assert '"columns"' in Path(told.value.path()).read_text()
    run_sql(page, "select 1 as one")
    page = watched.go("/console/sql")
    expect(page.locator("#history li")).to_have_count(2)
    page.locator("#history button").last.click()
    assert "city" in page.get_by_label("Query", exact=True).input_value()


def test_a_wrong_query_is_told_in_place(browser: Browser, base: str) -> None:
    context, window = open_page(browser, base)
    page = window.go("/console/sql")
    page.get_by_label("Query", exact=True).fill("select * from no_such_table_here")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#sql-result .problem")).to_contain_text("no_such_table_here")
    window.picture("sql-wrong")
    context.close()


def test_a_search_explains_itself_and_learns(watched: Watched) -> None:
    page = watched.go("/console/search")
    page.get_by_label("What are you looking for?").fill("somebody for wound care at night")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("li.hit")).to_have_count(10)
    assert "q=somebody" in page.url
    last = page.locator("li.hit").nth(6)
    wanted = last.locator("h3").inner_text()
    last.locator("summary").click()
    expect(last.locator(".facts")).to_contain_text("Meaning (cosine)")
    last.get_by_title("It answers the query").click()
    expect(page.locator(".rated")).to_contain_text("Recorded")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#hits details.note")).to_contain_text("1 recorded episode took part")
    expect(page.locator("li.hit").first.locator("h3")).to_have_text(wanted)
    expect(page.locator("li.hit").first.locator(".moved")).to_contain_text("up from")
    watched.picture("search-learned")
    page.locator("#hits details.note a").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("somebody for wound care at night")
    watched.picture("episode")
    page.get_by_label("Reason").fill("only a try")
    page.get_by_role("button", name="Withdraw").click()
    expect(page.locator(".note")).to_contain_text("only a try")
    page = watched.go("/console/playbook")
    page.get_by_label("Show withdrawn ones").check()
    expect(page.locator("tr.faded")).to_contain_text("somebody for wound care")


def test_a_corpus_is_built_from_the_page(watched: Watched) -> None:
    page = watched.go("/console/search?dataset=hostile")
    page.get_by_label("Name").fill("small")
    page.get_by_label("Id", exact=True).fill("id")
    page.get_by_label("Text").fill("number {id}")
    page.get_by_role("button", name="Build").click()
    row = page.locator("#corpora-list tr", has_text="small")
    expect(row.locator(".badge-ready")).to_be_visible(timeout=60_000)
    row.get_by_role("button", name="Refresh").click()
    expect(row.locator(".badge-ready")).to_be_visible(timeout=60_000)


def test_a_trace_is_found_and_retired(watched: Watched) -> None:
    page = watched.go("/console/pathway")
    page.get_by_label("Search the traces").fill("night nurse")
    page.get_by_role("button", name="Search").click()
    page.locator("a[href$='tried-2']").click()
    expect(page.locator("pre.box").first).to_contain_text("match a night nurse")
    page.get_by_label("Reason").fill("no longer true")
    page.get_by_role("button", name="Retire").click()
    expect(page.locator(".timeline")).to_contain_text("no longer true")
    expect(page.locator("h1 .badge")).to_have_text("retired")


def test_a_workflow_is_started_watched_and_cancelled(watched: Watched) -> None:
    page = watched.go("/console/workflows")
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".node-running").first).to_be_visible()
    watched.picture("run-live")
    expect(page.locator(".run .badge").first).to_have_text("completed", timeout=30_000)
    expect(page.locator(".node-completed")).to_have_count(4)
    expect(page.locator(".run pre")).to_contain_text("HELLO")
    page = watched.go("/console/workflows")
    slow = "name: slow\nnodes:\n  - {id: a, mode: fixture.echo, with: {delay_ms: 60000}}\n"
    page.get_by_label("YAML or JSON").fill(slow)
    page.get_by_role("button", name="Start").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".run .badge").first).to_have_text("cancelled")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".run .badge").first).to_have_text("cancelled")


def test_lift_and_drift_show_every_report(watched: Watched) -> None:
    for path in ("/console/lift", "/console/drift"):
        page = watched.go(path)
        tabs = page.locator(".tabs a")
        assert tabs.count() >= 4
        for address in [tab.get_attribute("href") for tab in tabs.all()]:
            page = watched.go(str(address))
            assert page.locator("main .empty", has_text="cannot be shown").count() == 0
            assert page.locator(".plot svg, main table").count() >= 1


def test_a_chat_streams_and_is_kept(watched: Watched) -> None:
    page = watched.go("/console/chat")
    expect(page.get_by_label("Model")).to_have_value("tier/local_fast")
    page.get_by_label("Message").fill(EVIL)
    page.get_by_label("Message").press("Enter")
    expect(page.locator(".turn-note")).to_contain_text("tokens")
    assert EVIL in page.locator(".turn-assistant .turn-text").inner_text()
    page.reload()
    expect(page.locator(".turn")).to_have_count(2)
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".turn")).to_have_count(0)


def test_hostile_content_is_text_everywhere(watched: Watched) -> None:
    places = {
        "/console/datasets/hostile": "table.data",
        "/console/search?q=a+nurse+for+night+shifts&corpus=hostile&k=5": "#hits",
        "/console/playbook": "main table",
        "/console/pathway": "main table",
        "/console/pathway/tried-1": "main",
    }
    for path, where in places.items():
        page = watched.go(path)
        assert "onerror=alert" in page.locator(where).first.text_content(), path
        assert page.locator("main img, main script, main b[onclick]").count() == 0, path
    page = watched.go("/console/sql")
    run_sql(page, "select * from hostile")
    assert EVIL in page.locator("table.data").text_content()
    assert page.locator("#sql-result img, #sql-result script").count() == 0
    assert re.search("onclick", page.locator("#chart-title").locator("..").text_content() or "")


def test_the_console_asks_for_the_token_and_opens_the_api(browser: Browser) -> None:
    with PrivateFleet(("storaged", "catalogd", "gateway"), {"AUTH__TOKEN": "s3cret-token"}) as own:
        base = own.urls["gateway"]
        context, window = open_page(browser, base)
        page = window.go("/docs")
        assert page.url == f"{base}/console/login?next=/docs"
        window.picture("login")
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("not the token")
        window.take_complaints()  # the refusal, told on the browser's own console
        page.get_by_label("Token").fill("s3cret-token")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="Lakehouse API")).to_be_visible()
        expect(page.locator("#operations details").first).to_be_visible()
        page = window.go("/console/datasets")
        assert "s3cret-token" not in page.content() + page.url
        assert page.evaluate("document.cookie") == ""
        page.get_by_role("button", name="Log out").click()
        assert page.url.startswith(f"{base}/console/login")
        assert window.go("/console/sql").url.startswith(f"{base}/console/login")
        assert window.complaints == []
        context.close()
