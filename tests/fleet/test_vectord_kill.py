"""vectord is killed at random instants of an upsert load: nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from shared.daemons import ROOT
from tests.support.apps import free_ports

# Twenty in every run of CI; a release is tried with KILL_ROUNDS=200.
ROUNDS = int(os.environ.get("KILL_ROUNDS", "20"))
WRITERS = 3


def start(name: str, env: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", f"services.{name}"],
        cwd=ROOT,
        env=env,
        stderr=subprocess.DEVNULL,
    )


# One client for all questions: making one costs more than asking.
HTTP = httpx.Client(verify=False, timeout=20)


def wait(check: Callable[[], bool], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if check():
                return
        except (httpx.HTTPError, ValueError, KeyError):
            pass
        assert time.monotonic() < deadline, "it did not come up in time"
        time.sleep(0.02)


@pytest.mark.timeout(60 + 20 * ROUNDS)
def test_kills_lose_nothing_acknowledged(tmp_path: Path) -> None:
    ports = free_ports(2)
    base = f"http://127.0.0.1:{ports[1]}"
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith("LAKEHOUSE_")},
        "LAKEHOUSE_FLEET__DATA_DIR": str(tmp_path),
        "LAKEHOUSE_STORAGED__PORT": str(ports[0]),
        "LAKEHOUSE_VECTORD__PORT": str(ports[1]),
        "LAKEHOUSE_VECTORD__SNAPSHOT_INTERVAL_S": "0.1",
        "LAKEHOUSE_VECTORD__MERGE_ROWS": "50",
    }
    storaged = start("storaged", env)
    chance = random.Random(7)
    # What each id was last told to be; None once its deletion was acknowledged.
    told: dict[str, int | None] = {}
    unsure: dict[str, set[int | None]] = {}
    url = f"{base}/vectors/indexes/w"

    def load(writer: int, number: int, stop: threading.Event) -> None:
        own = random.Random(number * 10 + writer)
        version = number * 1_000_000 + writer * 100_000
        with httpx.Client(verify=False, timeout=20) as client:
            while not stop.is_set():
                version += 1
                names = {f"{writer}-{own.randrange(150)}" for _ in range(own.randrange(1, 12))}
                delete = own.random() < 0.2
                for name in names:
                    unsure.setdefault(name, set()).add(None if delete else version)
                try:
                    if delete:
                        body = json.dumps({"ids": sorted(names)})
                        answer = client.request("DELETE", f"{url}/items", content=body)
                    else:
                        items = [
                            {
                                "id": n,
                                "vector": [version % 97 + 1, len(n), 1, 2],
                                "text": f"v{version}",
                                "metadata": {"version": version},
                            }
                            for n in names
                        ]
                        answer = client.put(f"{url}/items", json={"items": items})
                except httpx.HTTPError:
                    return
                if answer.status_code != 200:
                    return
                for name in names:
                    told[name] = None if delete else version
                    unsure[name] = set()

    vectord = start("vectord", env)
    try:
        wait(lambda: HTTP.get(f"{base}/ready").status_code == 200)
        assert HTTP.post(f"{base}/vectors/indexes", json={"name": "w", "dim": 4}).is_success
        for number in range(1, ROUNDS + 1):
            stop = threading.Event()
            writers = [
                threading.Thread(target=load, args=(w, number, stop)) for w in range(WRITERS)
            ]
            for thread in writers:
                thread.start()
            time.sleep(chance.uniform(0.02, 0.9))
            vectord.send_signal(signal.SIGKILL)
            vectord.wait()
            stop.set()
            for thread in writers:
                thread.join()
            vectord = start("vectord", env)
            wait(lambda: HTTP.get(url).json()["status"] == "ready")
            check(url, told, unsure)
        assert len(told) > 100
        assert HTTP.get(url).json()["problems"] == []
    finally:
        for process in (vectord, storaged):
            process.terminate()
            process.wait()


def check(url: str, told: dict[str, int | None], unsure: dict[str, set[int | None]]) -> None:
    found = HTTP.post(f"{url}/search", json={"vector": [1, 1, 1, 1], "k": 10_000}).json()["hits"]
    held = {hit["id"]: hit["metadata"]["version"] for hit in found}
    assert len(held) == len(found)
    for name in told.keys() | unsure.keys():
        # Beside what was acknowledged, only what was asked for after it may be there.
        possible = {told.get(name)} | unsure.get(name, set())
        assert held.get(name) in possible, f"{name}: {held.get(name)} is none of {possible}"
        told[name] = held.get(name)
        unsure[name] = set()
