"""Memory and processor's time of ingestd and its workers, and what 10 GB do to them."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.ingest_rows import make_body
from scripts.private_fleet import PrivateFleet

MiB = 1024 * 1024


class MemoryWatch(threading.Thread):
    """The summed resident memory of a process and its children, at its highest."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._done = threading.Event()
        self.peak_mib = 0.0

    def run(self) -> None:
        """Looks twenty times a second."""
        while not self._done.wait(0.05):
            total = sum(resident_mib(pid) for pid in [self._pid, *children_of(self._pid)])
            self.peak_mib = max(self.peak_mib, total)

    def stop(self) -> float:
        """Ends the watch; gives the peak in MiB."""
        self._done.set()
        self.join()
        return self.peak_mib


def children_of(pid: int) -> list[int]:
    """The direct children of a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except OSError:
            continue
    return found


def processor_seconds(pids: list[int]) -> float:
    """Processor's seconds that processes and their children have used so far."""
    ticks = 0
    for pid in pids:
        for one in [pid, *children_of(pid)]:
            try:
                fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Resident memory of a process in MiB; 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / MiB


def read_peaks(pid: int) -> dict[str, float]:
    """The highest resident memory in MiB of a process and of each of its children, so far."""
    found: dict[str, float] = {}
    for one in [pid, *children_of(pid)]:
        try:
            status = Path(f"/proc/{one}/status").read_text()
        except OSError:
            continue
        lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        name = "daemon" if one == pid else f"worker {one}"
        found[name] = int(lines["VmHWM"].split()[0]) / 1024
    return found


def share_mib(pid: int) -> float:
    """The proportional share of memory (PSS) of a process and its children in MiB."""
    total = 0
    for one in [pid, *children_of(pid)]:
        try:
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line[:4] == "Pss:")
    return total / 1024


def send_made(size: int, form: str) -> dict[str, float]:
    """Sends so many bytes to a fresh fleet; gives seconds, rows and peaks."""
    sent = 0

    def counted() -> Iterator[bytes]:
        nonlocal sent
        for piece in make_body(size, form):
            sent += len(piece)
            yield piece

    with PrivateFleet(("storaged", "catalogd", "ingestd")) as fleet:
        pid = fleet.pid("ingestd")
        done = threading.Event()
        shares = [0.0]
        peaks: dict[str, float] = {}

        def watch() -> None:
            while not done.wait(0.5):
                shares.append(share_mib(pid))
                peaks.update(read_peaks(pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        host, _, port = fleet.urls["ingestd"].removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=3600)
        begun = time.perf_counter()
        try:
            connection.request(
                "POST",
                "/ingest?dataset=made",
                body=counted(),
                headers={"prefer": "wait=86400"},
                encode_chunked=True,
            )
            response = connection.getresponse()
            answer = json.loads(response.read())
            seconds = time.perf_counter() - begun
            peaks.update(read_peaks(pid))
        finally:
            done.set()
            watcher.join()
            connection.close()
        if response.status != 200 or answer["rows_in"] != answer["rows_out"]:
            raise RuntimeError(f"{response.status}: {answer}")
    worker = max(peak for name, peak in peaks.items() if name != "daemon")
    return {
        "bytes": sent,
        "rows": answer["rows_out"],
        "seconds": seconds,
        "daemon_mib": peaks["daemon"],
        "worker_mib": worker,
        "share_mib": max(shares),
    }


def measure_memory(gib: float, form: str) -> list[dict[str, Any]]:
    """Peaks at 0.1 GiB and at `gib`."""
    found = [send_made(int(size * 1024 * MiB), form) for size in (0.1, gib)]
    for one in found:
        print(
            f"{form}: {one['bytes'] / 1e9:6.2f} GB, {one['rows']:,} rows in "
            f"{one['seconds']:.1f} s, {one['bytes'] / 1e6 / one['seconds']:.1f} MB/s; "
            f"peak resident: daemon "
            f"{one['daemon_mib']:.0f} MiB, worker {one['worker_mib']:.0f} MiB; "
            f"peak share of both {one['share_mib']:.0f} MiB"
        )
    small, large = found
    return [
        {
            "figure": f"{form}, peak resident of the {name} at {gib:g} GiB, MiB",
            "ours": round(large[f"{name}_mib"]),
            "peer": round(small[f"{name}_mib"]),
            "peer_name": "the same at 0.1 GiB",
            "ratio": round(large[f"{name}_mib"] / small[f"{name}_mib"], 2),
            "target": "flat: <= 1,024 MiB",
        }
        for name in ("daemon", "worker")
    ]
