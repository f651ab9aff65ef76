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


# A fresh process that loads what all daemons share, as the launcher does, and then a fork of it
# for each daemon: a line for what is shared and one for each, with all that is loaded in it.
# Thirteen processes from nothing would each spend a second on the same libraries.
FORKS = """
import importlib, os, sys
from shared.preload import SHARED_MODULES
def tell(name):
    print(name, *{m.partition(".")[0] for m in sys.modules}, flush=True)
for module in SHARED_MODULES:
    importlib.import_module(module)
tell("shared")
for name in sys.argv[1:]:
    child = os.fork()
    if not child:
        importlib.import_module(f"services.{name}.app")
        tell(name)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"services.{name}.app was not imported")
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """What is loaded in a fresh process of each daemon, and before it is any daemon's."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS, *BUILT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    return {name: set(modules) for name, *modules in rows}


@pytest.mark.xdist_group("budgets")
@pytest.mark.parametrize("name", BUILT)
def test_a_fresh_daemon_stays_within_its_budget(name: str, loaded: dict[str, set[str]]) -> None:
    # Nothing heavy may come with what is shared: a daemon's own share could not be told from it.
    assert loaded["shared"] & set(HEAVY) == set()
    over = {m: why for m, why in HEAVY.items() if m in loaded[name] - ALLOWED.get(name, set())}
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
