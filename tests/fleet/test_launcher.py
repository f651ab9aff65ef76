"""The launcher on real processes: start, status, crash, restart, stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from scripts.private_fleet import PrivateFleet
from shared.daemons import BUILT, ROOT


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # it has ended, perhaps while being looked at
        return False
    # A zombie that its parent has not collected yet does not run.
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.fixture(scope="module")
def fleet() -> Iterator[PrivateFleet]:
    with PrivateFleet() as running:
        yield running


def test_up_starts_every_daemon_that_is_built_and_down_would_find_it(fleet: PrivateFleet) -> None:
    status = json.loads(fleet.command("status", "--json").stdout)
    states = {row["daemon"]: row["state"] for row in status["daemons"]}
    assert len(states) == 13
    assert {n for n, s in states.items() if s == "ready"} == set(BUILT)
    again = fleet.command("up")
    assert again.returncode == 0
    assert "running already" in again.stdout


def test_gateway_knows_the_whole_fleet(fleet: PrivateFleet) -> None:
    answer = httpx.get(f"{fleet.urls['gateway']}/ready", timeout=10, trust_env=False)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("name", BUILT)
def test_a_killed_daemon_is_back_by_itself(fleet: PrivateFleet, name: str) -> None:
    killed = fleet.kill(name)
    wait_for(lambda: fleet.pid(name) != killed and answers(fleet.urls[name]))
    status = json.loads(fleet.command("status", "--json").stdout)
    row = next(r for r in status["daemons"] if r["daemon"] == name)
    assert row["last_exit"] == "signal SIGKILL"
    assert row["restarts"] >= 1
    wait_for(lambda: fleet.command("status").returncode == 0)


def test_restart_replaces_one_daemon(fleet: PrivateFleet) -> None:
    before = {name: fleet.pid(name) for name in BUILT}
    done = fleet.command("restart", "storaged")
    assert done.returncode == 0, done.stdout
    after = {name: fleet.pid(name) for name in BUILT}
    assert {n for n in BUILT if before[n] != after[n]} == {"storaged"}


def test_logs_and_config_can_be_read(fleet: PrivateFleet) -> None:
    httpx.get(f"{fleet.urls['storaged']}/health", timeout=5, trust_env=False)
    lines = fleet.command("logs", "storaged", "-n", "1000").stdout.splitlines()
    assert any(json.loads(line).get("route") == "/health" for line in lines)
    config = fleet.command("config").stdout
    assert f"port = {fleet.urls['storaged'].rpartition(':')[2]}" in config


def test_down_ends_every_process_and_frees_every_port() -> None:
    with PrivateFleet(names=("storaged",)) as fleet:
        pid = fleet.pid("storaged")
        assert fleet.command("down").returncode == 0
        assert not is_running(pid)
        assert not answers(fleet.urls["storaged"])
        assert "not running" in fleet.command("down").stdout


def test_daemons_do_not_outlive_a_killed_supervisor() -> None:
    with PrivateFleet(names=("storaged",)) as fleet:
        pid = fleet.pid("storaged")
        status = json.loads(fleet.command("status", "--json").stdout)
        os.kill(status["supervisor_pid"], signal.SIGKILL)
        wait_for(lambda: not is_running(pid))
        fleet.start()
        assert answers(fleet.urls["storaged"])


def test_a_taken_port_is_named_before_anything_starts() -> None:
    fleet = PrivateFleet(names=("storaged",))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(fleet.urls["storaged"].rpartition(":")[2])))
        taken.listen()
        done = fleet.command("up", "--only", "storaged")
    assert done.returncode == 1
    assert "(storaged)" in done.stdout
    fleet.__exit__()


def test_bad_settings_are_refused_with_their_paths() -> None:
    fleet = PrivateFleet(settings={"STORAGED__PORT": '"x"', "QUERYD__NONSENSE": "1"})
    done = fleet.command("up")
    fleet.__exit__()
    assert done.returncode == 2
    assert "storaged.port" in done.stderr
    assert "queryd.nonsense: unknown key" in done.stderr


@pytest.mark.parametrize("name", BUILT)
def test_each_daemon_runs_by_itself_as_systemd_runs_it(name: str, tmp_path: Path) -> None:
    fleet = PrivateFleet(data_dir=tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", f"services.{name}", "--config", "config/lakehouse.toml"],
        cwd=ROOT,
        env=fleet.env,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: answers(fleet.urls[name]))
    finally:
        process.terminate()
        process.wait(20)
    assert process.returncode in (0, -signal.SIGTERM)


def test_a_stop_lets_a_request_under_way_end() -> None:
    with PrivateFleet(names=("storaged",)) as fleet:
        port = int(fleet.urls["storaged"].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as upload:
            upload.sendall(
                b"PUT /storage/objects/slow HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Length: 4\r\n\r\nab"
            )
            # Answered before the stop: the server has read what was sent before it.
            wait_for(lambda: answers(fleet.urls["storaged"]))
            os.kill(fleet.pid("storaged"), signal.SIGTERM)
            time.sleep(0.2)  # not a wait for anything: the upload is to be slow
            upload.sendall(b"cd")
            upload.settimeout(10)
            assert upload.recv(4096).startswith(b"HTTP/1.1 201")


def test_a_part_of_the_fleet_is_ready_without_the_rest() -> None:
    with PrivateFleet(("gateway", "storaged")) as fleet:
        answer = httpx.get(f"{fleet.urls['gateway']}/ready", timeout=10, trust_env=False)
        assert answer.status_code == 200
        assert answer.json()["checks"] == {"storaged": "ok"}


def test_a_daemon_that_does_not_exist_cannot_be_part_of_the_fleet() -> None:
    fleet = PrivateFleet(settings={"FLEET__DAEMONS": '["storagedd"]'})
    done = fleet.command("up")
    fleet.__exit__()
    assert done.returncode == 2
    assert "fleet.daemons" in done.stderr
    assert "storagedd" in done.stderr
