"""The gateway beside its peers: requests a second, CPU, latency, streams, cancellation.

    python bench/gateway.py [--json FILE] [--seconds 2] [--rounds 3]

In one run, round by round, the same instant upstream (1 KB of JSON) is asked through
- nginx proxy_pass, one worker, kept connections, no access log: the limit;
- the gateway: a real process with edge, figures and access log as shipped;
- a plain FastAPI + httpx proxy: what one would write first;
- the same bare ASGI relay around three HTTP clients: why the gateway has its own.
CPU is what the proxy's process used, from /proc/PID/stat. Needs Debian's packages `nginx`
and `wrk`; without them it says so and uses slower stand-ins of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from bench.gateway_stage import NGINX, staged, start_subjects, start_upstream

CLIENTS = (1, 32)
PATH = "/v1/storage/instant"
STREAMS, EVENTS = 128, 200
CANCELS = 20
TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")
WRK = shutil.which("wrk")


@dataclass
class Subject:
    """One proxy under measurement, with what its rounds gave by number of clients."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    runs: dict[int, list[Run]] = field(default_factory=dict)

    def middle(self, clients: int, figure: str) -> float:
        """The median of one figure over all rounds."""
        return statistics.median(getattr(run, figure) for run in self.runs[clients])


@dataclass
class Run:
    """One measurement: requests a second, latency in ms, CPU microseconds a request."""

    rps: float
    p50: float
    p99: float
    cpu: float


