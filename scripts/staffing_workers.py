#!/usr/bin/env python3
"""Generates staffing workers, ingests them through the gateway and builds their corpus.

    scripts/staffing_workers.py                        20,000 rows into the dataset `workers`
    scripts/staffing_workers.py --rows 500000          another size
    scripts/staffing_workers.py --corpus 2000          and a corpus of the first 2,000
    scripts/staffing_workers.py --out workers.csv      only the file

The same seed and size give the same bytes, so a second run changes nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_PYTHON = ROOT / ".venv" / "bin" / "python"
if _PYTHON.exists() and Path(sys.prefix) != ROOT / ".venv":
    os.execv(_PYTHON, [str(_PYTHON), *sys.argv])
sys.path.insert(0, str(ROOT))

import argparse
import time
from collections.abc import Iterator

import httpx

from scripts.staffing_corpus import build_corpus
from scripts.staffing_data import write_workers

GATEWAY = os.environ.get("LAKEHOUSE_GATEWAY", "http://127.0.0.1:3110")


def main() -> int:
    """Parses the command line; gives the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dataset", default="workers")
    parser.add_argument("--mode", choices=("append", "replace"), default="replace")
    parser.add_argument("--corpus", type=int, default=0, help="embed so many of them, 0: none")
    parser.add_argument("--out", type=Path, help="write the CSV here and ingest nothing")
    arguments = parser.parse_args()
    pieces = write_workers(arguments.rows, arguments.seed)
    if arguments.out:
        with arguments.out.open("wb") as out:
            for piece in pieces:
                out.write(piece)
        print(f"{arguments.rows} workers written to {arguments.out}")
        return 0
    status = ingest(pieces, arguments.dataset, arguments.mode)
    if status or not arguments.corpus:
        return status
    return build_corpus(GATEWAY, make_headers(), make_spec(arguments.dataset, arguments.corpus))


def make_spec(dataset: str, rows: int) -> dict[str, object]:
    """The corpus of the first so many workers."""
    return {
        "name": dataset,
        "source": {"sql": f'select * from "{dataset}" order by worker_id limit {rows}'},
        "id": "worker_id",
        "text": "{summary} Works {shift} shifts.",
        "metadata": ["role", "city", "state", "shift", "active", "hourly_rate"],
    }


def make_headers() -> dict[str, str]:
    """The token, where one is set."""
    token = os.environ.get("LAKEHOUSE_TOKEN")
    return {"authorization": f"Bearer {token}"} if token else {}


def ingest(pieces: Iterator[bytes], dataset: str, mode: str) -> int:
    """Streams the CSV to the gateway as it is made, and prints what came of it."""
    headers = {"content-type": "text/csv"} | make_headers()
    begun = time.monotonic()
    try:
        answer = httpx.post(
            f"{GATEWAY}/v1/ingest",
            params={"dataset": dataset, "mode": mode},
            content=show_progress(pieces),
            headers=headers,
            timeout=600,
            trust_env=False,
        )
    except httpx.ConnectError:
        print(f"No gateway at {GATEWAY}. Start the fleet with: scripts/fleet.py up")
        return 1
    body = answer.json()
    if answer.status_code != 200:
        print(f"The ingest was refused: {body['error']['message']}")
        return 1
    seconds = time.monotonic() - begun
    done = "was there already" if body["duplicate"] else f"ingested in {seconds:.1f} s"
    print(
        f"{dataset}: {body['rows_out']} of {body['rows_in']} rows {done}, "
        f"{body['rejects']['count']} rejects, snapshot {body['snapshot_id']}"
    )
    return 0


def show_progress(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Passes the pieces on and says on a terminal how much has gone."""
    sent = 0
    for piece in pieces:
        sent += len(piece)
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{sent / 1e6:8.1f} MB sent")
        yield piece
    if sys.stderr.isatty():
        sys.stderr.write("\r" + " " * 24 + "\r")


if __name__ == "__main__":
    sys.exit(main())
