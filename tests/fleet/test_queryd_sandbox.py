"""What a worker's process can still do once it has shut itself in: next to nothing.

Run in a process of its own, because none of it can be undone.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from services.queryd.worker.settings import WorkerSettings
from shared.daemons import ROOT

SCRIPT = """
import os, socket, subprocess, sys
from pathlib import Path
from services.queryd.worker import sandbox

readable, scratch, outside, sibling = sys.argv[1:]
sandbox.bind_to_parent(os.getppid())
sandbox.limit_resources(64, 1 << 20)
gauge = sandbox.MemoryGauge()
print("shut", sandbox.close_file_system((readable,), scratch))

def attempt(name, act):
    try:
        act()
    except (OSError, MemoryError) as error:
        print(name, type(error).__name__)
    else:
        print(name, "done")

def reach():
    with socket.create_connection(("127.0.0.1", int(os.environ["PORT"])), 2):
        pass

attempt("read data", lambda: Path(readable, "data").read_bytes())
attempt("list data", lambda: os.listdir(readable))
attempt("write data", lambda: Path(readable, "new").write_bytes(b"x"))
attempt("change data", lambda: Path(readable, "data").write_bytes(b"x"))
attempt("remove data", lambda: Path(readable, "data").unlink())
attempt("read link out", lambda: Path(readable, "link").read_bytes())
attempt("read outside", lambda: Path(outside).read_bytes())
attempt("read passwd", lambda: Path("/etc/passwd").read_bytes())
attempt("read config", lambda: Path("config/lakehouse.toml").read_bytes())
attempt("read environment", lambda: Path(f"/proc/{sibling}/environ").read_bytes())
attempt("write scratch", lambda: Path(scratch, "new").write_bytes(b"x" * 1000))
attempt("read scratch", lambda: Path(scratch, "new").read_bytes())
attempt("overfill scratch", lambda: Path(scratch, "big").write_bytes(b"x" * (2 << 20)))
attempt("remove scratch", lambda: Path(scratch, "new").unlink())
attempt("execute", lambda: subprocess.run(["/bin/true"], check=True))
attempt("connect", reach)
attempt("kill", lambda: os.kill(int(sibling), 0))
sandbox.limit_memory(gauge, 64 << 20)
attempt("allocate", lambda: bytearray(256 << 20))
size, resident = gauge.read()
print("gauge", 0 < resident < size)
"""

ALWAYS = {
    "read data": "done",
    "list data": "done",
    "write scratch": "done",
    "read scratch": "done",
    "overfill scratch": "OSError",
    "remove scratch": "done",
    "allocate": "MemoryError",
    "gauge": "True",
}
SHUT = {
    "write data": "PermissionError",
    "change data": "PermissionError",
    "remove data": "PermissionError",
    "read link out": "PermissionError",
    "read outside": "PermissionError",
    "read passwd": "PermissionError",
    "read config": "PermissionError",
    "read environment": "PermissionError",
    "execute": "PermissionError",
}


def landlock_abi() -> int:
    """Version of Landlock in this kernel, below 1 where it has none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.syscall(444, None, ctypes.c_size_t(0), 1))


@pytest.fixture
def sibling() -> Generator[int]:
    """A process of the same user that holds a secret in its environment."""
    with subprocess.Popen(["/bin/sleep", "60"], env={"TOKEN": "x"}) as process:
        yield process.pid
        process.kill()


def test_a_process_that_shut_itself_in_can_read_data_and_little_else(
    tmp_path: Path, sibling: int, server_port: int
) -> None:
    readable, scratch = tmp_path / "data", tmp_path / "scratch"
    readable.mkdir()
    scratch.mkdir()
    (readable / "data").write_bytes(b"x")
    outside = tmp_path / "outside"
    outside.write_bytes(b"x")
    (readable / "link").symlink_to(outside)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(readable), str(scratch), str(outside), str(sibling)],
        cwd=ROOT,
        env={"PORT": str(server_port)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    abi = landlock_abi()
    assert found.pop("shut") == str(abi >= 1)
    expected = dict(ALWAYS)
    if abi >= 1:
        expected |= SHUT
    if abi >= 4:
        expected["connect"] = "PermissionError"
    if abi >= 6:
        expected["kill"] = "PermissionError"
    assert {name: found[name] for name in expected} == expected
    assert outside.read_bytes() == b"x"


@pytest.fixture
def server_port() -> Generator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_settings_come_out_as_they_went_in() -> None:
    settings = WorkerSettings(3, os.getpid(), 512, 64, 2, 128, "/s c'r\"atch", ("/a", "/é"))
    assert WorkerSettings.from_json(settings.to_json()) == settings


def test_a_worker_whose_daemon_is_gone_ends_before_it_begins() -> None:
    script = "from services.queryd.worker import sandbox; sandbox.bind_to_parent(1 << 22); print(1)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
