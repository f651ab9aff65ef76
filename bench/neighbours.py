"""What a query gone wrong costs the queries beside it.

One client asks two small queries in turn, one of them right after the other and one after a
pause, first alone, then beside a runaway of each kind, phase by phase, so that both have seen
the same machine:

- cpu: a sum over more rows than anybody waits for, on as many threads as a query has;
- spill: a count of distinct values that outgrows its memory and goes on on disk;
- hoard: a list that outgrows its memory and fails for it, asked again and again.

Each comes from a caller of its own and with a text of its own, so that nothing is known of it.

Figures: the neighbours' p95 beside a runaway over their p95 alone (from all samples of a kind of
phase, with the least and the most of single rounds), and by how much runaways outlive their
deadline: until they are answered, and until their process is gone.

    python bench/neighbours.py [--rounds 2] [--phase 8] [--json FILE]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import secrets
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.query import load_tables
from scripts.private_fleet import PrivateFleet

ROWS = 300_000
DAEMONS = ("storaged", "catalogd", "queryd")
NEIGHBOURS = {
    "count": "SELECT count(*) FROM staff",
    "group": "SELECT role, city, avg(hourly_rate), max(updated_at) FROM staff GROUP BY ALL",
}
RUNAWAYS = {
    "cpu": "SELECT sum(hash(i)) FROM range(1000000000000) AS t(i)",
    "spill": "SELECT count(DISTINCT hash(i)) FROM range(1000000000000) AS t(i)",
    "hoard": "SELECT len(list(i)) FROM range(1000000000000) AS t(i)",
}
# Between two neighbours, so that one in two finds the processors taken.
PAUSE_S = 0.01
# A runaway lasts this much longer than its neighbours are watched.
MARGIN_S = 0.3
WORKERS = 2
# For a worker that starts to be warm.
SETTLE_S = 0.6


@dataclass
class Phase:
    """What was seen in the phases of one kind of runaway ("" for none)."""

    seconds: dict[str, list[list[float]]] = field(
        default_factory=lambda: {name: [] for name in NEIGHBOURS}
    )
    answered_late: list[float] = field(default_factory=list[float])
    gone_late: list[float] = field(default_factory=list[float])

    def p95(self, name: str) -> float:
        """Over all rounds."""
        return read_p95([second for one in self.seconds[name] for second in one])


def read_p95(seconds: list[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(seconds, n=100)[94]


class Client:
    """Queries on a connection that is kept."""

    def __init__(self, url: str, caller: str) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=120)
        self._headers = {"content-type": "application/json", "x-caller": caller}

    def ask(self, sql: str, timeout_s: float) -> tuple[int, float]:
        """Status and seconds of one query."""
        body = json.dumps({"sql": sql, "timeout_s": timeout_s})
        begun = time.perf_counter()
        self._connection.request("POST", "/sql", body, self._headers)
        response = self._connection.getresponse()
        response.read()
        return response.status, time.perf_counter() - begun


def list_children(pid: int) -> set[int]:
    """A process's children that are not dead."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            try:
                state = Path(f"/proc/{child}/stat").read_text().rpartition(") ")[2][0]
            except OSError:
                continue
            if state not in "ZX":
                found.add(int(child))
    return found


def list_workers(daemon: int) -> set[int]:
    """queryd's worker processes that are not dead: its template's children."""
    return {pid for template in list_children(daemon) for pid in list_children(template)}


