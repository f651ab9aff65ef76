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

from scripts.staffing_driver import drive
from scripts.staffing_people import write_candidates


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
    sys.exit(drive(__doc__, "candidates", write_candidates, make_spec))
