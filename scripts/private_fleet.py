#!/usr/bin/env python3
"""A fleet of one's own: free ports, a data directory that goes away, and a command to run in it.

    scripts/private_fleet.py -- scripts/smoke/run
    scripts/private_fleet.py --only gateway,storaged -- COMMAND …

Checks use it so that they never touch a fleet that is in use. The command finds the
gateway's address in LAKEHOUSE_GATEWAY, and everything that `scripts/fleet.py` needs to
reach the same fleet in its environment.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from shared.daemons import BUILT

PYTHON = ROOT / ".venv" / "bin" / "python"
FLEET = ROOT / "scripts" / "fleet.py"


class FleetError(RuntimeError):
    """The fleet did not come up, or lost a daemon; the message says how."""


def reserve_ports(count: int) -> list[int]:
    """Free loopback ports below the ephemeral range.

    A port from the ephemeral range could be taken by any outgoing connection between the
    time it is chosen and the time a daemon binds it, or while a daemon restarts.
    """
    found: list[int] = []
    start = 20000 + (os.getpid() * 37) % 10000
    for port in range(start, start + 2000):
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise FleetError("no free ports between 20000 and 32000")


class PrivateFleet:
    """Starts and stops a fleet of the given daemons around a `with` block.

    Args:
        names: daemons to run; all that are built when empty.
        settings: overrides as in the environment, without the prefix:
            `{"QUERYD__WORKERS": "1"}`.
        data_dir: kept afterwards when given; a temporary one otherwise.
    """

    def __init__(
        self,
        names: tuple[str, ...] = (),
        settings: dict[str, str] | None = None,
        data_dir: Path | None = None,
    ) -> None:
        self.names = names or BUILT
        self._temporary = None if data_dir else Path(tempfile.mkdtemp(prefix="lakehouse-"))
        self.data_dir = data_dir or self._temporary
        ports = dict(zip(BUILT, reserve_ports(len(BUILT)), strict=True))
        self.urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("LAKEHOUSE_")},
            "LAKEHOUSE_FLEET__DATA_DIR": str(self.data_dir),
            **{f"LAKEHOUSE_{n.upper()}__PORT": str(p) for n, p in ports.items()},
            **{f"LAKEHOUSE_{key}": value for key, value in (settings or {}).items()},
            "LAKEHOUSE_GATEWAY": self.urls["gateway"],
        }

    def __enter__(self) -> PrivateFleet:
        # Told to end, a script leaves its `with` blocks, and its fleet goes down with it.
        ours = threading.current_thread() is threading.main_thread()
        if ours and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self) -> None:
        """Starts the fleet and waits until it is ready."""
        done = self.command("up", "--only", ",".join(self.names), "--wait", "60")
        if done.returncode:
            logs = self.command("logs", "-n", "30").stdout
            raise FleetError(f"the fleet did not start:\n{done.stdout}{done.stderr}\n{logs}")

    def stop(self) -> None:
        """Stops the fleet."""
        self.command("down")

    def kill(self, name: str) -> int:
        """Kills one daemon with SIGKILL; gives the process id that was killed."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def pid(self, name: str) -> int:
        """Process id of a daemon, waiting for a restart under way."""
        import json

        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                state = json.loads((self.data_dir / "run" / "fleet.json").read_text())
            except (OSError, ValueError):
                continue
            if pid := state["daemons"][name]["pid"]:
                return int(pid)
            time.sleep(0.01)
        raise FleetError(f"{name} is not running")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs `scripts/fleet.py` on this fleet."""
        return subprocess.run(
            [str(PYTHON), str(FLEET), *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )

    def __exit__(self, *_: object) -> None:
        with undisturbed():
            self.stop()
            if self._temporary:
                shutil.rmtree(self._temporary, ignore_errors=True)


@contextmanager
def undisturbed() -> Iterator[None]:
    """No signal to end breaks this off, in this process or in those that it starts.

    Who presses Ctrl-C twice would otherwise leave a whole fleet running.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, signal.SIG_IGN) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler or signal.SIG_DFL)


def main() -> int:
    """Runs the command after `--` in a fleet of its own; gives its exit status."""
    arguments = sys.argv[1:]
    names: tuple[str, ...] = ()
    if len(arguments) > 2 and arguments[0] == "--only":
        names, arguments = tuple(arguments[1].split(",")), arguments[2:]
    if len(arguments) < 2 or arguments[0] != "--":
        print(__doc__)
        return 2
    with PrivateFleet(names, chosen_storage()) as fleet:
        return subprocess.run(arguments[1:], env=fleet.env, check=False).returncode


def chosen_storage() -> dict[str, str]:
    """The [storage] that the environment names: all that a private fleet takes over from it."""
    start = "LAKEHOUSE_STORAGE__"
    return {k.removeprefix("LAKEHOUSE_"): v for k, v in os.environ.items() if k.startswith(start)}


if __name__ == "__main__":
    sys.exit(main())
