#!/usr/bin/env python3
"""Generates staffing candidates, ingests them through the gateway and builds their corpus.

    scripts/staffing_candidates.py                       20,000 rows into the dataset `candidates`
    scripts/staffing_candidates.py --corpus 2000         and a corpus of the first 2,000
    scripts/staffing_candidates.py --out candidates.csv  only the file

Candidates are people who look for work, in their own words; workers (scripts/staffing_workers.py)
are those on the books. The same seed and size give the same bytes, so a second run changes nothing.
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

from scripts.staffing_corpus import build_corpus
from scripts.staffing_people import write_candidates
from scripts.staffing_workers import GATEWAY, ingest, make_headers


def main() -> int:
    """Parses the command line; gives the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dataset", default="candidates")
    parser.add_argument("--mode", choices=("append", "replace"), default="replace")
    parser.add_argument("--corpus", type=int, default=0, help="embed so many of them, 0: none")
    parser.add_argument("--out", type=Path, help="write the CSV here and ingest nothing")
    arguments = parser.parse_args()
    pieces = write_candidates(arguments.rows, arguments.seed)
    if arguments.out:
        with arguments.out.open("wb") as out:
            for piece in pieces:
                out.write(piece)
        print(f"{arguments.rows} candidates written to {arguments.out}")
        return 0
    status = ingest(pieces, arguments.dataset, arguments.mode)
    if status or not arguments.corpus:
        return status
    return build_corpus(GATEWAY, make_headers(), make_spec(arguments.dataset, arguments.corpus))


def make_spec(dataset: str, rows: int) -> dict[str, object]:
    """The corpus of the first so many candidates."""
    return {
        "name": dataset,
        "source": {
            "sql": f'select * from "{dataset}" order by candidate_id limit {rows}',
        },
        "id": "candidate_id",
        "text": "{headline}. {about} Looking for {wanted_role} in {city}, {state}, {shift} shift.",
        "metadata": ["wanted_role", "city", "state", "shift", "status", "expected_rate"],
    }


if __name__ == "__main__":
    sys.exit(main())
