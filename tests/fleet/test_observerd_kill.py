"""observerd is killed at random instants: no event is lost, and nothing completed runs twice."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.daemons import ROOT
from tests.support.apps import free_ports

# Twelve in every run of CI; a release is tried with KILL_ROUNDS=300, in pieces that differ by
# KILL_SEED where one would last too long.
ROUNDS = int(os.environ.get("KILL_ROUNDS", "12"))
SEED = int(os.environ.get("KILL_SEED", "11"))
RUNS = "/observer/workflows/runs"
NODES = 40


class Witness(ThreadingHTTPServer):
    """Stands in for pathwayd: answers after a moment, and notes who asked, in order."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked: list[str] = []
        self.lock = threading.Lock()

    def handle_error(self, *_: Any) -> None:
        """Connections of a killed process break off."""


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        name = request["query"].split("/")[1]
        assert isinstance(self.server, Witness)
        with self.server.lock:
            self.server.asked.append(request["query"])
        time.sleep(0.005 + int(name[1:]) % 7 * 0.01)
        hit = {"id": name, "score": 1.0, "rank": 1, "version": 1, "status": "live", "tags": [],
               "content": {"said": name}, "semantic": 1.0, "lexical": 0.0,
               "created_at": "t", "updated_at": "t"}  # fmt: skip
        body = json.dumps({
            "hits": [hit], "mode": "hybrid", "degraded": False, "matched": 1,
            "semantic": {"status": "ok", "model": "m", "pending": 0, "reason": None},
        }).encode()  # fmt: skip
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing is written."""


class Daemon:
    """observerd as a process that can be killed and started again."""

    def __init__(self, folder: Path, peer: str) -> None:
        port = free_ports(1)[0]
        self.folder = folder / "observerd"
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False, verify=False
        )
        self._env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("LAKEHOUSE_")},
            "LAKEHOUSE_FLEET__DATA_DIR": str(folder),
            "LAKEHOUSE_OBSERVERD__PORT": str(port),
            "LAKEHOUSE_OBSERVERD__MAX_PARALLEL": "4",
            "LAKEHOUSE_PATHWAYD__URL": peer,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it answers."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "services.observerd"],
            cwd=ROOT,
            env=self._env,
            stderr=subprocess.DEVNULL,
        )
        self.insist("GET", "/health")

    def kill(self) -> None:
        """Kills it as the kernel would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def insist(self, method: str, path: str, **more: Any) -> Any:
        """Asks until there is an answer."""
        deadline = time.monotonic() + 40
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = self.client.request(method, path, **more)
                if answer.status_code < 500:
                    assert answer.is_success, answer.text
                    return answer.json()
            assert time.monotonic() < deadline, "it does not answer"
            time.sleep(0.01)

    def read_completed(self, scratch: Path) -> set[str]:
        """`run/node` of all that is written down as completed, read beside the daemon."""
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        for file in self.folder.glob("workflows.sqlite*"):
            shutil.copy(file, scratch / file.name)
        with contextlib.closing(sqlite3.connect(scratch / "workflows.sqlite")) as db:
            rows = db.execute("select run_id, node_id from nodes where state = 'completed'")
            return {f"{run}/{node}" for run, node in rows}


@pytest.fixture
def witness() -> Iterator[Witness]:
    server = Witness()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def daemon(tmp_path: Path, witness: Witness) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "data", f"http://127.0.0.1:{witness.server_port}")
    made.start()
    yield made
    made.kill()
    made.client.close()


