"""pathwayd is killed at random instants, and its log damaged at random bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.daemons import ROOT
from tests.support.apps import free_ports

ROUNDS = 20
WRITERS = 4

# One client for all questions: making one costs more than asking.
HTTP = httpx.Client(verify=False, timeout=20)


class Daemon:
    """pathwayd in a process of its own, with the vectors of an embedd that is not there."""

    def __init__(self, tmp_path: Path) -> None:
        port, absent = free_ports(2)
        self.base = f"http://127.0.0.1:{port}"
        self.traces = f"{self.base}/pathway/traces"
        self.journal = tmp_path / "pathwayd" / "journal"
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("LAKEHOUSE_")},
            "LAKEHOUSE_FLEET__DATA_DIR": str(tmp_path),
            "LAKEHOUSE_PATHWAYD__PORT": str(port),
            "LAKEHOUSE_EMBEDD__PORT": str(absent),
            "LAKEHOUSE_PATHWAYD__CHECKPOINT_RECORDS": "60",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until the traces are loaded."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.pathwayd"],
            cwd=ROOT,
            env=self.env,
            stderr=subprocess.DEVNULL,
        )
        wait(lambda: self.stats()["status"] == "ready")

    def stats(self) -> dict[str, Any]:
        return HTTP.get(f"{self.base}/pathway/stats").json()

    def checked(self) -> dict[str, Any]:
        """The figures once all of the log has been read."""
        wait(lambda: self.stats()["log"]["checked"])
        return self.stats()

    def kill(self, how: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        if self.process is not None:
            self.kill(signal.SIGTERM)


def wait(check: Callable[[], bool], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if check():
                return
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            pass
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


class Writer(threading.Thread):
    """Does all kinds of things to traces of its own, and keeps what it was told."""

    def __init__(self, daemon: Daemon, name: str, seed: int) -> None:
        super().__init__()
        self.daemon_ = daemon
        self.label = name
        self.chance = random.Random(seed)
        # What each trace was last told to be: version and status; and what it may be beside.
        self.told: dict[str, tuple[int, str]] = {}
        self.unsure: dict[str, set[tuple[int, str] | None]] = {}
        self.count = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        with httpx.Client(verify=False, timeout=20) as client:
            try:
                while self._do_one(client):
                    pass
            except httpx.HTTPError:
                return

    def _do_one(self, client: httpx.Client) -> bool:
        url = self.daemon_.traces
        live = [name for name, (_, status) in self.told.items() if status == "live"]
        kind = self.chance.random()
        self.count += 1
        if kind > 0.95:
            body = {"query": "x", "filter": {"by": self.label}, "k": 50}
            found = client.post(f"{self.daemon_.base}/pathway/search", json=body)
            by = {hit["content"]["by"] for hit in found.json().get("hits", ())}
            if not found.is_success or by - {self.label}:
                self.wrong.append(found.text[:500])
            return found.is_success
        content = {"by": self.label, "n": self.count, "pad": "x" * self.chance.randrange(300)}
        if kind < 0.4 or not live:
            name = f"{self.label}-{self.count}"
            self.unsure[name] = {(1, "live"), None}
            answer = client.post(url, json={"content": content, "id": name})
            return self._note(answer, name, (1, "live"))
        name = self.chance.choice(live)
        version = self.told[name][0]
        if kind < 0.7:
            self.unsure[name] = {(version + 1, "live")}
            headers = {"If-Match": f'"{version}"'}
            answer = client.put(f"{url}/{name}", json={"content": content}, headers=headers)
            return self._note(answer, name, (version + 1, "live"))
        if kind < 0.85:
            new = f"{self.label}-{self.count}"
            self.unsure[name] = {(version, "superseded")}
            self.unsure[new] = {(1, "live"), None}
            body = {"content": content, "id": new}
            answer = client.post(f"{url}/{name}/revise", json=body)
            return self._note(answer, new, (1, "live")) and self._note(
                answer, name, (version, "superseded")
            )
        self.unsure[name] = {(version, "retired")}
        answer = client.post(f"{url}/{name}/retire", json={})
        return self._note(answer, name, (version, "retired"))

    def _note(self, answer: httpx.Response, name: str, now: tuple[int, str]) -> bool:
        if not answer.is_success:
            self.wrong.append(answer.text)
            return False
        self.told[name] = now
        self.unsure.pop(name, None)
        return True

    def check(self) -> None:
        """What was acknowledged is there; beside it only what had been asked for."""
        assert self.wrong == []
        held: dict[str, dict[str, Any]] = {}
        cursor = ""
        while True:
            page = HTTP.get(f"{self.daemon_.traces}?limit=1000{cursor}").json()
            held |= {trace["id"]: trace for trace in page["traces"]}
            if page["cursor"] is None:
                break
            cursor = f"&cursor={page['cursor']}"
        for name in self.told.keys() | self.unsure.keys():
            trace = held.get(name)
            found = (trace["version"], trace["status"]) if trace else None
            possible = {self.told.get(name)} | self.unsure.get(name, set())
            assert found in possible, f"{name}: {found} is none of {possible}"
            if found:
                self.told[name] = found
        self.unsure = {}


@pytest.mark.timeout(300)
def test_twenty_kills_lose_nothing_acknowledged(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    chance = random.Random(3)
    writers: list[Writer] = [Writer(daemon, f"w{n}", n) for n in range(WRITERS)]
    try:
        daemon.start()
        for number in range(ROUNDS):
            for writer in writers:
                writer.start()
            time.sleep(chance.uniform(0.05, 0.6))
            daemon.kill()
            for writer in writers:
                writer.join()
            daemon.start()
            for writer in writers:
                writer.check()
            writers = [succeed(writer, number) for writer in writers]
        stats = daemon.checked()
        assert stats["problems"] == []
        assert stats["log"]["missing"] == 0
        assert stats["log"]["checkpoint_seq"] > 0
        assert stats["live"] + stats["superseded"] + stats["retired"] > 100
        told = {k: v for writer in writers for k, v in writer.told.items()}
        some = [name for name, (version, _) in told.items() if version > 2][:10]
        for name in some:
            past = HTTP.get(f"{daemon.traces}/{name}/history?limit=1000").json()
            assert past["problems"] == []
            own = [e["version"] for e in past["entries"] if e["id"] == name]
            assert own[-told[name][0] :] == list(range(told[name][0], 0, -1))
    finally:
        daemon.stop()


def succeed(writer: Writer, number: int) -> Writer:
    """A thread that goes on where another ended."""
    heir = Writer(writer.daemon_, writer.label, number * 100 + writer.count)
    heir.told, heir.count = writer.told, writer.count
    return heir


@pytest.mark.timeout(300)
def test_a_log_damaged_at_random_bytes_starts_and_says_what_is_lost(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    chance = random.Random(5)
    count = 300
    try:
        daemon.start()
        for n in range(count):
            body = {"content": {"n": n, "pad": "y" * 100}, "id": f"t{n}"}
            assert HTTP.post(daemon.traces, json=body).status_code == 201
        daemon.kill()
        lost_so_far = 0
        for number in range(8):
            for path in daemon.journal.glob("0*.jsonl"):
                blob = bytearray(path.read_bytes())
                for _ in range(4):
                    at = chance.randrange(len(blob))
                    for n in range(at, min(len(blob), at + chance.choice((1, 1, 30, 400)))):
                        blob[n] = chance.randrange(256)
                path.write_bytes(blob)
            for path in daemon.journal.glob("*.ckpt"):
                if number % 2:
                    path.unlink()
                else:
                    blob = bytearray(path.read_bytes())
                    blob[chance.randrange(len(blob))] ^= 1 << chance.randrange(8)
                    path.write_bytes(blob)
            daemon.start()
            stats = daemon.checked()
            held = stats["live"]
            lost = count + number - held
            # Each hit costs the few records that it reaches, and each is told.
            assert lost_so_far <= lost <= lost_so_far + 4 * 5
            assert stats["log"]["damaged"] + stats["log"]["torn"] + stats["log"]["missing"] > 0
            assert lost == 0 or stats["problems"] or stats["log"]["torn"]
            lost_so_far = lost
            found = HTTP.post(
                f"{daemon.base}/pathway/search", json={"query": "pad y", "k": 1000, "filter": {}}
            ).json()
            assert found["matched"] == held
            body = {"content": "afterwards", "id": f"after{number}"}
            assert HTTP.post(daemon.traces, json=body).status_code == 201
            daemon.kill()
        assert lost_so_far > 0
        assert (daemon.journal / "quarantine.jsonl").stat().st_size > 0
    finally:
        daemon.stop()
