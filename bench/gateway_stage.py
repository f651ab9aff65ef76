"""The processes of bench/gateway.py: an upstream, the gateway, and its peers."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.private_fleet import reserve_ports
from shared.daemons import ROOT

NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
BARE = ("httpx", "bare-own", "bare-aiohttp", "bare-pyreqwest", "bare-answer")
# A subject: the port it listens on and its process.
Running = tuple[int, subprocess.Popen[bytes]]


class Stage:
    """Everything that runs during the benchmark, in one temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.ports = iter(reserve_ports(12))

    def start(self, name: str, port: int, command: list[str]) -> subprocess.Popen[bytes]:
        """Starts a process and waits until it accepts connections."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        self.processes.append(process)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return process
            if process.poll() is not None:
                break
            time.sleep(0.02)
        log_text = (self.folder / f"{name}.log").read_text("utf-8", "replace")
        raise RuntimeError(f"{name} did not start:\n{log_text[-2000:]}")

    def start_own(self, name: str, port: int, upstream: int) -> subprocess.Popen[bytes]:
        """Starts one of bench/gateway_subjects.py."""
        command = [sys.executable, "-m", "bench.gateway_subjects", name, str(port), str(upstream)]
        return self.start(name, port, command)

    def start_nginx(self, name: str, port: int, server: str) -> subprocess.Popen[bytes]:
        """Starts an nginx of one worker, in one process, with the given server block."""
        config = self.folder / f"{name}.conf"
        config.write_text(
            f"daemon off; master_process off; worker_processes 1; "
            f"pid {self.folder}/{name}.pid; error_log {self.folder}/{name}.err;\n"
            "events { worker_connections 4096; }\n"
            "http { access_log off; keepalive_requests 100000000; keepalive_timeout 600;\n"
            f"{server}\n}}\n"
        )
        return self.start(name, port, [str(NGINX), "-c", str(config), "-p", str(self.folder)])

    def stop(self) -> None:
        """Ends every process that was started here."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def staged() -> Iterator[Stage]:
    """A stage that is cleared away at the end."""
    with tempfile.TemporaryDirectory(prefix="bench-gateway-") as folder:
        stage = Stage(Path(folder))
        try:
            yield stage
        finally:
            stage.stop()


def start_upstream(stage: Stage) -> int:
    """The instant upstream; gives its port."""
    port = next(stage.ports)
    if NGINX:
        answer = '{"pad": "' + "x" * 1013 + '"}'
        stage.start_nginx(
            "upstream",
            port,
            f"server {{ listen 127.0.0.1:{port} backlog=2048; "
            f"location / {{ default_type application/json; return 200 '{answer}'; }} }}",
        )
    else:
        stage.start_own("instant", port, 0)
    return port


def start_subjects(stage: Stage, upstream: int, streams: int) -> dict[str, Running]:
    """Every proxy that can run here, by name.

    Args:
        upstream: port of the instant upstream, under `/v1/storage`.
        streams: port of the one that streams, under `/v1/sql`.
    """
    subjects: dict[str, Running] = {}
    port = next(stage.ports)
    config = stage.folder / "lakehouse.toml"
    config.write_text(
        f"[fleet]\ndata_dir = '{stage.folder}'\n[gateway]\nport = {port}\n"
        f"[storaged]\nport = {upstream}\n[queryd]\nport = {streams}\n"
    )
    gateway = [sys.executable, "-m", "services.gateway", "--config", str(config)]
    subjects["gateway"] = port, stage.start("gateway", port, gateway)
    if NGINX:
        port = next(stage.ports)
        kept = 'proxy_http_version 1.1; proxy_set_header Connection "";'
        process = stage.start_nginx(
            "nginx",
            port,
            f"upstream u {{ server 127.0.0.1:{upstream}; keepalive 64; "
            "keepalive_requests 100000000; }\n"
            f"server {{ listen 127.0.0.1:{port} backlog=2048; "
            f"location /v1/ {{ {kept} proxy_pass http://u/; }} "
            f"location /v1/sql/ {{ {kept} proxy_buffering off; "
            f"proxy_pass http://127.0.0.1:{streams}/; }} }}",
        )
        subjects["nginx"] = port, process
    for name in BARE:
        port = next(stage.ports)
        try:
            subjects[name] = port, stage.start_own(name, port, upstream)
        except RuntimeError as error:
            print(f"{name} is left out: {str(error).splitlines()[-1]}")
    return subjects