def make_workflow(run_id: str, dice: random.Random) -> dict[str, Any]:
    """A graph that asks the witness in every node but a few; some are skipped, one fails."""
    nodes: list[dict[str, Any]] = []
    for number in range(NODES):
        names = [f"n{n}" for n in range(max(0, number - 8), number)]
        after = dice.sample(names, min(len(names), dice.randrange(4)))
        node: dict[str, Any] = {
            "id": f"n{number}",
            "mode": "pathway.search",
            "depends_on": after,
            "trigger_rule": dice.choice(["all_success", "all_done", "one_success"]),
            "with": {"query": f"$inputs.run/n{number}", "k": 1},
        }
        if number % 13 == 5:
            node["when"] = "1 == 2"
        if number % 17 == 11:
            node["mode"], node["with"] = "fixture.upper", {"text": "$inputs.wrong"}
        nodes.append(node)
    inputs = {"run": run_id, "wrong": 1}
    return {"name": "kills", "run_id": run_id, "nodes": nodes, "inputs": inputs}


@pytest.mark.timeout(120 + 10 * ROUNDS)
def test_nothing_completed_runs_twice_and_all_ends_the_same(
    daemon: Daemon, witness: Witness, tmp_path: Path
) -> None:
    dice = random.Random(SEED)
    shape = dice.random()
    daemon.insist("POST", RUNS, json=make_workflow("calm", random.Random(shape)))
    calm = daemon.insist("GET", f"{RUNS}/calm", params={"wait": 15})
    assert calm["status"] == "failed"
    assert len(witness.asked) == len(set(witness.asked)) > NODES / 2
    done: dict[str, int] = {}
    number = 0
    alive: str | None = None
    ended: list[str] = []
    for _ in range(ROUNDS):
        if alive is None:
            number += 1
            alive = f"run{number}"
            daemon.insist("POST", RUNS, json=make_workflow(alive, random.Random(shape)))
        time.sleep(dice.uniform(0.0, 0.25))
        daemon.kill()
        at = len(witness.asked)
        for one in daemon.read_completed(tmp_path / "copy"):
            done.setdefault(one, at)
        daemon.start()
        run = daemon.insist("GET", f"{RUNS}/{alive}")
        if run["finished_at"]:
            ended.append(alive)
            alive = None
    if alive is not None:
        run = daemon.insist("GET", f"{RUNS}/{alive}", params={"wait": 15})
        assert run["finished_at"], run["status"]
        ended.append(alive)
    repeats = {
        one: asked
        for one, at in done.items()
        if (asked := sum(query == one for query in witness.asked[at:]))
    }
    assert repeats == {}
    assert done
    for name in ended:
        run = daemon.insist("GET", f"{RUNS}/{name}")
        assert run["result_hash"] == calm["result_hash"], name


@pytest.mark.timeout(120 + 10 * ROUNDS)
def test_no_acknowledged_event_is_lost_or_doubled(daemon: Daemon) -> None:
    dice = random.Random(5)
    told: set[str] = set()
    number = 0
    for _ in range(max(3, ROUNDS // 4)):
        stop = time.monotonic() + dice.uniform(0.05, 0.4)

        def load(until: float) -> None:
            nonlocal number
            while time.monotonic() < until:
                names = [f"e{number + n}" for n in range(dice.randrange(1, 40))]
                number += len(names)
                events = [{"run_id": "r", "id": name, "status": "ok"} for name in names]
                try:
                    answer = daemon.client.post("/observer/events", json={"events": events})
                except httpx.TransportError:
                    return
                assert answer.json()["accepted"] == len(names)
                told.update(names)

        thread = threading.Thread(target=load, args=(stop + 0.2,))
        thread.start()
        time.sleep(max(0.0, stop - time.monotonic()))
        daemon.kill()
        thread.join()
        daemon.start()
    # Sent again, the acknowledged ones are known.
    sample = sorted(told)[:200]
    events = [{"run_id": "r", "id": name, "status": "ok"} for name in sample]
    again = daemon.insist("POST", "/observer/events", json={"events": events})
    assert (again["accepted"], again["duplicates"]) == (0, len(sample))
    found: list[str] = []
    after: int | None = 0
    while after is not None:
        page = daemon.insist("GET", "/observer/events", params={"after": after, "limit": 1000})
        found += [one["event"]["id"] for one in page["events"]]
        after = page["next_after"]
    assert told <= set(found)
    assert len(found) == len(set(found))