def read_cpu_us(pid: int) -> float:
    """CPU time that a process has used so far, user and system, in microseconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_US


def load_by_wrk(port: int, clients: int, seconds: float) -> tuple[int, float, float, float]:
    """Requests, seconds, p50 and p99 in ms under wrk."""
    command = [str(WRK), "-t1", f"-c{clients}", f"-d{max(1, round(seconds))}", "--latency"]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}{PATH}"], capture_output=True, text=True, check=True
    )
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(f"port {port} answered with errors:\n{done.stdout}")
    units = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    latency = {
        rank: float(value) * units[unit]
        for rank, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s)", done.stdout)
    }
    found = re.search(r"(\d+) requests in ([\d.]+)s", done.stdout)
    assert found is not None
    return int(found[1]), float(found[2]), latency["50"], latency["99"]


def load_by_hand(port: int, clients: int, seconds: float) -> tuple[int, float, float, float]:
    """The same by an asyncio client; slower than wrk, so it flatters slow proxies."""
    request = f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    took: list[float] = []

    async def one(until: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (begun := time.perf_counter()) < until:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            assert found is not None
            await reader.readexactly(int(found[1]))
            took.append((time.perf_counter() - begun) * 1000)
        writer.close()

    async def all_of_them() -> None:
        until = time.perf_counter() + seconds
        await asyncio.gather(*(one(until) for _ in range(clients)))

    asyncio.run(all_of_them())
    took.sort()
    return len(took), seconds, took[len(took) // 2], took[len(took) * 99 // 100]


def measure(subject: Subject, clients: int, seconds: float) -> Run:
    """One round of one subject."""
    before = read_cpu_us(subject.process.pid)
    load = load_by_wrk if WRK else load_by_hand
    requests, took, p50, p99 = load(subject.port, clients, seconds)
    used = read_cpu_us(subject.process.pid) - before
    return Run(requests / took, p50, p99, used / requests)


# Streams and cancellation.


async def open_stream(port: int, target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A GET whose head has been written."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /v1/sql/{target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    return reader, writer


async def count_events(port: int) -> tuple[int, float]:
    """Events of `STREAMS` streams at once that arrived in order, and the seconds it took."""

    async def one() -> int:
        reader, writer = await open_stream(port, f"events?n={EVENTS}&gap_ms=5")
        body = await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.close()
        numbers = [int(n) for n in re.findall(rb"data: (\d+)\n\n", body)]
        return len(numbers) if numbers == list(range(EVENTS)) else 0

    begun = time.perf_counter()
    return sum(await asyncio.gather(*(one() for _ in range(STREAMS)))), time.perf_counter() - begun


async def time_cancels(port: int, streams: int, target: str, begun: bytes) -> list[float]:
    """Milliseconds from a client's leaving until the upstream saw it, sorted."""
    took: list[float] = []
    for _ in range(CANCELS):
        reader, writer = await open_stream(port, target)
        if begun:
            await reader.readuntil(begun)
        else:
            await asyncio.sleep(0.02)
        left = time.monotonic()
        writer.transport.abort()
        seen = 0.0
        while seen < left:
            asked, asking = await asyncio.open_connection("127.0.0.1", streams)
            asking.write(b"GET /left HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await asked.readuntil(b"\r\n\r\n")
            seen = float(await asked.readexactly(int(head.split(b"length: ")[1].split()[0])))
            asking.close()
            if time.monotonic() - left > 10:
                return [float("inf")]
        took.append((seen - left) * 1000)
    return sorted(took)


# Report.


def make_rows(subjects: dict[str, Subject]) -> list[dict[str, Any]]:
    """The comparisons, each a row of docs/BENCHMARKS.md."""
    rows: list[dict[str, Any]] = []
    ours = subjects["gateway"]

    def row(figure: str, mine: float, peer: str, theirs: float, target: str = "") -> None:
        rows.append(
            {
                "figure": figure,
                "ours": round(mine, 3),
                "peer_name": peer,
                "peer": round(theirs, 3),
                "ratio": round(mine / theirs, 3),
                "target": target,
            }
        )

    for clients in CLIENTS:
        suffix = f", {clients} client{'s' * (clients > 1)}"
        for peer in ("nginx", "httpx"):
            if peer not in subjects:
                continue
            other = subjects[peer]
            asked = "≥ 0.15, goal 0.30" if peer == "nginx" and clients > 1 else ""
            row(f"requests/s{suffix}", ours.middle(clients, "rps"), peer,
                other.middle(clients, "rps"), asked)  # fmt: skip
            asked = "ours ≤ 350, goal 150" if peer == "nginx" else ""
            row(f"CPU µs a request{suffix}", ours.middle(clients, "cpu"), peer,
                other.middle(clients, "cpu"), asked)  # fmt: skip
            for figure in ("p50", "p99"):
                row(f"{figure} ms{suffix}", ours.middle(clients, figure), peer,
                    other.middle(clients, figure))  # fmt: skip
        own = subjects.get("bare-own")
        for peer in ("bare-aiohttp", "bare-pyreqwest", "bare-answer"):
            if own is not None and peer in subjects:
                theirs = subjects[peer].middle(clients, "cpu")
                row(f"bare relay, own client: CPU µs{suffix}", own.middle(clients, "cpu"), peer,
                    theirs)  # fmt: skip
    return rows


def measure_streams(subjects: dict[str, Subject], streams: int) -> list[dict[str, Any]]:
    """Rows for streams and cancellation."""
    rows: list[dict[str, Any]] = []
    wanted = STREAMS * EVENTS
    for name in ("gateway", "nginx"):
        if name not in subjects:
            continue
        port = subjects[name].port
        arrived, seconds = asyncio.run(count_events(port))
        print(f"{name:<16} {STREAMS} streams: {arrived}/{wanted} events in {seconds:.2f} s")
        if name != "gateway":
            continue
        rows.append(
            {
                "figure": f"events of {STREAMS} streams",
                "ours": arrived,
                "peer_name": "sent",
                "peer": wanted,
                "ratio": arrived / wanted,
                "target": "1",
            }
        )
        for window, target, begun in (
            ("before the first byte", "hang", b""),
            ("mid-stream", "forever", b"data: 3\n\n"),
        ):
            took = asyncio.run(time_cancels(port, streams, target, begun))
            middle = took[len(took) // 2]
            print(f"{name:<16} cancel {window}: p50 {middle:.1f} ms, worst {took[-1]:.1f} ms")
            rows.append(
                {
                    "figure": f"upstream closed after a client leaves {window}, worst ms",
                    "ours": round(took[-1], 1),
                    "peer_name": "promised",
                    "peer": 250,
                    "ratio": round(took[-1] / 250, 3),
                    "target": "≤ 1",
                }
            )
    return rows


def main() -> int:
    """Runs it all; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--seconds", type=int, default=2, help="length of a measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each subject")
    arguments = parser.parse_args()
    for tool, found, instead in (
        ("nginx", NGINX, "no nginx to compare with, and a Python upstream"),
        ("wrk", WRK, "an asyncio load generator, which is slower than the proxies"),
    ):
        if not found:
            print(f"MISSING: {tool} (apt-get install {tool}). Instead: {instead}.")
    with staged() as stage:
        streams = next(stage.ports)
        stage.start_own("instant", streams, 0)
        running = start_subjects(stage, start_upstream(stage), streams)
        subjects = {name: Subject(name, *found) for name, found in running.items()}
        for clients in CLIENTS:
            for subject in subjects.values():
                measure(subject, clients, 0.5)  # warm
            for _ in range(arguments.rounds):
                for subject in subjects.values():
                    run = measure(subject, clients, arguments.seconds)
                    subject.runs.setdefault(clients, []).append(run)
            for subject in subjects.values():
                rps, p50, p99, cpu = (
                    subject.middle(clients, f) for f in ("rps", "p50", "p99", "cpu")
                )
                print(
                    f"{subject.name:<16} {clients:>3} clients {rps:>9,.0f} requests/s  "
                    f"p50 {p50:>7.3f} ms  p99 {p99:>7.3f} ms  {cpu:>6.1f} µs CPU"
                )
        rows = make_rows(subjects) + measure_streams(subjects, streams)
    for row in rows:
        print(
            f"{row['figure']:<58} {row['ours']:>10} {row['peer_name']:>14} {row['peer']:>10} "
            f"ratio {row['ratio']:.3f} {row['target']}"
        )
    if arguments.json:
        host = {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "missing": [n for n, found in (("nginx", NGINX), ("wrk", WRK)) if not found],
        }
        arguments.json.write_text(json.dumps({"bench": "gateway", "host": host, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
