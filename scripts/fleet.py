#!/usr/bin/env python3
"""Runs all daemons of this machine: up, down, status, logs, restart, config."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_PYTHON = ROOT / ".venv" / "bin" / "python"
if _PYTHON.exists() and Path(sys.prefix) != ROOT / ".venv":
    # Started by the system's Python: go on in the project's environment.
    os.execv(_PYTHON, [str(_PYTHON), *sys.argv])
sys.path.insert(0, str(ROOT))

import argparse
import http.client
import json
import signal
import socket
import time
from typing import Any

from shared.config import Config, ConfigError, load
from shared.daemons import BUILT, PORTS
from shared.errors import Unavailable
from shared.logs import configure_logging
from shared.supervisor import (
    Supervisor,
    log_dir,
    read_state,
    redirect_output,
    run_child,
    supervisor_pid,
)

# A log that has grown past this is put aside when the fleet starts. Bytes.
LOG_KEEP = 64 * 1024 * 1024


def main() -> int:
    """Parses the command line and runs one command; gives the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/fleet.py", description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "config" / "lakehouse.toml")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start the fleet and wait until it is ready")
    up.add_argument("--foreground", action="store_true", help="stay, and log to this terminal")
    up.add_argument("--only", default="", help="comma-separated daemons to run")
    up.add_argument("--wait", type=float, default=30.0, help="seconds to wait until ready")
    commands.add_parser("down", help="stop the fleet, letting requests under way end")
    status = commands.add_parser("status", help="each daemon's state")
    status.add_argument("--json", action="store_true", dest="as_json")
    logs = commands.add_parser("logs", help="the daemons' logs")
    logs.add_argument("daemon", nargs="?", choices=(*BUILT, "fleet"))
    logs.add_argument("-n", type=int, default=20, help="lines from the end of each")
    logs.add_argument("-f", "--follow", action="store_true")
    restart = commands.add_parser("restart", help="restart one daemon")
    restart.add_argument("daemon", choices=BUILT)
    commands.add_parser("config", help="the values in force, secrets masked")
    arguments = parser.parse_args()
    try:
        config = load(arguments.config, os.environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    match arguments.command:
        case "up":
            asked = [n for n in arguments.only.split(",") if n]
            names = asked or list(config.fleet.daemons or BUILT)
            return start_fleet(config, names, arguments.foreground, arguments.wait)
        case "down":
            return stop_fleet(config)
        case "status":
            return show_status(config, arguments.as_json)
        case "logs":
            return show_logs(config, arguments.daemon, arguments.n, arguments.follow)
        case "restart":
            return restart_daemon(config, arguments.daemon)
        case _:
            print(render_toml(config.effective()))
            return 0


def start_fleet(config: Config, names: list[str], foreground: bool, wait_s: float) -> int:
    """Starts the supervisor, in the background unless asked otherwise."""
    unknown = [name for name in names if name not in BUILT]
    if unknown:
        known = ", ".join(BUILT)
        print(f"No such daemon in this build: {', '.join(unknown)}. There are: {known}")
        return 2
    pid = supervisor_pid(config)
    if pid is not None:
        print(f"The fleet is running already (process {pid}).")
        return wait_until_ready(config, names, wait_s, pid)
    busy = [f"{config.daemon(n).port} ({n})" for n in names if is_port_taken(config, n)]
    if busy:
        print(
            f"Ports taken by other programs: {', '.join(busy)}. Stop those, or set other ports: "
            "LAKEHOUSE_<DAEMON>__PORT=… or config/lakehouse.toml."
        )
        return 1
    # The gateway is ready when these are: it need not wait for what was not asked for.
    fleet = config.fleet.model_copy(update={"daemons": tuple(names)})
    config = config.model_copy(update={"fleet": fleet})
    if foreground:
        configure_logging(config.log, "fleet")
        return supervise(config, names, to_files=False)
    rotate_logs(config)
    pid = spawn_background(config, names)
    return wait_until_ready(config, names, wait_s, pid)


def supervise(config: Config, names: list[str], *, to_files: bool) -> int:
    """Becomes the supervisor until told to stop."""
    try:
        Supervisor(config, names, to_files=to_files).run()
    except Unavailable as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


def spawn_background(config: Config, names: list[str]) -> int:
    """Forks the supervisor into a session of its own; gives its process id."""
    reader, writer = os.pipe()
    first = os.fork()
    if first == 0:
        os.setsid()
        second = os.fork()
        if second:
            os.write(writer, str(second).encode())
            os._exit(0)
        os.close(reader)
        os.close(writer)
        redirect_output(log_dir(config) / "fleet.log")
        configure_logging(config.log, "fleet")
        run_child(lambda: sys.exit(supervise(config, names, to_files=True)))
    os.close(writer)
    os.waitpid(first, 0)
    with os.fdopen(reader) as answer:
        return int(answer.read())


def wait_until_ready(config: Config, names: list[str], wait_s: float, pid: int) -> int:
    """Waits until each daemon's /ready answers 200; prints what is missing when it does not."""
    begun = time.monotonic()
    missing: dict[str, str] = dict.fromkeys(names, "not started")
    while missing and time.monotonic() - begun < wait_s:
        missing = {n: why for n in missing if (why := probe(config, n, "/ready")) != "ok"}
        if not is_alive(pid):
            print(f"The fleet's supervisor ended. Its log: {log_dir(config) / 'fleet.log'}")
            return 1
        if missing:
            time.sleep(0.05)
    if missing:
        for name, why in missing.items():
            print(f"{name} is not ready: {why}")
        print("See: scripts/fleet.py logs")
        return 1
    seconds = time.monotonic() - begun
    print(f"{len(names)} daemons ready after {seconds:.1f} s. Gateway: {config.gateway.address}")
    return 0


def stop_fleet(config: Config) -> int:
    """Sends SIGTERM to the supervisor and waits until everything has ended."""
    pid = supervisor_pid(config)
    if pid is None:
        print("The fleet is not running.")
        return 0
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + config.fleet.drain_s + 10
    while supervisor_pid(config) is not None:
        if time.monotonic() > deadline:
            print(f"The fleet (process {pid}) has not stopped yet.")
            return 1
        time.sleep(0.05)
    print("The fleet is down.")
    return 0


def restart_daemon(config: Config, name: str) -> int:
    """Ends one daemon; the supervisor starts it again."""
    before = (read_state(config) or {}).get(name)
    if before is None or not before.pid:
        print(f"{name} is not running. Start the fleet with: scripts/fleet.py up")
        return 1
    os.kill(before.pid, signal.SIGTERM)
    deadline = time.monotonic() + config.fleet.drain_s + 30
    while time.monotonic() < deadline:
        now = (read_state(config) or {}).get(name)
        if now and now.pid not in (0, before.pid) and probe(config, name, "/ready") == "ok":
            print(f"{name} is ready again (process {now.pid}).")
            return 0
        time.sleep(0.05)
    print(f"{name} did not come back. See: scripts/fleet.py logs {name}")
    return 1


def collect_status(config: Config) -> list[dict[str, Any]]:
    """One row per daemon of the roster: state, address, process and memory."""
    state = read_state(config)
    rows: list[dict[str, Any]] = []
    for name in PORTS:
        row: dict[str, Any] = {"daemon": name, "port": PORTS[name], "state": "not built"}
        if name in BUILT:
            row["port"] = config.daemon(name).port
            row["state"] = "down"
            child = (state or {}).get(name)
            if child is not None and child.pid:
                ready = probe(config, name, "/ready")
                row["state"] = "ready" if ready == "ok" else f"not ready: {ready}"
                row["pid"] = child.pid
                row["uptime_s"] = round(time.time() - child.started, 1)
                row["pss_mib"] = read_pss_mib(child.pid)
            if child is not None:
                row["restarts"] = child.restarts
                row["last_exit"] = child.last_exit
        rows.append(row)
    return rows


def show_status(config: Config, as_json: bool) -> int:
    """Prints the fleet's state; the exit status is 0 when every daemon is ready."""
    rows = collect_status(config)
    if as_json:
        print(json.dumps({"supervisor_pid": supervisor_pid(config), "daemons": rows}))
    else:
        print(f"{'daemon':<12} {'port':>5} {'pid':>7} {'PSS':>8} {'up':>8} {'restarts':>8}  state")
        for row in rows:
            pss = f"{row['pss_mib']:.0f} MiB" if row.get("pss_mib") else ""
            uptime = f"{row['uptime_s']:.0f} s" if "uptime_s" in row else ""
            print(
                f"{row['daemon']:<12} {row['port']:>5} {row.get('pid', ''):>7} {pss:>8} "
                f"{uptime:>8} {row.get('restarts', ''):>8}  {row['state']}"
            )
    return 0 if all(r["state"] in ("ready", "not built") for r in rows) else 1


def show_logs(config: Config, daemon: str | None, lines: int, follow: bool) -> int:
    """Prints the end of the logs, and what is added to them when following."""
    folder = log_dir(config)
    names = [daemon] if daemon else ["fleet", *BUILT]
    paths = [path for name in names if (path := folder / f"{name}.log").exists()]
    if not paths:
        print(f"No logs under {folder}: the fleet has not run in the background yet.")
        return 1
    if follow:
        os.execvp("tail", ["tail", "-n", str(lines), "-F", *map(str, paths)])
    for path in paths:
        for line in path.read_text("utf-8", "replace").splitlines()[-lines:]:
            print(line if daemon else f"{path.stem}: {line}")
    return 0


def rotate_logs(config: Config) -> None:
    """Puts large logs aside under the name `<name>.log.1`, keeping one generation."""
    for path in log_dir(config).glob("*.log"):
        if path.stat().st_size > LOG_KEEP:
            path.replace(path.with_suffix(".log.1"))


def probe(config: Config, name: str, path: str) -> str:
    """ "ok" when the daemon answers 200, else the reason in a few words."""
    section = config.daemon(name)
    headers = {"Host": "127.0.0.1"}
    if config.token:
        headers["Authorization"] = f"Bearer {config.token}"
    connection = http.client.HTTPConnection(section.host, section.port, timeout=5)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status == 200:
            return "ok"
        return str(json.loads(body)["error"]["message"])
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        return type(error).__name__ if not isinstance(error, OSError) else "no answer"
    finally:
        connection.close()


def is_port_taken(config: Config, name: str) -> bool:
    """Whether something listens where the daemon would."""
    section = config.daemon(name)
    family = socket.AF_INET6 if ":" in section.host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((section.host, section.port))
        except OSError:
            return True
    return False


def is_alive(pid: int) -> bool:
    """Whether the process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def read_pss_mib(pid: int) -> float | None:
    """Proportional set size: memory with shared pages divided among those who share them."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return round(int(line.split()[1]) / 1024, 1)
    except OSError:
        return None
    return None


def render_toml(values: dict[str, Any], prefix: str = "") -> str:
    """Nested plain data as TOML text; keys without a value become comments."""
    lines: list[str] = []
    tables: list[str] = []
    for key, value in values.items():
        if isinstance(value, dict):
            name = key if key.replace("_", "").isalnum() else json.dumps(key)
            tables.append(f"\n[{prefix}{name}]\n{render_toml(value, f'{prefix}{name}.')}")
        elif value is None:
            lines.append(f"# {key} is not set")
        else:
            name = key if key.replace("_", "").isalnum() else json.dumps(key)
            lines.append(f"{name} = {json.dumps(value)}")
    return "\n".join(lines + tables)


if __name__ == "__main__":
    sys.exit(main())
