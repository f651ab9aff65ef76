#!/usr/bin/env python3
"""Writes docs/BENCHMARKS.md from bench/results/*.json: our figure, the peer's, the ratio.

Every benchmark writes `{"bench": name, "host": {…}, "rows": [{"figure", "ours", "peer",
"peer_name", "ratio", "target"?}]}`, with the `command` where it is not the usual one. Figures on
these machines are noisy; the ratio comes from one run and is what to read.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "BENCHMARKS.md"


def format_figure(value: object) -> str:
    """A number with as many digits as it deserves."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def render_bench(result: dict[str, Any], when: str) -> str:
    """One benchmark as a heading and a table."""
    command = result.get("command", f"just bench {result['bench']}")
    lines = [
        f"## {result['bench']}",
        "",
        f"`{command}`, {when}.",
        "",
        "| Figure | Ours | Beside | Its figure | Ratio | Asked |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        cells = (
            row["figure"],
            format_figure(row.get("ours")),
            row.get("peer_name", ""),
            format_figure(row.get("peer")),
            format_figure(row.get("ratio")),
            row.get("target", ""),
        )
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Writes the page; gives the exit status."""
    results = sorted(RESULTS.glob("*.json"))
    if not results:
        print("No results under bench/results. Run: just bench")
        return 1
    parts = [
        "# Benchmarks",
        "",
        "Written by `just bench`; each ratio is from one run on one machine "
        f"({os.cpu_count()} cores, Python {platform.python_version()}), where single figures "
        "are noisy and ratios are what to read.",
    ]
    for path in results:
        when = datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%d")
        parts += ["", render_bench(json.loads(path.read_text("utf-8")), when)]
    PAGE.write_text("\n".join(parts) + "\n", "utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {len(results)} benchmarks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
