"""What the staffing drivers share: their command line, the ingest, and the corpus."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from scripts.staffing_corpus import build_corpus

GATEWAY = os.environ.get("LAKEHOUSE_GATEWAY", "http://127.0.0.1:3110")


def drive(
    description: str | None,
    dataset: str,
    write: Callable[[int, int], Iterator[bytes]],
    make_spec: Callable[[str, int], dict[str, object]],
) -> int:
    """Does what the command line asks for; gives the exit status.

    Args:
        description: of the command, for --help.
        dataset: the default name, which also says what the rows are.
        write: the CSV in pieces, of so many rows and a seed.
        make_spec: the corpus of the first so many rows of a dataset.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dataset", default=dataset)
    parser.add_argument("--mode", choices=("append", "replace"), default="replace")
    parser.add_argument("--corpus", type=int, default=0, help="embed so many of them, 0: none")
    parser.add_argument("--out", type=Path, help="write the CSV here and ingest nothing")
    arguments = parser.parse_args()
    pieces = write(arguments.rows, arguments.seed)
    if arguments.out:
        with arguments.out.open("wb") as out:
            for piece in pieces:
                out.write(piece)
        print(f"{arguments.rows} {dataset} written to {arguments.out}")
        return 0
    status = ingest(pieces, arguments.dataset, arguments.mode)
    if status or not arguments.corpus:
        return status
    return build_corpus(GATEWAY, make_headers(), make_spec(arguments.dataset, arguments.corpus))


def make_headers() -> dict[str, str]:
    """The token, where one is set."""
    token = os.environ.get("LAKEHOUSE_TOKEN")
    return {"authorization": f"Bearer {token}"} if token else {}


def ingest(pieces: Iterator[bytes], dataset: str, mode: str) -> int:
    """Streams the CSV to the gateway as it is made, and prints what came of it."""
    # A large file is a job, which is waited for like the rest.
    headers = {"content-type": "text/csv", "prefer": "wait=600"} | make_headers()
    begun = time.monotonic()
    try:
        answer = httpx.post(
            f"{GATEWAY}/v1/ingest",
            params={"dataset": dataset, "mode": mode},
            content=show_progress(pieces),
            headers=headers,
            timeout=630,
            trust_env=False,
        )
    except httpx.ConnectError:
        print(f"No gateway at {GATEWAY}. Start the fleet with: scripts/fleet.py up")
        return 1
    body = answer.json()
    if answer.status_code == 202:
        print(f"The ingest goes on as job {body['job_id']}: GET /v1/ingest/jobs/{body['job_id']}")
        return 1
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
