"""Fleet start and memory: the forked fleet beside separately started processes.

The peer is what a plain process manager would do: the same daemons, each started as
`python -m services.<name>`. Times are seconds from the start command until every /health
(and every /ready) answers 200; memory is the summed proportional set size of all processes
of the fleet (supervisor, daemons and their workers), right after /ready.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import http.client

from scripts.fleet import read_pss_mib
from scripts.private_fleet import PYTHON, PrivateFleet
from shared.daemons import BUILT


def probe(url: str, path: str) -> bool:
    """Whether the daemon answers 200."""
    host, _, port = url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def wait_all(fleet: PrivateFleet, path: str, begun: float) -> float:
    """Seconds since `begun` until every daemon answers 200 on the path."""
    waiting = set(BUILT)
    while waiting:
        waiting = {name for name in waiting if not probe(fleet.urls[name], path)}
        if time.perf_counter() - begun > 60:
            raise RuntimeError(f"not up after 60 s: {sorted(waiting)}")
        time.sleep(0.01)
    return time.perf_counter() - begun


def descendants(roots: set[int]) -> set[int]:
    """The processes and all their children, by /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(
                    (entry / "stat").read_text().rpartition(")")[2].split()[1]
                )
            except OSError:
                continue
    found = set(roots)
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def sum_pss(roots: set[int]) -> float:
    """Summed proportional set size of the processes and their children, MiB."""
    return sum(read_pss_mib(pid) or 0.0 for pid in descendants(roots))


def run_forked() -> dict[str, float]:
    """One start of the fleet by its launcher."""
    fleet = PrivateFleet()
    begun = time.perf_counter()
    starter = subprocess.Popen(
        [str(PYTHON), str(ROOT / "scripts" / "fleet.py"), "up"],
        env=fleet.env,
        stdout=subprocess.DEVNULL,
    )
    try:
        health = wait_all(fleet, "/health", begun)
        ready = wait_all(fleet, "/ready", begun)
        starter.wait(30)
        state = json.loads((fleet.data_dir / "run" / "fleet.json").read_text())
        return {"health_s": health, "ready_s": ready, "pss_mib": sum_pss({state["pid"]})}
    finally:
        fleet.__exit__()


def run_separately() -> dict[str, float]:
    """One start of the same daemons as processes of their own."""
    fleet = PrivateFleet()
    begun = time.perf_counter()
    processes = [
        subprocess.Popen(
            [str(PYTHON), "-m", f"services.{name}"],
            cwd=ROOT,
            env=fleet.env,
            stderr=subprocess.DEVNULL,
        )
        for name in BUILT
    ]
    try:
        health = wait_all(fleet, "/health", begun)
        ready = wait_all(fleet, "/ready", begun)
        pss = sum_pss({p.pid for p in processes})
        return {"health_s": health, "ready_s": ready, "pss_mib": pss}
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(20)
        fleet.__exit__()


def main() -> int:
    """Runs both in turn and prints the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    ours: list[dict[str, float]] = []
    peer: list[dict[str, float]] = []
    for _ in range(arguments.rounds):
        ours.append(run_forked())
        peer.append(run_separately())
    rows = []
    for figure in ("health_s", "ready_s", "pss_mib"):
        mine = median(r[figure] for r in ours)
        theirs = median(r[figure] for r in peer)
        rows.append(
            {
                "figure": f"{len(BUILT)} daemons, {figure}",
                "ours": round(mine, 2),
                "peer": round(theirs, 2),
                "peer_name": "separate processes",
                "ratio": round(mine / theirs, 2),
            }
        )
        print(f"{figure:<10} forked {mine:8.2f}   separate {theirs:8.2f}   {mine / theirs:.2f} x")
    if arguments.json:
        host = {"cpus": os.cpu_count()}
        arguments.json.write_text(json.dumps({"bench": "fleet", "host": host, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
