"""The JSON reports that commands leave under reports/: playbook_lift and drift."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# Larger files are no reports of ours. Bytes.
MOST = 8 * 1024 * 1024
LIFT, DRIFT = "reality-tests", "drift"


def list_reports(folder: Path, kind: str) -> list[str]:
    """Names of the reports of one kind, sorted."""
    found = (folder / kind).glob("*.json")
    return sorted(path.stem for path in found if path.is_file() and path.stat().st_size <= MOST)


def read_report(folder: Path, kind: str, name: str) -> Any:
    """One report as plain data; None when there is none of this name or it is not JSON.

    Only names that `list_reports` gives are opened, so a name cannot lead anywhere else.
    """
    if name not in list_reports(folder, kind):
        return None
    try:
        return json.loads((folder / kind / f"{name}.json").read_bytes())
    except (OSError, ValueError):
        return None
