"""What each daemon may import: its memory and its start are paid by whoever runs thirteen."""

from __future__ import annotations

import subprocess
import sys

import pytest

from shared.daemons import BUILT, ROOT

HEAVY = {
    "boto3": "only storaged speaks S3",
    "duckdb": "worker processes own DuckDB; a daemon with it inside could be harmed by a query",
    "hnswlib": "only vectord holds indexes",
    "jinja2": "only the console has templates, and it is loaded at its first page",
    "mcp": "only mcpd speaks MCP",
    "numpy": "loaded with Arrow in the stores that need it",
    "onnxruntime": "only embedd runs models",
    "pandas": "nobody needs it",
    "psycopg": "only a catalogd whose database is a server speaks to one, once it opens it",
    "pyarrow": "worker processes own Arrow",
    "pyiceberg": "only catalogd commits",
    "tantivy": "only vectord searches text",
    "sqlalchemy": "only catalogd has a SQL catalogue",
}
ALLOWED: dict[str, set[str]] = {
    "catalogd": {"sqlalchemy"},
    "storaged": {"boto3"},
}


@pytest.mark.parametrize("name", BUILT)
def test_a_fresh_daemon_stays_within_its_budget(name: str) -> None:
    code = f"import services.{name}.app, sys; print(*{{m.partition('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    over = {m: why for m, why in HEAVY.items() if m in loaded - ALLOWED.get(name, set())}
    assert over == {}


def test_the_launcher_loads_nothing_heavy_and_starts_no_thread() -> None:
    code = (
        "import sys, threading\n"
        "from shared.daemons import BUILT\n"
        "from shared.preload import preload\n"
        "preload(BUILT)\n"
        "print(threading.active_count(), *{m.partition('.')[0] for m in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    threads, *loaded = done.stdout.split()
    assert threads == "1"
    assert set(loaded) & set(HEAVY) == set()
