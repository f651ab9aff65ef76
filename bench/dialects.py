"""How much of polluted CSV files comes back: ours beside DuckDB's automatic mode, no hints.

Some hundreds of files, each a clean table spoilt in one way (`tests/support/pollution.py`),
are read by our worker's conversion and by `read_csv(FILE)` of DuckDB, with its types and
with all columns as text (`all_varchar`), where a value that a type changed costs it nothing.
A file that is refused scores 0; so does one that DuckDB fails on. Rows that ours keeps as
rejects count as not come back. Points are of 10.

    python bench/dialects.py [--list] [--below 0.99] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.pollution import Polluted, pollute_all
from tests.support.pollution_readers import read_by_duckdb, read_by_duckdb_as_text, read_by_us

READERS: dict[str, Callable[[Path, Polluted], float]] = {
    "ours": read_by_us,
    "DuckDB": read_by_duckdb,
    "DuckDB, text": read_by_duckdb_as_text,
}


def run(files: Sequence[Polluted]) -> dict[str, list[float]]:
    """Each reader's scores, from 0 to 1, file by file."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="lakehouse-bench-") as folder:
        for name, reader in READERS.items():
            found[name] = [reader(Path(folder), file) for file in files]
    return found


def main() -> int:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="every file's scores")
    parser.add_argument("--below", type=float, help="only files where ours scores less")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    files = pollute_all()
    scores = run(files)
    print(f"{len(files)} files{'':<24}" + "".join(f"{name:>14}" for name in READERS))
    groups: dict[str, list[int]] = defaultdict(list)
    for place, file in enumerate(files):
        groups[file.group].append(place)
    for group, places in groups.items():
        points = (10 * mean(scores[name][place] for place in places) for name in READERS)
        print(f"  {group:<18}{len(places):>4} files  " + "".join(f"{one:>14.2f}" for one in points))
    total = {name: 10 * mean(each) for name, each in scores.items()}
    print(f"  {'all files':<18}{'':>12}" + "".join(f"{total[name]:>14.2f}" for name in READERS))
    kinds = {
        name: 10 * mean(mean(each[place] for place in places) for places in groups.values())
        for name, each in scores.items()
    }
    print(f"  {'all kinds':<18}{'':>12}" + "".join(f"{kinds[name]:>14.2f}" for name in READERS))
    if arguments.list or arguments.below is not None:
        most = 2.0 if arguments.below is None else arguments.below
        for place, file in enumerate(files):
            if scores["ours"][place] < most:
                points = "".join(f"{scores[name][place]:>8.2f}" for name in READERS)
                print(f"{points}  {file.group}: {file.name}")
    if arguments.json:
        host = {"cpus": os.cpu_count()}
        rows = [
            {
                "figure": f"polluted CSV without hints, {len(files)} files, {what}, points of 10",
                "ours": round(points["ours"], 2),
                "peer": round(points[peer], 2),
                "peer_name": f"{peer}, read_csv(FILE)",
                "ratio": round(points["ours"] / points[peer], 2),
                "target": "> DuckDB's automatic mode",
            }
            for what, points in (("each file alike", total), ("each kind alike", kinds))
            for peer in ("DuckDB", "DuckDB, text")
        ]
        arguments.json.write_text(json.dumps({"bench": "dialects", "host": host, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