@contextmanager
def run_beside(fleet: PrivateFleet, kind: str, seconds: float, phase: Phase) -> Iterator[None]:
    """A runaway around a `with` block, which is to take `seconds`."""
    if not kind:
        yield
        return
    name = secrets.token_hex(8)
    daemon, client = fleet.pid("queryd"), Client(fleet.urls["queryd"], name)
    sql = f"{RUNAWAYS[kind]} -- {name}"
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            before = list_workers(daemon)
            status, took = client.ask(sql, seconds + MARGIN_S)
            if status != 504:
                if kind != "hoard" or status != 422:
                    raise RuntimeError(f"{kind}: {status}")
                continue
            late = took - seconds - MARGIN_S
            begun = time.perf_counter()
            while len(before & list_workers(daemon)) == len(before):
                time.sleep(0.002)
            phase.answered_late.append(late)
            phase.gone_late.append(late + time.perf_counter() - begun)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def ask_for(client: Client, seconds: float, phase: Phase) -> None:
    """Asks the small queries in turn for so long."""
    found: dict[str, list[float]] = {name: [] for name in NEIGHBOURS}
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for pause in (0.0, PAUSE_S):
            for name, sql in NEIGHBOURS.items():
                time.sleep(pause)
                status, took = client.ask(sql, 30)
                if status != 200:
                    raise RuntimeError(f"{name}: {status}")
                found[name].append(took)
    for name, some in found.items():
        phase.seconds[name].append(some)


def wait_warm(daemon: int) -> None:
    """Waits until the workers are there, and have nothing to do."""
    deadline = time.monotonic() + 20
    while len(list_workers(daemon)) < WORKERS:
        if time.monotonic() > deadline:
            raise RuntimeError("the workers did not come back")
        time.sleep(0.01)
    time.sleep(SETTLE_S)


def measure(fleet: PrivateFleet, rounds: int, seconds: float) -> dict[str, Phase]:
    """Phases by kind of runaway, all in turn in every round, each after one without."""
    phases = {kind: Phase() for kind in ("", *RUNAWAYS)}
    client = Client(fleet.urls["queryd"], "neighbour")
    with tempfile.TemporaryDirectory(prefix="bench-neighbours-") as made:
        load_tables(fleet, ROWS, Path(made))
    ask_for(client, 1.0, Phase())
    for _ in range(rounds):
        for kind in RUNAWAYS:
            ask_for(client, seconds / 2, phases[""])
            with run_beside(fleet, kind, seconds, phases[kind]):
                ask_for(client, seconds, phases[kind])
            wait_warm(fleet.pid("queryd"))
    return phases


def report(phases: dict[str, Phase]) -> list[dict[str, object]]:
    """Rows of the report, of one fleet."""
    rows: list[dict[str, object]] = []
    alone = phases[""]
    for kind in RUNAWAYS:
        for name in NEIGHBOURS:
            here, there = phases[kind].p95(name), alone.p95(name)
            single = [read_p95(one) / there for one in phases[kind].seconds[name]]
            rows.append(
                {
                    "figure": f"p95 of {name} beside {kind}, ms "
                    f"(rounds {min(single):.2f} to {max(single):.2f})",
                    "ours": here * 1000,
                    "peer": there * 1000,
                    "peer_name": "alone",
                    "ratio": here / there,
                    "target": "≤ 1.1",
                }
            )
    for what, limit in (("answered_late", "answered"), ("gone_late", "gone")):
        late = [one * 1000 for kind in RUNAWAYS for one in getattr(phases[kind], what)]
        rows.append(
            {
                "figure": f"runaway {limit} after its deadline, worst of {len(late)}, ms",
                "ours": max(late),
                "peer": 250.0,
                "peer_name": "limit",
                "ratio": max(late) / 250,
                "target": "≤ 1",
            }
        )
    return rows


def main() -> None:
    """Measures, prints a table, writes JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--phase", type=float, default=8.0, help="seconds of a runaway")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    with PrivateFleet(DAEMONS, {"LOG__LEVEL": "warning"}) as fleet:
        rows = report(measure(fleet, args.rounds, args.phase))
    for row in rows:
        print(
            f"{row['figure']:62} {row['ours']:8.2f} {row['peer']:8.2f} {row['ratio']:6.2f}"
            f"  {row['peer_name']} {row['target']}"
        )
    if args.json:
        host = {"cores": os.cpu_count(), "python": platform.python_version()}
        args.json.write_text(
            json.dumps({"bench": "neighbours", "host": host, "rows": rows}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
