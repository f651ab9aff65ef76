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

from scripts.staffing_data import write_workers
from scripts.staffing_driver import drive


def make_spec(dataset: str, rows: int) -> dict[str, object]:
    """The corpus of the first so many workers."""
    return {
        "name": dataset,
        "source": {"sql": f'select * from "{dataset}" order by worker_id limit {rows}'},
        "id": "worker_id",
        "text": "{summary} Works {shift} shifts.",
        "metadata": ["role", "city", "state", "shift", "active", "hourly_rate"],
    }


if __name__ == "__main__":
    sys.exit(drive(__doc__, "workers", write_workers, make_spec))
