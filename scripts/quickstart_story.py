#!/usr/bin/env python3
"""The story that `scripts/quickstart` tells once everything is installed."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import httpx

from scripts.staffing_data import write_workers
from shared.config import ConfigError, load

DATASET = "workers"
QUERIES = (
    (
        "How many workers are active, and what do they cost?",
        "SELECT count(*) AS workers, round(avg(hourly_rate), 2) AS mean_rate "
        "FROM workers WHERE active",
    ),
    (
        "Which roles have the most people free by Friday in Illinois?",
        "SELECT role, count(*) AS available, min(hourly_rate) AS from_rate FROM workers "
        "WHERE state = 'IL' AND active AND available_from <= DATE '2026-11-06' "
        "GROUP BY role ORDER BY available DESC, role LIMIT 5",
    ),
    (
        "Who are the best-rated certified forklift operators around Newark?",
        "SELECT worker_id, first_name || ' ' || last_name AS name, zip, rating, hourly_rate "
        "FROM workers WHERE role = 'Forklift Operator' AND certifications LIKE '%OSHA forklift%' "
        "AND zip LIKE '07%' AND rating IS NOT NULL ORDER BY rating DESC, hourly_rate LIMIT 5",
    ),
)


CORPUS = "workers-quickstart"
EMBEDDED_ROWS = 2_000
SEARCHES = (
    "someone to drive a pallet truck and load lorries",
    "takes care of patients on the ward at night",
)
# A need, the same in other words, and another one; who did well stood at this rank for it.
NEEDS = (
    "nurse for wound care in an intensive ward",
    "an RN who can look after wounds in intensive care",
    "bookkeeper who closes the month in SAP",
)
CHOSEN_RANK = 7


class StoryError(Exception):
    """A step that did not work; the message says what to do."""


@contextmanager
def step(title: str) -> Generator[list[str]]:
    """Shows a step while it runs, and its time and outcome when it is done."""
    outcome: list[str] = []
    live = sys.stdout.isatty()
    if live:
        print(f"  … {title}", end="", flush=True)
    begun = time.monotonic()
    yield outcome
    seconds = time.monotonic() - begun
    line = f"  ✓ {title}: {' '.join(outcome)} ({seconds:.1f} s)"
    print(f"\r{line.ljust(78)}" if live else line, flush=True)


def main() -> int:
    """Runs all steps; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="workers to generate")
    parser.add_argument("--install-ns", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        config = load(ROOT / "config" / "lakehouse.toml", os.environ)
    except ConfigError as error:
        print(error)
        return 2
    print(f"\nLakehouse\n  ✓ install ({arguments.install_ns / 1e9:.1f} s)")
    headers = {"authorization": f"Bearer {config.token}"} if config.token else {}
    gateway = config.gateway.address
    try:
        with step("start the fleet") as outcome:
            outcome.append(start_fleet())
        with httpx.Client(
            base_url=gateway, headers=headers, timeout=600, trust_env=False
        ) as client:
            tell_story(client, arguments.rows)
    except StoryError as error:
        print(f"\n\n{error}")
        return 1
    show_next_steps(gateway, bool(config.token))
    return 0


def start_fleet() -> str:
    """Brings the fleet up, or finds it running; gives the launcher's last line."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "fleet.py"), "up"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StoryError(done.stdout + done.stderr)
    return done.stdout.strip().splitlines()[-1].rstrip(".")


def tell_story(client: httpx.Client, rows: int) -> None:
    """Generates, ingests, queries, builds a corpus, searches it, and learns."""
    data_file = ROOT / "data" / "quickstart" / f"workers-{rows}.csv"
    with step(f"generate {rows:,} workers") as outcome:
        size = generate(data_file, rows)
        outcome.append(f"{size / 1e6:.0f} MB of CSV at {data_file.relative_to(ROOT)}")
    with step("ingest them as the table `workers`") as outcome:
        with data_file.open("rb") as source:
            answer = client.post(
                "/v1/ingest",
                params={"dataset": DATASET, "mode": "replace"},
                content=read_with_progress(source, size),
                headers={"content-type": "text/csv"},
            )
        body = check(answer)
        outcome.append(
            f"{body['rows_in']:,} rows in, {body['rows_out']:,} in the table, "
            f"{body['rejects']['count']:,} rejects, {len(body['schema'])} columns"
            + (", was there already" if body["duplicate"] else "")
        )
    print("\n  Three questions in SQL, through the gateway:")
    for question, sql in QUERIES:
        body = check(client.post("/v1/sql", json={"sql": sql}))
        print(f"\n  {question} ({body['elapsed_ms']:.0f} ms)")
        show_table([c["name"] for c in body["columns"]], body["rows"])
    print()
    with step(f"embed {EMBEDDED_ROWS:,} of them and build a corpus") as outcome:
        outcome.append(build_corpus(client))
    print("\n  Searches by meaning in the matrix; no word needs to match:")
    for words in SEARCHES:
        print(f"\n  “{words}”")
        hits = search(client, words, playbook=False, k=3)
        rows = [[f"{h['score']:.2f}", h["id"], shorten(h["text"])] for h in hits]
        show_table(["score", "worker", "summary"], rows)
    print()
    tell_playbook(client)


def build_corpus(client: httpx.Client) -> str:
    """Builds the corpus, or brings it up to date; gives what came of it."""
    spec = {
        "name": CORPUS,
        "source": {"sql": f"select * from workers order by worker_id limit {EMBEDDED_ROWS}"},
        "id": "worker_id",
        "text": "{summary} Works {shift} shifts.",
        "metadata": ["role", "city", "state"],
    }
    options = {"params": {"wait": 0, "replace": True}}
    info = check(client.post("/v1/matrix/corpora", json=spec, **options))
    if info["job"]["status"] == "done":
        info = check(client.post(f"/v1/matrix/corpora/{CORPUS}/refresh", params={"wait": 0}))
    while info["job"]["status"] not in ("done", "failed"):
        show_progress(f"{info['job']['done']:,} of {info['job']['total']:,}")
        time.sleep(0.2)
        info = check(client.get(f"/v1/matrix/corpora/{CORPUS}"))
    if info["job"]["status"] == "failed":
        raise StoryError(f"The corpus could not be built: {info['job']['error']}")
    return f"{info['documents']:,} documents, {info['job']['done']:,} of them embedded now"


def search(client: httpx.Client, query: str, *, playbook: bool, k: int = 50) -> list[Any]:
    """Hits of a search in the matrix."""
    body = {"query": query, "corpora": [CORPUS], "k": k, "use_playbook": playbook}
    return check(client.post("/v1/matrix/search", json=body))["hits"]


def tell_playbook(client: httpx.Client) -> None:
    """Records what worked for a query, and shows what that does to others."""
    need, paraphrase, unrelated = NEEDS
    chosen = search(client, need, playbook=False, k=10)[CHOSEN_RANK - 1]
    with step("record in the playbook who did well") as outcome:
        rating = {"corpus": CORPUS, "id": chosen["id"], "rating": 1}
        body = {"query": need, "ratings": [rating], "source": "quickstart", "corpora": [CORPUS]}
        episode = check(client.post("/v1/matrix/playbook", json=body))
        outcome.append(f"{chosen['id']} for “{need}”")
        if episode["duplicate"]:
            outcome.append("(was recorded already)")
    rows: list[list[Any]] = []
    for title, query in (("the same", need), ("in other words", paraphrase)):
        ranks = [
            find_rank(search(client, query, playbook=on), chosen["id"]) for on in (False, True)
        ]
        rows.append([title, f"“{query}”", *ranks])
    cold, warm = (search(client, unrelated, playbook=on) for on in (False, True))
    changed = "unchanged, byte for byte" if cold == warm else "changed"
    rows.append(["unrelated", f"“{unrelated}”", changed, ""])
    print(f"\n  Where {chosen['id']} stands ({shorten(chosen['text'], 60)}):")
    show_table(["query", "", "before", "after"], rows)


def find_rank(hits: list[Any], name: str) -> str:
    """Where a document stands among hits."""
    return next((f"rank {h['rank']}" for h in hits if h["id"] == name), f"below {len(hits)}")


def shorten(text: str, width: int = 76) -> str:
    """The beginning of a text that is too long for one line."""
    return text if len(text) <= width else text[: width - 1] + "…"


def generate(path: Path, rows: int) -> int:
    """Writes the CSV, unless it is there already; gives its size in bytes."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_suffix(".tmp")
        with staged.open("wb") as out:
            for piece in write_workers(rows):
                out.write(piece)
                show_progress(f"{out.tell() / 1e6:.0f} MB")
        staged.replace(path)
    return path.stat().st_size


def read_with_progress(source: Any, size: int) -> Iterator[bytes]:
    """Pieces of a file, telling how far it has come."""
    sent = 0
    while piece := source.read(1 << 20):
        sent += len(piece)
        show_progress(f"{100 * sent // max(size, 1)} % sent")
        yield piece


def show_progress(text: str) -> None:
    """Writes behind the running step's title, on a terminal only."""
    if sys.stdout.isatty():
        print(f"\033[s  {text:<12}\033[u", end="", flush=True)


def check(answer: httpx.Response) -> Any:
    """The body of a good answer; a bad one ends the story with what it said."""
    body = answer.json()
    if answer.status_code >= 400:
        raise StoryError(
            f"The gateway answered {answer.status_code}: {body['error']['message']}\n"
            "See: scripts/fleet.py status, scripts/fleet.py logs"
        )
    return body


def show_table(names: list[str], rows: list[list[Any]]) -> None:
    """Prints rows under their column names, aligned."""
    cells = [["" if value is None else str(value) for value in row] for row in rows]
    widths = [max(len(c) for c in column) for column in zip(names, *cells, strict=True)]
    for line in (names, ["─" * width for width in widths], *cells):
        print("    " + "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())


def show_next_steps(gateway: str, with_token: bool) -> None:
    """Addresses, and three curl lines to go on with."""
    auth = " -H 'Authorization: Bearer YOUR_TOKEN'" if with_token else ""
    print(
        f"""
  The fleet is running. Gateway: {gateway}   API: {gateway}/docs
  In a browser: {gateway}/console   From your own CSV to lift: docs/TUTORIAL.md

  Try:
    curl -s{auth} {gateway}/v1/matrix/search -H 'Content-Type: application/json' \\
      -d '{{"query": "a welder near New York", "k": 3, "use_playbook": true, "explain": true}}'
    curl -s{auth} {gateway}/v1/sql -H 'Content-Type: application/json' \\
      -d '{{"sql": "select role, count(*) as n from workers group by role order by n desc"}}'
    curl -s{auth} '{gateway}/v1/ingest?dataset=mine' -H 'Content-Type: text/csv' \\
      --data-binary @your.csv

  scripts/fleet.py status shows the daemons, scripts/fleet.py down stops them.
"""
    )


if __name__ == "__main__":
    sys.exit(main())
